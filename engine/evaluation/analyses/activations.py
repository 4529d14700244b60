"""How sparse the activations of a model are, how its routers choose, and how much the loss depends
on the weights of each layer.

Luo et al., "Sparsing Law: Towards Large Language Models with Greater Activation Sparsity", 2024;
Xue et al., "OpenMoE: An Early Effort on Open Mixture-of-Experts Language Models", 2024; Lodha et
al., "On Surgical Fine-tuning for Language Encoders", 2023.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...utils import autocast
from ..taps import hooked_activations
from .subject import Subject

Rows = list[dict[str, Any]]


def sparsity(
    subject: Subject, part: str | None = None, percent: float = 1.0, rounds: int = 7
) -> Rows:
    """PPL-p% sparsity: the largest share of the feed-forward activations, the smallest ones of each
    layer, that can be dropped with a perplexity at most p percent higher.

    part: a decoder or a stream. percent: p. rounds: of the bisection; the share is known to
    `2^-rounds`. The first row drops in all layers at once, then in one at a time.
    """
    if percent < 0:
        raise ValueError(f"percent: found {percent}, expected at least 0")
    _, blocks = subject.blocks(part)
    every = range(len(blocks))
    whole = subject.loss()
    limit = whole + math.log1p(percent / 100)
    rows: Rows = []
    for name, layers in (("all", list(every)), *((str(i), [i]) for i in every)):
        share, loss = _largest_share(subject, blocks, layers, limit, whole, rounds)
        ratio = math.exp(loss - whole)
        rows.append({"layer": name, "sparsity": share, "perplexity_ratio": ratio})
    return rows


def fisher(subject: Subject, part: str | None = None, save: str | None = None) -> Rows:
    """Layers by their Fisher information, the largest first: the gradients of the loss of each row,
    squared, averaged over the rows and summed over the weights of a layer.

    The first layers of the table are those to tune where few may train, e.g.
    `train_only: {layers: [1, 3]}`. part: a decoder or a stream. save: a safetensors file for the
    averages `[...]` of every weight, which the transform `merge` reads (`by: fisher`).
    """
    name, blocks = subject.blocks(part)
    module = subject.part(part)[1]
    parameters = dict(module.named_parameters())
    total = {key: torch.zeros_like(value) for key, value in parameters.items()}
    module.requires_grad_(True)
    try:
        for batch in subject.batches(1):
            with autocast(subject.device, subject.model.precision):
                loss = subject.model(batch)
            if loss.total.requires_grad:
                weights = list(parameters.values())
                gradients = torch.autograd.grad(loss.total, weights, allow_unused=True)
                for square, gradient in zip(total.values(), gradients, strict=True):
                    if gradient is not None:
                        square += gradient.square() / len(subject.rows)
    finally:
        module.requires_grad_(False)
    if not any(square.any() for square in total.values()):
        raise ValueError(f"part: the loss of {subject.task} does not depend on {name}")
    if save is not None:
        squares = {id(value): total[key] for key, value in parameters.items()}
        names = module.named_parameters(remove_duplicate=False)  # of a tied table both
        save_file({key: squares[id(value)].cpu().clone() for key, value in names}, save)
    whole = float(sum(square.double().sum() for square in total.values()))
    of_weight = {id(value): float(total[key].double().sum()) for key, value in parameters.items()}
    scores = [sum(of_weight[id(p)] for p in block.parameters()) for block in blocks]
    rows: Rows = [
        {"layer": index, "fisher": score, "share": score / whole}
        for index, score in enumerate(scores)
    ]
    return sorted(rows, key=lambda row: -row["fisher"])


def _largest_share(
    subject: Subject,
    blocks: Sequence[nn.Module],
    layers: Collection[int],
    limit: float,
    whole: float,
    rounds: int,
) -> tuple[float, float]:
    low, high, loss = 0.0, 1.0, whole
    for _ in range(rounds):
        middle = (low + high) / 2
        with dropped(blocks, layers, middle):
            middle_loss = subject.loss()
        if middle_loss <= limit:
            low, loss = middle, middle_loss
        else:
            high = middle
    return low, loss


@contextlib.contextmanager
def dropped(blocks: Sequence[nn.Module], layers: Collection[int], share: float) -> Iterator[None]:
    """Within it the smallest activations, a share of each position's, are zero in some layers."""

    def drop(layer: int, values: Tensor) -> Tensor:
        count = int(share * values.shape[-1])
        if layer not in layers or not count:
            return values
        smallest = values.abs().topk(count, -1, largest=False).indices
        return values.scatter(-1, smallest, 0.0)

    with hooked_activations(blocks, drop):
        yield


