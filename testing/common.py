"""Helpers of the contract checks: expectations, comparable values, parts built from options."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ..engine.recipe import ComponentPath, ComponentSpec, Section, plan_part
from ..modalities.base import Features
from ..modalities.signal_tokens import SignalTokenizer

RTOL, ATOL = 1e-4, 5e-5
"""Tolerances of two computations that should agree in float32. Products of another shape or on
another processor sum in another order: the largest difference seen is 1e-5."""


def expect(condition: object, message: str) -> None:
    """Raise AssertionError with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)


@contextlib.contextmanager
def checking(name: str, step: str) -> Iterator[None]:
    """Report what fails inside as AssertionError, one line that begins with `name, step`."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{name}, {step}: {error}") from error.__cause__
    except Exception as error:
        text = " ".join(str(error).split())
        raise AssertionError(f"{name}, {step}: {type(error).__name__}: {text}") from error


def plan_options(cls: type, kind: str, options: Mapping[str, Any]) -> ComponentSpec:
    """Return the plan of a class with a recipe's options; fittable parts are not fitted yet."""
    section = Section.model_validate({**options, "type": f"{cls.__module__}:{cls.__qualname__}"})
    return plan_part(cls, section, kind, ComponentPath(cls.__name__))


def fit_parts(plan: ComponentSpec, examples: Sequence[Any]) -> None:
    """Fit the fittable arguments of the constructor, here and in parts within it."""
    for part in plan.parts():
        for fittable in part.fitted.values():
            fittable.fit(iter(examples))


def check_resolve(plan: ComponentSpec) -> None:
    """Resolve the options; they are JSON, and resolving them again changes nothing."""
    for part in plan.parts():
        part.resolve()
        resolved = json.dumps(part.options, sort_keys=True)
        part.resolve()
        again = json.dumps(part.options, sort_keys=True)
        expect(resolved == again, f"resolve(resolve(options)) is {again}, expected {resolved}")


def same(first: Any, second: Any) -> bool:
    """Return whether two values are equal: tensors, arrays and what holds them too."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same_type = first.shape == second.shape and first.dtype == second.dtype
        return same_type and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        first, second = np.asarray(first), np.asarray(second)
        numeric = first.dtype.kind in "fc"
        return first.shape == second.shape and np.array_equal(first, second, equal_nan=numeric)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(same(a, b) for a, b in pairs)
    if type(first) is type(second) and type(first).__eq__ is object.__eq__:
        return first is second or same(vars(first), vars(second))
    if dataclasses.is_dataclass(first) and type(first) is type(second):
        return same(vars(first), vars(second))
    return bool(first == second) or (first != first and second != second)  # NaN is the same


def copy_for_worker(value: Any) -> Any:
    """Return a copy of a value as a worker process of the loader receives it."""
    return ForkingPickler.loads(ForkingPickler.dumps(value))


def close(first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors agree within the tolerances; `ATOL` is of their scale above 1."""
    if first.shape != second.shape:
        return False
    scale = float(second.detach().abs().max()) if second.numel() else 1.0
    return torch.allclose(first, second, RTOL, ATOL * max(1.0, scale))


def gap(first: Tensor, second: Tensor) -> str:
    """Return how far two tensors are apart, for a message."""
    if first.shape != second.shape:
        return f"shapes {tuple(first.shape)} and {tuple(second.shape)}"
    return f"they differ by up to {(first - second).abs().max().item():.2g}"


def outputs(features: Features) -> list[Tensor]:
    """Return the tensors of features that carry a gradient."""
    return [features.tokens, *([] if features.pooled is None else [features.pooled])]


