"""Keys of the first edition and their names of today. Used by error messages alone.

A place is written from the recipe's root, `*` matches one name: `tasks.*.data.*.limit`. An
option of a class is written `ClassName.option`, and the `type` of a part `kind=name`. A value of a
key follows it: `ClassName.option=value`.
"""

from __future__ import annotations

RENAMED: dict[str, str] = {
    "ActionDistillation.act": "action_weight",
    "ActionDistillation.align": "distill_weight",
    "ActionDistillation.last_action": "previous_action",
    "ActionRegression.last_action": "previous_action",
    "BSplineTokenizer.gripper=switch": "switch_times",
    "CTC.between": "interctc_layers",
    "CTC.known": "condition_prob",
    "CTC.share": "interctc_weight",
    "CTC.silence": "allow_empty",
    "CTC.stream": "input",
    "CTC.text": "target",
    "CTC.values": "condition_encoder",
    "CTC.words": "lexicon_words",
    "Captioning.within": "fact_tolerance",
    "Contrastive.alike": "soft_target_streams",
    "Contrastive.chunk": "gradcache_chunk_size",
    "Contrastive.group": "positive_group",
    "Contrastive.match": "metric_group",
    "Control.form": "action_decoder",
    "Control.last_action": "previous_action",
    "DINO.masked": "masked_fraction",
    "DINO.momentum": "ema_decay",
    "DINO.warmup": "teacher_temperature_warmup",
    "Detection.absent": "no_object_weight",
    "DiffusionASR.corrected": "draft_prob",
    "DiffusionASR.corrupt": "feature_dropout",
    "DiffusionASR.ctc": "ctc_weight",
    "DiffusionASR.keep": "min_confidence",
    "DiffusionASR.least": "min_length_ratio",
    "DiffusionASR.length": "canvas_length",
    "DiffusionASR.slack": "length_margin",
    "DiffusionASR.stretch": "length_factor",
    "DiffusionASR.verify": "remask_below",
    "EmbeddingDistillation.group": "positive_group",
    "FrameStack.k": "factor",
    "Grounding.about": "negative_group",
    "Grounding.focus": "hard_negative_scale",
    "Grounding.share": "grounded_fraction",
    "Linear.vector": "project_pooled",
    "MLP.vector": "project_pooled",
    "env.column": "env.instruction_column",
    "env.ensemble": "env.temporal_ensemble_coeff",
    "env.execute": "env.n_action_steps",
    "env.hand": "env.end_effector_key",
    "env.observe": "env.observation_keys",
    "env.rate": "env.fps",
    "env.success": "env.success_key",
    "tasks.*.data.*.window": "delta_frames",
    "text_tokenizer=own": "pretrained",
    "train.accumulate": "train.gradient_accumulation_steps",
    "train.betas": "train.optimizer.betas",
    "train.by": "train.sampler.column",
    "train.clip": "train.max_grad_norm",
    "train.lr": "train.optimizer.lr",
    "train.mix": "train.task_weights",
    "train.order": "train.sampler.type",
    "train.sampler.type=within": "single_group",
    "train.validate.best": "train.validate.metric",
    "train.warmup": "train.warmup_ratio",
    "train.weight_decay": "train.optimizer.weight_decay",
    "train.workers": "train.num_workers",
}


def renamed(path: str, owner: str = "", value: object = None) -> str | None:
    """Return today's name of a key of the first edition, or of a value of it, or None.

    path: `train.clip`. owner: the class, or the kind of part, that refused the key. value: what
    was refused, if the key exists.
    """
    suffix = "" if value is None else f"={value}"
    keys = f"{path}{suffix}".split(".")
    for pattern, new in RENAMED.items():
        parts = pattern.split(".")
        if len(parts) == len(keys) and all(
            part in ("*", key) for part, key in zip(parts, keys, strict=True)
        ):
            return new
    return RENAMED.get(f"{owner}.{keys[-1]}")