def routers(subject: Subject, part: str | None = None, target: str | None = None) -> Rows:
    """Statistics of the routers of a mixture of experts on the texts of a column, a layer.

    `balance`: entropy of the experts' shares over its maximum. `busiest`: share of the most chosen
    expert. `by_token`: share of positions whose first expert is the most frequent one of their
    token id; `by_chance`: the same if the choices are permuted among the positions. `late_drop`: of
    the choices beyond an expert's even share, in order of position, the part in the second half of
    the texts. target: the column; by default the task's.
    """
    decoder = subject.decoder(part)
    tokenizer = decoder.tokenizer
    ids, mask = tokenizer.encode_batch(subject.texts(target))
    ids, mask = ids.to(subject.device), mask.to(subject.device)
    subject.model.to(subject.device)
    with torch.no_grad(), router_logits(decoder) as seen:
        decoder(decoder.embed(ids), mask)
    if not seen:
        raise ValueError(f"part: {type(decoder).__name__} has no routers; they are a mixture's")
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    late = positions[mask] >= (mask.sum(1, keepdim=True) / 2).expand_as(ids)[mask]
    return [
        {
            "layer": layer,
            **router_statistics(each[mask.flatten()], ids[mask], positions[mask], late),
        }
        for layer, each in enumerate(seen)
    ]


def router_statistics(
    logits: Tensor, ids: Tensor, positions: Tensor, late: Tensor
) -> dict[str, float]:
    """Return the statistics of one router. logits `[N, E]`; ids, positions, late `[N]`."""
    experts = logits.shape[-1]
    first = logits.argmax(-1)
    counts = torch.bincount(first, minlength=experts).double()
    shares = counts / counts.sum()
    entropy = float(-(shares * shares.clamp(min=1e-30).log()).sum())
    generator = torch.Generator().manual_seed(0)
    permuted = first[torch.randperm(len(first), generator=generator).to(first.device)]
    order = positions.argsort(stable=True)
    capacity = math.ceil(len(first) / experts)
    place = _place_in_expert(first[order], experts)
    over = place >= capacity
    dropped_late = float(late[order][over].double().mean()) if bool(over.any()) else math.nan
    return {
        "balance": entropy / math.log(experts) if experts > 1 else 1.0,
        "busiest": float(shares.max()),
        "by_token": _by_token(first, ids, experts),
        "by_chance": _by_token(permuted, ids, experts),
        "late_drop": dropped_late,
    }


def _by_token(first: Tensor, ids: Tensor, experts: int) -> float:
    _, numbers = ids.unique(return_inverse=True)
    table = torch.zeros(int(numbers.max()) + 1, experts, dtype=torch.long, device=ids.device)
    table.index_put_((numbers, first), torch.ones_like(first), accumulate=True)
    return float(table.max(1).values.sum()) / len(first)


def _place_in_expert(first: Tensor, experts: int) -> Tensor:
    """Return for each choice how many went to the same expert before it."""
    ones = nn.functional.one_hot(first, experts)
    return ((ones.cumsum(0) - 1) * ones).sum(1)


@contextlib.contextmanager
def router_logits(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Within it the logits `[N, E]` of every router that transformers can record are kept, in order
    of execution."""
    seen: list[Tensor] = []
    handles = []
    for kind, place in _router_kinds(decoder):
        for module in decoder.modules():
            if isinstance(module, kind):

                def keep(_: Any, __: Any, out: Any, place: int = place) -> None:
                    logits = out[place] if isinstance(out, tuple) else out
                    seen.append(logits.detach().float().flatten(0, -2))

                handles.append(module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _router_kinds(decoder: nn.Module) -> list[tuple[type, int]]:
    """Return the classes of routers in a model, and the place of the logits in their output."""
    kinds = {}
    for module in decoder.modules():
        recorder = (getattr(module, "_can_record_outputs", None) or {}).get("router_logits")
        for each in recorder if isinstance(recorder, list) else [recorder]:
            kind = getattr(each, "target_class", None)
            if kind is not None:
                kinds[kind] = int(getattr(each, "index", 0))
    return list(kinds.items())