def check_features(features: Any, rows: int, dim: int) -> None:
    """Check shapes, mask, padding and geometry."""
    expect(isinstance(features, Features), f"returned {type(features).__name__}, expected Features")
    tokens, mask = features.tokens, features.mask
    expect(len(tokens) == rows, f"{len(tokens)} rows of features for a batch of {rows}")
    expect(features.dim == dim, f"tokens have width {features.dim}, expected {dim}")
    expect(tokens.is_floating_point(), f"tokens are {tokens.dtype}, expected floating point")
    expect(tokens.isfinite().all(), "tokens hold NaN or infinity")
    axes = len(features.grid or ())
    padded_right = torch.equal(mask, mask.cummin(1).values)
    expect(axes > 1 or padded_right, "mask: padding is not on the right")
    padding = tokens[~mask]
    expect(not padding.any(), "tokens of the padding are not zero")
    if features.pooled is not None:
        shape, expected = tuple(features.pooled.shape), (rows, dim)
        expect(shape == expected, f"pooled has the shape {shape}, expected {expected}")
        expect(features.pooled.isfinite().all(), "pooled holds NaN or infinity")
    if features.affine is not None:
        side = axes + 1 if axes else 4
        shape, expected_shape = tuple(features.affine.shape), (rows, side, side)
        expect(shape == expected_shape, f"affine has the shape {shape}, expected {expected_shape}")
    geometry = (features.spacing, features.origin)
    expect((geometry[0] is None) == (geometry[1] is None), "one of spacing and origin is None")
    for name, values in zip(("spacing", "origin"), geometry, strict=True):
        count = axes if values is None else len(values)
        expect(count == axes, f"{name} has {count} axes, the grid {axes}")
    expect(
        all(value > 0 for value in features.spacing or ()),
        f"spacing is {features.spacing}, expected > 0",
    )


def check_gradients(
    module: nn.Module, values: Iterable[Tensor], unused: Sequence[str] = (), zeros: bool = False
) -> None:
    """Check that a backward from `values` reaches every parameter that trains.

    unused: beginnings of names of parameters that it may miss. zeros: a gradient may be zero.
    """
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for value in values:
        if value.requires_grad:
            total = total + (value * torch.randn(value.shape, generator=generator)).sum()
    if total.requires_grad:
        total.backward()
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad and p.numel()}
    without_gradient = [
        n for n, p in parameters.items() if p.grad is None and not n.startswith(tuple(unused))
    ]
    listed = ", ".join(without_gradient[:4]) + (
        f" and {len(without_gradient) - 4} more" if len(without_gradient) > 4 else ""
    )
    expect(not without_gradient, f"no gradient reaches the parameter {listed}")
    reached = {n: p.grad for n, p in parameters.items() if p.grad is not None}
    broken = [n for n, grad in reached.items() if not grad.isfinite().all()]
    expect(not broken, f"the gradient of {', '.join(broken[:4])} is not finite")
    dead = [n for n, grad in reached.items() if not grad.any() and not n.startswith(tuple(unused))]
    expect(zeros or not dead, f"the gradient of {', '.join(dead[:4])} is zero")


