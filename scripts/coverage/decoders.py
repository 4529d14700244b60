"""Steps of a language model of transformers as a backbone, each against the library's own call.

Legend: `B` rows, `T` positions, `P` context, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto import modeling_auto as auto

from ...engine.checkpoint import load_model
from ...engine.training import check, train
from ...modalities.base import Features
from .cases import Case
from .forks import Report
from .steps import OK, NotApplicable, Wrong, outcome, same

NAMES: dict[str, Mapping[str, Any]] = {
    "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "seq2seq": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
}
NEW = 5
"""Tokens that are generated."""


def rows(kind: str) -> list[str]:
    """Return `causal/llama`, ... for every model type that the library maps to this kind."""
    return [f"{kind}/{name}" for name in NAMES[kind]]


def examine(row: str, report: Report, chosen: Sequence[str] | None = None) -> None:
    """Run all steps of a row, `causal/llama`, or the chosen ones, and report each."""
    kind, model_type = row.split("/")
    holder: list[DecoderSteps] = []
    report("build", outcome(lambda: holder.append(DecoderSteps(kind, model_type))))
    if not holder:
        return
    case = holder[0]
    library = outcome(case.library_runs)
    report("library", library)
    for name, step in case.steps().items():
        if chosen is not None and name not in chosen:
            continue
        if library != OK and name != "check":
            report(name, "n/a: the library itself does not run from embeddings")
            continue
        report(name, outcome(step))


class DecoderSteps(Case):
    """The steps of one architecture; each raises if it does not pass."""

    def steps(self) -> dict[str, Callable[[], None]]:
        """Return the steps that apply to this kind, in order."""
        names = ["check", "gradient", "logits", "ids", "padding", "inputs"]
        if self.kind != "masked":
            names += ["causal", "prefill", "prefix", "block"]
        names += ["bidirectional"]
        if self.kind != "masked":
            names += ["generate", "teacher_forcing", "beams"]
        names += ["new_tokens", "lora", "freeze_last", "train"]
        return {name: getattr(self, name) for name in names}

    def gradient(self) -> None:
        embeds = self.random(6, 6)
        tokens = embeds.tokens.requires_grad_()
        logits = self.model.logits(self.hidden(embeds.replace(tokens=tokens)))
        logits.float().log_softmax(-1)[..., 5].sum().backward()
        if tokens.grad is None or not tokens.grad.abs().sum() > 0:
            raise Wrong("no gradient reaches the embeddings")

    @torch.no_grad()
    def logits(self) -> None:
        embeds = self.random(6, 6)
        actual = self.model.logits(self.hidden(embeds))
        expected = self.library_logits(embeds.tokens, self.context(2).tokens)
        same(actual, expected, "logits")

    @torch.no_grad()
    def ids(self) -> None:
        ids = torch.randint(3, 250, (2, 6))
        if self.kind == "seq2seq":
            context = Features.dense(self.model.embed(ids))
            hidden = self.model.teacher_force(context, ids, torch.ones_like(ids).bool())
            start = torch.full_like(ids[:, :1], self.model.start_ids[0])
            input_ids = torch.cat([start, ids[:, :-1]], 1)
            expected = self.reference(input_ids=ids, decoder_input_ids=input_ids).logits
        else:
            hidden = self.hidden(Features.dense(self.model.embed(ids)))
            expected = self.reference(input_ids=ids).logits
        same(self.model.logits(hidden), expected, "logits of ids")

    @torch.no_grad()
    def inputs(self) -> None:
        embeds, context = self.random(6, 6), self.context(2)
        tokens, before = embeds.tokens.clone(), context.tokens.clone()
        self.hidden(embeds, None if self.kind == "masked" else context)
        if not (torch.equal(tokens, embeds.tokens) and torch.equal(before, context.tokens)):
            raise Wrong("a forward writes into the embeddings that it is given")

    @torch.no_grad()
    def padding(self) -> None:
        embeds, context = self.random(6, 3), None if self.kind == "masked" else self.random(5, 2)
        hidden = self.hidden(embeds, context)
        for row, length in enumerate((6, 3)):
            tokens = embeds.tokens[row : row + 1, :length]
            alone = None
            if context is not None:
                alone = Features.dense(context.tokens[row : row + 1, : (5, 2)[row]])
            same(hidden[row, :length], self.hidden(Features.dense(tokens), alone)[0], "padded rows")

    @torch.no_grad()
    def causal(self) -> None:
        self._sees(self.how, later=False)

    def _sees(self, how: str, later: bool) -> None:
        """A changed position changes those behind it, and those before it just if `later`."""
        embeds, context = self.random(6, 6), None
        if how != "bidirectional":
            context = self.random(5, 5)
        before = self.hidden(embeds, context, how)
        perturbed = embeds.tokens.clone()
        perturbed[:, 3] += torch.randn_like(perturbed[:, 3]) * perturbed.std()
        change = self.hidden(embeds.replace(tokens=perturbed), context, how) - before
        change = change.abs().amax((0, 2)) / before.abs().max()
        if bool((change[:3] > 1e-5).any()) != later:
            raise Wrong(f"{how}: a later position is {'not ' if later else ''}seen")
        if not bool((change[3:] > 1e-6).all()):
            raise Wrong(f"{how}: a position behind does not see an earlier one")

    @torch.no_grad()
    def prefill(self) -> None:
        if not self._prefills:
            raise NotApplicable(self.model.no_masks or "it takes no position ids")
        embeds, context = self.random(4, 2), self.random(5, 3)
        full = self.hidden(embeds, context)
        parts = self.model(embeds.tokens, embeds.mask, self.model.prefill(context))
        same(parts[embeds.mask], full[embeds.mask], "prefill and forward")

    @property
    def _prefills(self) -> bool:
        causal = self.kind == "causal"
        return not causal or (not self.model.no_masks and self.model._takes_positions)

    @torch.no_grad()
    def prefix(self) -> None:
        self._supported("prefix")
        self._sees("prefix", later=False)
        self._parts("prefix")
        if self.kind == "seq2seq":
            return
        embeds, context = self.random(4, 4), self.random(5, 5)
        before = self.hidden(embeds, context, "prefix")
        causal = self.hidden(embeds, context, "causal")
        if float((before - causal).abs().max()) < 1e-5 * float(before.abs().max()):
            raise Wrong("prefix: the context does not see itself both ways")

    @torch.no_grad()
    def block(self) -> None:
        self._supported("block")
        self._sees("block", later=True)
        self._parts("block")

    def _supported(self, how: str) -> None:
        if reason := self.model.unsupported_reason(how):
            raise NotApplicable(reason)

    def _parts(self, how: str) -> None:
        """Padding changes nothing, and prefill with forward is one pass."""
        embeds, context = self.random(4, 2), self.random(5, 3)
        full = self.hidden(embeds, context, how)
        if self._prefills:
            parts = self.model(embeds.tokens, embeds.mask, self.model.prefill(context, how), how)
            same(parts[embeds.mask], full[embeds.mask], f"{how}: prefill and forward")
        for row, (p, n) in enumerate(((5, 4), (3, 2))):
            before = Features.dense(context.tokens[row : row + 1, :p])
            alone = self.hidden(Features.dense(embeds.tokens[row : row + 1, :n]), before, how)
            same(full[row, :n], alone[0], f"{how}: padded rows")

    @torch.no_grad()
    def bidirectional(self) -> None:
        self._supported("bidirectional")
        self._sees("bidirectional", later=True)

    @torch.no_grad()
    def generate(self) -> None:
        context = self.random(6, 6)
        options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
        options |= {"pad_token_id": self.model.tokenizer.pad_id}
        inputs = {"inputs_embeds": context.tokens.clone()}
        inputs["attention_mask"] = torch.ones_like(context.mask).long()
        start = {}
        if self.kind == "seq2seq":
            start["decoder_start_token_id"] = self.model.start_ids[0]
        try:
            expected = self.reference.generate(**inputs, **options, **start)
        except Exception as error:
            raise NotApplicable(f"the library's generate takes no embeddings: {error}") from error
        expected = expected[:, 1:] if self.kind == "seq2seq" else expected
        generated = self.model.generate(context, **options)
        if torch.equal(generated, expected):
            return
        if not torch.equal(expected, self._library_greedy(context.tokens)):
            raise NotApplicable("the library's loop differs from its own forward")
        raise Wrong("greedy ids differ from the library's")

    def _library_greedy(self, tokens: Tensor) -> Tensor:
        """Return the ids that the library's forward over the whole row makes likeliest."""
        if self.kind == "seq2seq":
            ids = torch.full((len(tokens), 1), self.model.start_ids[0])
            for _ in range(NEW):
                logits = self.reference(inputs_embeds=tokens, decoder_input_ids=ids).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
            return ids[:, 1:]
        embeds, count = tokens, tokens.shape[1]
        ids = torch.zeros(len(tokens), 0, dtype=torch.long)
        for _ in range(NEW):
            ids = torch.cat([ids, self.library_logits(embeds)[:, -1:].argmax(-1)], 1)
            embeds = torch.cat([tokens[:, :count], self.model.embed(ids)], 1)
        return ids

    @torch.no_grad()
    def teacher_forcing(self) -> None:
        context = self.random(6, 3)
        options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
        ids = self.model.generate(context, **options)
        hidden = self.model.teacher_force(context, ids, torch.ones_like(ids).bool())
        logits = self.model.logits(hidden).float()
        chosen = logits.gather(-1, ids[..., None])[..., 0]
        gap = (logits.amax(-1) - chosen).amax() / logits.std()
        if float(gap) > 1e-3:
            raise Wrong(f"generated ids are not the likeliest under teacher forcing ({gap:.2g})")

    @torch.no_grad()
    def beams(self) -> None:
        context = self.random(6, 3)
        options = {"max_new_tokens": NEW, "num_beams": 3, "do_sample": False, "eos_token_id": None}
        both = self.model.generate(context, **options)
        for row, length in enumerate((6, 3)):
            alone = Features.dense(context.tokens[row : row + 1, :length])
            generated = self.model.generate(alone, **options)[0]
            if not torch.equal(generated, both[row, : len(generated)]):
                raise Wrong("beams of a row depend on its neighbour")

    def new_tokens(self) -> None:
        model = self._build()
        model.load_state_dict(self.model.state_dict())
        model.eval()
        ids = torch.randint(3, 250, (2, 6))
        with torch.no_grad():
            old = self._logits_of(model, ids)
        first = model.add_tokens(2)
        logits = self._logits_of(model, ids)
        same(logits[..., : old.shape[-1]].detach(), old, "logits of old ids")
        if logits.shape[-1] < first + 2:
            raise Wrong(f"{logits.shape[-1]} logits, the new ids are {first} and {first + 1}")
        ids[:, 2] = first
        logits = self._logits_of(model, ids)
        model.unfreeze_added_tokens()
        logits[..., first].sum().backward()
        for name, added in model.new_rows.items():
            if added.grad is None or not added.grad.any():
                raise Wrong(f"no gradient reaches the added rows ({name})")

    def _logits_of(self, model: Any, ids: Tensor) -> Tensor:
        if self.kind == "seq2seq":
            context = Features.dense(model.embed(ids))
            hidden = model.teacher_force(context, ids, torch.ones_like(ids).bool())
        else:
            hidden = model(model.embed(ids), attention=self.how)
        return model.logits(hidden)

    def check(self) -> None:
        check(self.recipe())

    def lora(self) -> None:
        check(self.recipe(lora={"r": 2}))

    def freeze_last(self) -> None:
        if not self.model.blocks():
            raise NotApplicable("it names no blocks: its layers share weights")
        check(self.recipe(freeze={"last": 1}))

    def train(self) -> None:
        """Two steps, saved and loaded: the same weights and the same answer."""
        with tempfile.TemporaryDirectory() as folder:
            model = train(self.recipe(), Path(folder) / "run", show=False)
            loaded = load_model(Path(folder) / "run")
            for name, value in model.state_dict().items():
                if not torch.equal(value, loaded.state_dict()[name]):
                    raise Wrong(f"{name} differs after loading")
