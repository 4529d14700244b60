"""The contract of a backbone.

Legend: `B` rows, `P` positions of the context, `T` positions behind it, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone, ContextCache
from ..backbones.visibility import Visibility
from ..modalities.base import Features
from .common import (
    check_gradients,
    check_meta,
    check_resolve,
    check_state,
    check_vocabulary,
    checking,
    close,
    expect,
    fit_parts,
    gap,
    plan_options,
)

TEXTS = ("a red robot", "a small one that pushes a puck", "the goal is blue")
ATTENTION = ("causal", "prefix", "block", "bidirectional")
ABILITIES = ("visibility", "layer_hooks", "hidden_states", "inputs_embeds", "vocabulary")
P, T = (5, 3), (4, 2)


def check_backbone(
    cls: type[Backbone],
    *,
    texts: Sequence[str] = TEXTS,
    unused: Sequence[str] = (),
    **options: Any,
) -> None:
    """Check a backbone class against the contract of `backbones.base.Backbone`.

    Args:
        cls: the class; `options` are its recipe's, without weights. The tokenizer is `bytes` by
            default.
        texts: examples to fit a tokenizer on.
        unused: beginnings of names of parameters that no forward uses.

    Raises:
        AssertionError: the violated rule, in one line.
    """
    contract = BackboneContract(cls, texts)
    contract.build({"tokenizer": {"type": "bytes"}, **options})
    contract.check_vocabulary()
    contract.check_attention()
    contract.check_context()
    contract.check_targets()
    contract.check_layers()
    contract.check_visibility()
    contract.check_training(unused)
    contract.check_copies()


class BackboneContract:
    """A backbone under test, and rows to run it on: context `[2, 5, D]`, embeds `[2, 4, D]`."""

    def __init__(self, cls: type[Backbone], texts: Sequence[str]) -> None:
        self.cls, self.name, self.texts = cls, cls.__name__, texts

    def build(self, options: dict[str, Any]) -> None:
        """Plan, fit, resolve and build, as the engine does."""
        with checking(self.name, "options"):
            expect(issubclass(self.cls, Backbone), "is no subclass of backbones.base.Backbone")
            self.plan = plan_options(self.cls, "backbone", options)
            fit_parts(self.plan, self.texts)
        with checking(self.name, "resolve"):
            check_resolve(self.plan)
        with checking(self.name, "constructor"):
            self.model = self.make()
            dim = getattr(self.model, "dim", None)
            expect(isinstance(dim, int) and dim > 0, f"dim is {dim!r}, expected a number of values")
            unknown = self.model.supports - {*ATTENTION, *ABILITIES}
            expect(not unknown, f"supports names {', '.join(unknown)}, which is not known")
            self.kinds = [kind for kind in ATTENTION if kind in self.model.supports]
            expect(self.kinds, f"supports none of {', '.join(ATTENTION)}")
            for ability in (*ATTENTION, *ABILITIES):
                reason = self.model.unsupported_reason(ability)
                expect((reason is None) == (ability in self.model.supports), f"{ability}: {reason}")
                expect("\n" not in (reason or ""), f"the reason against {ability} has two lines")
        generator = torch.Generator().manual_seed(0)
        self.context, self.after = (self._rows(lengths, generator) for lengths in (P, T))
        self.ids = torch.randint(4, self.model.tokenizer.size, (2, T[0]), generator=generator)

    def make(self, seed: int = 0) -> Backbone:
        model: Backbone = self.plan.build(seed)
        return model.eval()

    def _rows(self, lengths: Sequence[int], generator: torch.Generator) -> Features:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        tokens = torch.randn(*mask.shape, self.model.dim, generator=generator)
        return Features(tokens, mask)

    def run(self, kind: str, embeds: Tensor | None = None, row: int | None = None, **o: Any) -> Any:
        """Return a forward of all rows, or of one row without its padding."""
        context: Any = o.pop("context", self.context) if kind != "bidirectional" else None
        embeds, mask = self.after.tokens if embeds is None else embeds, self.after.mask
        if row is not None:
            embeds, mask = embeds[row : row + 1, : T[row]], mask[row : row + 1, : T[row]]
            if isinstance(context, Features):
                part = slice(row, row + 1), slice(0, P[row])
                context = Features(context.tokens[part], context.mask[part])
        return self.model(embeds, mask, context, kind, **o)

    def check_vocabulary(self) -> None:
        with checking(self.name, "vocabulary"), torch.no_grad():
            check_vocabulary(self.model, self.ids, self.run(self.kinds[0]))
        with checking(self.name, "add_tokens"), torch.no_grad():
            model, before = self.make(), self.model.logits(self.run(self.kinds[0]))
            first = model.add_tokens(2)
            names = model.added_token_parameters()
            expect(names <= set(model.state_dict()), "added_token_parameters() is not in the state")
            model.requires_grad_(False)
            model.unfreeze_added_tokens()
            trained = {name for name, p in model.named_parameters() if p.requires_grad}
            expect(names and trained == names, "unfreeze_added_tokens() opens other parameters")
            shape = model.embed(torch.tensor([[first, first + 1]])).shape
            expect(shape == (1, 2, model.dim), f"embed of the new ids is {tuple(shape)}")
            self.model, model = model, self.model
            after = self.model.logits(self.run(self.kinds[0]))
            self.model = model
            expect(after.shape[-1] == before.shape[-1] + 2, "logits have no column for the new ids")
            same = close(after[..., : before.shape[-1]], before)
            expect(same, "the new ids change the logits of the others")

    def check_attention(self) -> None:
        """Who sees whom, and that padding changes nothing."""
        for kind in self.kinds:
            with checking(self.name, f"attention {kind}"), torch.no_grad():
                hidden = self.run(kind)
                expect(hidden.shape == self.after.tokens.shape, f"returned {tuple(hidden.shape)}")
                expect(hidden.isfinite().all(), "the hidden states hold NaN or infinity")
                for row, length in enumerate(T):
                    alone = self.run(kind, row=row)[0]
                    padded = hidden[row, :length]
                    expect(close(alone, padded), f"row {row} alone: {gap(alone, padded)}")
                perturbed = self.after.tokens.clone()
                perturbed[:, 1] += torch.arange(self.model.dim).sin()
                changed = self.run(kind, perturbed)
                expect(not close(changed[0, 1:], hidden[0, 1:]), "a position does not see itself")
                unseen = close(changed[0, 0], hidden[0, 0])
                ahead = kind in ("block", "bidirectional")
                expect(unseen != ahead, f"position 0 {'misses' if ahead else 'sees'} position 1")

    def check_context(self) -> None:
        """`prefill`, then `forward`, is one pass; a cache may be used again, and by row."""
        if not {"prefix", "block"} & self.model.supports:
            return
        for kind in (k for k in self.kinds if k != "bidirectional"):
            with checking(self.name, f"prefill {kind}"), torch.no_grad():
                cache = self.model.prefill(self.context, kind)  # type: ignore[arg-type]
                expect(isinstance(cache, ContextCache), f"returned {type(cache).__name__}")
                real, reference = self.after.mask, self.run(kind)[self.after.mask]
                for _ in range(2):
                    parts = self.run(kind, context=cache)[real]
                    expect(close(parts, reference), f"behind a cache {gap(parts, reference)}")
                first_row = self.model.select_rows(cache, torch.tensor([1]))
                alone = self.run(kind, row=1, context=first_row)[0]
                expect(close(alone, self.run(kind)[1, : T[1]]), "select_rows: another row")

    def check_targets(self) -> None:
        """Teacher forcing, the loss and generation, of a model that writes from left to right."""
        if "causal" not in self.model.supports:
            return
        mask, model = self.after.mask, self.model
        with checking(self.name, "teacher_force"), torch.no_grad():
            hidden = model.teacher_force(self.context, self.ids, mask)
            expect(hidden.shape == (*self.ids.shape, model.dim), f"returned {tuple(hidden.shape)}")
            other = self.ids.clone()
            other[:, 1] = (other[:, 1] + 1) % model.tokenizer.size
            changed = model.teacher_force(self.context, other, mask)
            expect(close(changed[0, :2], hidden[0, :2]), "position 1 sees the id that it predicts")
            expect(not close(changed[0, 2:], hidden[0, 2:]), "position 2 does not see id 1")
        with checking(self.name, "loss"), torch.no_grad():
            loss = model.loss(self.context, {"ids": self.ids, "mask": mask})
            logits = model.logits(hidden)[mask].float()
            total = F.cross_entropy(logits, self.ids[mask], reduction="sum")
            expect(int(loss.count) == sum(T), f"count is {int(loss.count)}, expected {sum(T)}")
            expect(close(loss.total, total), f"total: {gap(loss.total, total)}")
        with checking(self.name, "generate"), torch.no_grad():
            ids = model.generate(self.context, max_new_tokens=2, do_sample=False)
            expect(ids.ndim == 2 and len(ids) == 2, f"returned {tuple(ids.shape)}")
            expect(torch.equal(ids[:, 0], model.logits(hidden)[:, 0].argmax(-1)), "is not greedy")

    def check_layers(self) -> None:
        kind = self.kinds[0]
        with torch.no_grad():
            reference = self.run(kind)
        if "layer_hooks" in self.model.supports:
            with checking(self.name, "layer_hooks"), torch.no_grad():
                unchanged = self.run(kind, layer_hooks={0: lambda tokens, mask: tokens})
                expect(
                    torch.equal(unchanged, reference),
                    f"an identity hook: {gap(unchanged, reference)}",
                )
                zeroed = self.run(kind, layer_hooks={-1: lambda tokens, mask: tokens * 0})
                expect(
                    not close(zeroed, reference), "the output of the last layer's hook is not used"
                )
        if "hidden_states" in self.model.supports:
            with checking(self.name, "hidden_states"), torch.no_grad():
                last, states = self.run(kind, hidden_states=(-1, 0))
                expect(torch.equal(last, reference), "asking for hidden states changes the result")
                expect(
                    torch.equal(states[0], reference), "the last layer's state is not the result"
                )
                expect(states[1].shape == reference.shape, f"layer 0 is {tuple(states[1].shape)}")

    def check_visibility(self) -> None:
        if "visibility" not in self.model.supports:
            return
        base: Any = next((k for k in self.kinds if k in ("causal", "bidirectional")), "block")
        with checking(self.name, "visibility"), torch.no_grad():
            length = T[0]
            itself = Visibility(base=base, mask=torch.eye(length, dtype=torch.bool)[None])
            hidden = self.run_visible(itself, self.after.tokens)
            perturbed = self.after.tokens.clone()
            perturbed[:, 1] += torch.arange(self.model.dim).sin()
            other_positions = [0, 2, 3]
            changed = self.run_visible(itself, perturbed)
            same = close(changed[0, other_positions], hidden[0, other_positions])
            expect(same, "a mask that shows each position only itself is not kept")

    def run_visible(self, visibility: Visibility, embeds: Tensor) -> Tensor:
        context = None if visibility.base == "bidirectional" else self.context
        hidden: Tensor = self.model(embeds, self.after.mask, context, visibility)
        return hidden

    def check_training(self, unused: Sequence[str]) -> None:
        model, kind = self.make(), self.kinds[0]
        with checking(self.name, "gradients"):
            context = None
            if kind != "bidirectional":
                context = Features.dense(model.embed(self.ids))
            hidden = model(model.embed(self.ids), None, context, kind)
            check_gradients(model, [model.logits(hidden)], unused)

    def check_copies(self) -> None:
        with checking(self.name, "meta device"), torch.device("meta"):
            meta = self.make()
            check_meta(meta)
        with checking(self.name, "state as safetensors"), torch.no_grad():
            other = self.make(seed=1)
            check_state(self.model, other)
            reference, self.model = self.run(self.kinds[0]), other
            again = self.run(self.kinds[0])
            expect(torch.equal(again, reference), f"read back: {gap(again, reference)}")