def open_zero_branches(module: nn.Module) -> None:
    """Fill parameters that begin at zero: their branch would hide the layers before it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def check_state(module: nn.Module, other: nn.Module) -> None:
    """Write a module's state as safetensors and read it into another one of its kind. Tensors that
    two parameters share are written twice."""
    state = {name: value.clone().contiguous() for name, value in module.state_dict().items()}
    other.load_state_dict(load(save(state)))


def check_meta(module: nn.Module) -> None:
    """Check that a module which was built on the meta device lies there."""
    real = [name for name, parameter in module.named_parameters() if not parameter.is_meta]
    expect(not real, f"the constructor puts {', '.join(real[:4])} on a real device")


def check_inputs_embeds(encoder: Any, batch: Mapping[str, Tensor]) -> None:
    """The embeddings of the ids themselves change nothing; others do."""
    embeds, reference = encoder.embed(batch["ids"]), encoder(**batch).tokens
    tokens = encoder(**batch, inputs_embeds=embeds).tokens
    expect(close(tokens, reference), f"embeddings of the ids themselves: {gap(tokens, reference)}")
    other = encoder(**batch, inputs_embeds=embeds * 0).tokens
    expect(not close(other, reference), "inputs_embeds are not read")


def check_vocabulary(part: Any, ids: Tensor, hidden: Tensor) -> None:
    """`embed` and `logits` have the shapes of ids `[B, T]` and hidden `[B, T, D]`."""
    embeds, logits = part.embed(ids), part.logits(hidden)
    expect(embeds.shape[:-1] == ids.shape, f"embed(ids) is {tuple(embeds.shape)}")
    expect(logits.shape[:-1] == hidden.shape[:-1], f"logits(hidden) is {tuple(logits.shape)}")
    expect(logits.shape[-1] > int(ids.max()), "logits have fewer columns than there are ids")
    chosen = part.logits(hidden, ids[0])
    expect(close(chosen, logits[..., ids[0]]), "logits(hidden, ids) are not those of the ids")


def alternate(mask: Tensor) -> Tensor:
    """Return a token mask of every second real token, the first among them."""
    return mask & (torch.arange(mask.shape[1]) % 2 == 0)


def check_codes(encoder: Any, features: Features, signals: Sequence[Any]) -> None:
    """Check that an encoder's codes are what its tokenizer returns, and a learned vector each."""
    expect(features.codes is not None, "its features have no codes")
    expect(isinstance(encoder.tokenizer, SignalTokenizer), "its tokenizer is no SignalTokenizer")
    for row, ids in enumerate(encoder.tokenizer.encode(list(signals))):
        expect(same(cast(Tensor, features.codes)[row][features.mask[row]], ids), "codes differ")


def check_ids(encoder: Any, batch: Mapping[str, Any], signals: Sequence[Any]) -> None:
    """Check that a batch holds the ids of the tokenizer, and their mask."""
    expect({"ids", "mask"} <= set(batch), f"a batch has {', '.join(batch)}, without ids and mask")
    for row, text in enumerate(signals):
        ids = encoder.processor.tokenizer.encode(text, special=True)
        ids = torch.tensor(ids[: encoder.processor.max_length - 1])
        read = batch["ids"][row][batch["mask"][row]][: len(ids)]
        expect(same(read.cpu(), ids), "the ids are not its tokenizer's")


def check_types(encoder: Any, batch: Mapping[str, Any], features: Features) -> None:
    """Check that token types of 0 are those of a single text, and others change its features."""
    zeros = torch.zeros_like(batch["ids"])
    expect(same(encoder(**batch, types=zeros).tokens, features.tokens), "types of 0 change it")
    other = encoder(**batch, types=zeros + 1).tokens
    expect(not close(other, features.tokens), "types of 1 change nothing")


def id_checks(
    encoder: Any, batch: Mapping[str, Any], features: Features, signals: Sequence[Any]
) -> dict[str, Callable[[], None]]:
    """Return the checks of what an encoder of ids may support, by name."""
    return {
        "inputs_embeds": lambda: check_inputs_embeds(encoder, batch),
        "vocabulary": lambda: check_vocabulary(encoder, batch["ids"], features.tokens),
        "ids": lambda: check_ids(encoder, batch, signals),
        "types": lambda: check_types(encoder, batch, features),
        "codes": lambda: check_codes(encoder, features, signals),
        "targets": lambda: None,
    }


def check_quantizer(encode: Callable[..., Features], samples: Any, some: Any) -> None:
    """Check an encoder that supports `quantizer`. some: the mask of some tokens, of all."""
    features = encode(samples, gumbel_temperature=1.0)
    expect(close(features.tokens, encode(samples).tokens), "the quantizer changes the tokens")
    masked = encode(samples, token_mask=some, gumbel_temperature=1.0)
    (before, quantized, *books), after = features.hidden_states, masked.hidden_states
    expect(bool(books), "no codebook is among the hidden states")
    expect(before.dim == quantized.dim, f"widths {before.dim} and {quantized.dim} differ")
    expect(not close(before.tokens, after[0].tokens), "masked tokens change no prediction")
    expect(close(quantized.tokens, after[1].tokens), "a mask changes the quantized vectors")
