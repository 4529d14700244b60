"""transformers' LLaVA on the weights and the batch of a composed recipe: a peer to measure by."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LlavaConfig, LlavaForConditionalGeneration


def reference_llava(model: Any) -> Any:
    """transformers' own LLaVA with the weights of a composed recipe, its tower frozen too."""
    stream, decoder = model.stream("image"), model.backbone.model
    tower = stream.encoder.model
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=decoder.config,
        image_token_index=decoder.config.vocab_size - 1,
        vision_feature_layer=stream.encoder.layer,
    )
    reference: Any = LlavaForConditionalGeneration(config)
    for end in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(reference.generation_config, end, getattr(decoder.config, end))
    reference.model.vision_tower.load_state_dict(tower.state_dict())
    reference.model.language_model.load_state_dict(decoder.model.state_dict())
    reference.lm_head.load_state_dict(decoder.lm_head.state_dict())
    projector, linear = reference.model.multi_modal_projector, stream.connector.map
    projector.linear_1.load_state_dict(linear[0].state_dict())
    projector.linear_2.load_state_dict(linear[2].state_dict())
    reference.model.vision_tower.requires_grad_(False)
    return reference.train()


def inputs(model: Any, batch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a batch as LLaVA takes it: for a step (with labels), and for generation."""
    tokenizer = model.backbone.tokenizer
    picture = model.backbone.model.config.vocab_size - 1
    tower = model.stream("image").encoder.model.config
    patches = (tower.image_size // tower.patch_size) ** 2
    rows, labels, prompts = [], [], []
    names = ("prompt.0", "prompt.1", "target")
    for row in range(len(batch)):
        before, after, answer = (
            batch.labels[name][row][batch.label_masks[name][row]].tolist() for name in names
        )
        prompt = [*before, *[picture] * patches, *after]
        prompts.append(prompt)
        rows.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pixels = {"pixel_values": batch.streams["image"]["main"]["pixel_values"]}
    mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0)
    step = {"input_ids": pad_sequence(rows, True, tokenizer.pad_id), "attention_mask": mask}
    ids = torch.tensor(prompts)
    arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
    return {**step, "labels": pad_sequence(labels, True, -100), **pixels}, arguments
