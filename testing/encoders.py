"""The contract of an encoder and its processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.cache import encoder_identity
from ..engine.recipe import find, load
from ..modalities.base import Encoder, Features, Modality, Processor, Sample
from ..modalities.groups import collate, encode_by_group, try_batch_invariance
from .common import (
    alternate,
    check_features,
    check_gradients,
    check_meta,
    check_quantizer,
    check_resolve,
    check_state,
    checking,
    close,
    copy_for_worker,
    expect,
    fit_parts,
    gap,
    id_checks,
    open_zero_branches,
    outputs,
    plan_options,
    same,
)
from .fittables import equal_in_float64
from .geometry import check_layer_numbers, check_places, place_checks

EXAMPLES = 3


def check_encoder(
    cls: type[Encoder],
    *,
    modality: str,
    examples: Sequence[Any] | None = None,
    unused: Sequence[str] = (),
    **options: Any,
) -> None:
    """Check an encoder class against the contract of `modalities.base.Encoder`.

    Args:
        cls: the class; `options` are its recipe's, without weights.
        modality: name of the modality whose `read` makes its raw values.
        examples: cells of a data set, different in size if the signal may be; the modality's
            own examples by default. Parts that are fitted are fitted on them.
        unused: beginnings of names of parameters that no forward uses (those of pre-training).

    Raises:
        AssertionError: the violated rule, in one line.
    """
    contract = EncoderContract(cls, modality, examples)
    contract.build(options)
    contract.check_processor()
    contract.check_forward()
    contract.check_batches()
    contract.check_training(unused)
    contract.check_copies()
    contract.check_supports()
    check_places(contract, modality)


class EncoderContract:
    """An encoder under test: how it is built, and samples to run it on."""

    def __init__(self, cls: type[Encoder], modality: str, examples: Sequence[Any] | None) -> None:
        self.cls, self.name = cls, cls.__name__
        self.kind = f"{modality}_encoder"
        with checking(self.name, "modality"):
            signal: Modality = find("modality", modality, "modality")
            if examples is None:
                expect(signal.example, f"{modality} makes no example; pass examples=[...]")
                make = load(signal.example or "")
                examples = [make(np.random.default_rng(i)) for i in range(EXAMPLES)]
            expect(len(examples) > 1, "examples: at least two are needed")
            self.read, self.read_cell = signal.read, load(signal.read)
            self.raws = [self.read_cell(cell) for cell in examples]

    def build(self, options: dict[str, Any]) -> None:
        """Plan, fit, resolve and build, as the engine does."""
        with checking(self.name, "options"):
            expect(issubclass(self.cls, Encoder), "is no subclass of modalities.base.Encoder")
            self.plan = plan_options(self.cls, self.kind, options)
            fit_parts(self.plan, self.raws)
        with checking(self.name, "resolve"):
            check_resolve(self.plan)
        with checking(self.name, "constructor"):
            self.encoder = self.make()
            dim = getattr(self.encoder, "dim", None)
            expect(isinstance(dim, int) and dim > 0, f"dim is {dim!r}, expected a number of values")
            processor = getattr(self.encoder, "processor", None)
            expect(isinstance(processor, Processor), "processor is no modalities.base.Processor")
            blocks = self.encoder.blocks()
            inner = set(self.encoder.modules())
            expect(all(b in inner for b in blocks), "blocks() holds an object outside its modules")

    def make(self, seed: int = 0) -> Encoder:
        encoder: Encoder = self.plan.build(seed)
        try_batch_invariance(encoder)
        return encoder.eval()

    def check_processor(self) -> None:
        processor = self.encoder.processor
        with checking(self.name, "processor.prepare"):
            self.samples = [processor.prepare(raw) for raw in self.raws]
            for sample in self.samples:
                bad = [key for key, value in sample.items() if not isinstance(value, Tensor)]
                expect(sample and not bad, f"{', '.join(bad) or 'the sample'} holds no tensor")
                grads = [key for key, value in sample.items() if value.requires_grad]
                expect(not grads, f"{', '.join(grads)} requires a gradient")
            again = [processor.prepare(raw) for raw in self.raws]
            expect(same(self.samples, again), "the same raw value yields another sample")
        with checking(self.name, "processor.settings"):
            settings = json.loads(json.dumps(processor.settings()))
        with checking(self.name, "processor in a worker"):
            modules = [key for key, v in vars(processor).items() if isinstance(v, nn.Module)]
            expect(not modules, f"holds modules: {', '.join(modules)}")
            copy = copy_for_worker(processor)
            copied = [copy.prepare(raw) for raw in self.raws]
            expect(same(self.samples, copied), "its copy yields another sample")
            expect(json.loads(json.dumps(copy.settings())) == settings, "settings() changed")

    def check_forward(self) -> None:
        with checking(self.name, "collate"):
            batch = self.batch(self.samples[:1])
            bad = [key for key, value in batch.items() if not isinstance(value, Tensor)]
            expect(batch and not bad, f"{', '.join(bad) or 'the batch'} holds no tensor")
            absent = set(self.encoder.time_inputs) - set(batch)
            expect(not absent, f"time_inputs names {', '.join(absent)}, which no batch has")
        with checking(self.name, "forward"), torch.no_grad():
            self.features = self.encode(self.samples)
            check_features(self.features, len(self.samples), self.encoder.dim)
            empty = (~self.features.mask.any(1)).nonzero().flatten().tolist()
            expect(not empty, f"example {empty[:1]} has no token")
            again = self.encode(self.samples)
            expect(same(self.features.tokens, again.tokens), "eval(): not deterministic")
            first, *other_rows = [self.row(self.features, i) for i in range(len(self.samples))]
            pairs = [(first[: len(other)], other[: len(first)]) for other in other_rows]
            differs = any(not close(first_row, other) for first_row, other in pairs)
            expect(differs, "all examples have the same features; is the input read?")

    def check_batches(self) -> None:
        """Other rows, and padding if the encoder is batch-invariant, do not affect features."""
        step = f"batch_invariant={self.encoder.batch_invariant}"
        with checking(self.name, step), torch.no_grad():
            for i, sample in enumerate(self.samples):
                alone = self.encode([sample])
                a, b = self.row(alone, 0), self.row(self.features, i)
                equal = close(a, b) or equal_in_float64(self.encoder, self.samples, i)
                expect(equal, f"example {i} alone and in a batch: {gap(a, b)}")
                if alone.pooled is not None and self.features.pooled is not None:
                    a, b = alone.pooled[0], self.features.pooled[i]
                    expect(close(a, b), f"pooled of example {i}: {gap(a, b)}")
            repeated = self.encode([self.samples[i] for i in (1, 1, 0)])
            a, b = self.row(repeated, 0), self.row(repeated, 1)
            expect(close(a, b), f"a row depends on its place in the batch: {gap(a, b)}")

    def check_training(self, unused: Sequence[str]) -> None:
        encoder = self.make()
        open_zero_branches(encoder)
        with checking(self.name, "gradients"):
            options: dict[str, Any] = {}
            if "token_mask" in encoder.supports:
                options["token_mask"] = alternate
            features = encode_by_group(collate(encoder, self.samples), rows_of(encoder, options))
            check_gradients(encoder, outputs(features), unused)
        with checking(self.name, "frozen"):
            encoder.requires_grad_(False)
            features = encode_by_group(collate(encoder, self.samples), rows_of(encoder, {}))
            graph = any(value.requires_grad for value in outputs(features))
            expect(not graph, "its features have a graph though nothing trains")

    def check_copies(self) -> None:
        with checking(self.name, "meta device"):
            with torch.device("meta"):
                meta = self.make()
            check_meta(meta)
            batch = {key: value.to("meta") for key, value in self.batch(self.samples[:1]).items()}
            built, real = meta(**batch), self.encode(self.samples[:1])
            shapes = [[tuple(t.shape) for t in outputs(f)] for f in (built, real)]
            expect(shapes[0] == shapes[1], f"shapes {shapes[0]}, on a real device {shapes[1]}")
            expect(
                (built.grid, built.spacing, built.origin) == (real.grid, real.spacing, real.origin),
                "grid, step or origin differ from those on a real device",
            )
        with checking(self.name, "state as safetensors"), torch.no_grad():
            other = self.make(seed=1)
            check_state(self.encoder, other)
            again = encode_by_group(collate(other, self.samples), rows_of(other, {}))
            equal = same(again.tokens, self.features.tokens)
            expect(equal, f"read back: {gap(again.tokens, self.features.tokens)}")
        with checking(self.name, "identity in the feature cache"):
            identities = (
                encoder_identity(encoder, read=self.read, options=self.plan.cache_identity)
                for encoder in (self.encoder, self.make())
            )
            prints = [json.dumps(identity, sort_keys=True) for identity in identities]
            expect(prints[0] == prints[1], "two equal encoders have two identities")

    def check_supports(self) -> None:
        """Check each optional ability in `supports`."""
        encoder, ids = self.encoder, {"inputs_embeds", "vocabulary", "ids", "types"}
        batch = self.batch(self.samples) if ids & encoder.supports else {}
        checks = {
            "hidden_states": self._check_hidden_states,
            "token_mask": self._check_token_mask,
            "layer_hooks": self._check_layer_hooks,
            "quantizer": lambda: check_quantizer(self.encode, self.samples, alternate),
            **place_checks(self),
            **id_checks(encoder, batch, self.features, self.raws),
        }
        for name in sorted(self.encoder.supports):
            with checking(self.name, f"supports {name}"), torch.no_grad():
                expect(name in checks, f"is not known; there are: {', '.join(checks)}")
                checks[name]()

    def _check_hidden_states(self) -> None:
        base = self.features
        deep = self.encode(self.samples, hidden_states=(0, -1))
        for a, b in zip(outputs(deep), outputs(base), strict=True):
            expect(close(a, b), f"asking for layers changes the features: {gap(a, b)}")
        hidden = deep.hidden_states
        expect(len(hidden) == 2, f"{len(hidden)} layers for hidden_states=(0, -1)")
        for layer in hidden:
            expect(len(layer.tokens) == len(base.tokens), "a layer has another number of rows")
            same_shape = layer.mask.shape == base.mask.shape
            expect(not same_shape or torch.equal(layer.mask, base.mask), "a layer has another mask")
        swapped = self.encode(self.samples, hidden_states=(-1, 0)).hidden_states
        expect(same(hidden[0].tokens, swapped[1].tokens), "layers are not in the requested order")
        self._refuses(hidden_states=(99,))
        check_layer_numbers(self)

    def _check_token_mask(self) -> None:
        base, mask = self.features, self.features.mask
        none = self.encode(self.samples, token_mask=torch.zeros_like).tokens
        expect(close(none, base.tokens), f"nothing masked: {gap(none, base.tokens)}")
        partly_masked = self.encode(self.samples, token_mask=alternate).tokens
        expect(not close(partly_masked, base.tokens), "masked tokens change nothing")
        expect(not partly_masked[~mask].any(), "tokens of the padding are not zero")

    def _check_layer_hooks(self) -> None:
        calls: list[tuple[Tensor, Tensor]] = []

        def hook(tokens: Tensor, mask: Tensor) -> Tensor:
            calls.append((tokens, mask))
            return tokens

        base = self.features.tokens
        unchanged = self.encode(self.samples, layer_hooks={0: hook}).tokens
        expect(close(unchanged, base), f"a hook that changes nothing: {gap(unchanged, base)}")
        expect(calls, "the hook of layer 0 was not called")
        tokens, mask = calls[0]
        expect(tokens.shape[:-1] == mask.shape, "hooks take [B, T, D] and [B, T]")
        expect(mask.dtype == torch.bool, f"the hook's mask is {mask.dtype}, expected bool")
        zeroed = self.encode(self.samples, layer_hooks={0: lambda tokens, mask: tokens * 0}).tokens
        expect(not close(zeroed, base), "the output of the hook of layer 0 is not used")
        self._refuses(layer_hooks={99: hook})

    def _refuses(self, **options: Any) -> None:
        try:
            self.encode(self.samples, **options)
        except ValueError:
            return
        raise AssertionError(f"{', '.join(options)} of layer 99 raises no ValueError")

    def batch(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        return self.encoder.collate(samples)

    def encode(self, samples: Sequence[Sample], **options: Any) -> Features:
        """Encode samples in one batch, or in groups if the encoder is not batch-invariant."""
        return encode_by_group(collate(self.encoder, samples), rows_of(self.encoder, options))

    @staticmethod
    def row(features: Features, index: int) -> Tensor:
        """Return the real tokens `[T, D]` of a row."""
        return features.tokens[index][features.mask[index]]


def rows_of(encoder: nn.Module, options: dict[str, Any]) -> Any:
    """Return `run(tensors, rows)`. A token mask is a function of the mask of the features."""

    def run(tensors: dict[str, Tensor], rows: list[int] | None) -> Features:
        keywords = dict(options)
        if "token_mask" in options:
            with torch.no_grad():
                keywords["token_mask"] = options["token_mask"](encoder(**tensors).mask)
        return cast(Features, encoder(**tensors, **keywords))

    return run
