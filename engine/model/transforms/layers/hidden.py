"""Narrower hidden states, for `slice_width`: the same places are cut out of every map that reads or
writes them."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from .....modalities.messages import describe_error
from ..context import TransformContext
from .heads import HEAD_DIM, attention_of
from .maps import in_features, keep_inputs, keep_outputs, linear_maps, out_features, rows_of
from .structure import LayerStack, configs

SIZES = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "word_embed_proj_dim")
"""Names under which configurations and modules keep the width of the hidden states."""
OF_HEADS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm")


def slice_hidden(
    module: nn.Module, context: TransformContext, layers: LayerStack, width: int, by: str
) -> None:
    """Keep `width` places of the hidden states of a model of one stack.

    Heads and feed-forward layers keep their widths. Raise ValueError if a tensor may or may not be
    of the hidden states.
    """
    dim = _dim(layers)
    if not 1 <= width <= dim:
        raise ValueError(f"hidden: found {width}, expected one of 1 to {dim}")
    if width == dim:
        return
    if layers.role is not None:
        raise ValueError("hidden: an encoder-decoder has two stacks that share it; convert a part")
    for config in configs(layers):
        if not any(getattr(config, name, None) for name in HEAD_DIM):
            raise ValueError(
                f"hidden: {config.model_type} derives the width of its heads from that of its "
                "hidden states; take a model whose configuration has a head_dim (llama, qwen3)"
            )
    readers, writers = _maps(module, layers, dim)
    places: Any = list(range(width))
    if by == "norm" and context.values:
        places = _largest(module, writers, dim, width)
    done = _cut(module, readers, writers, places, dim)
    wrong = [name for name, p in module.named_parameters() if id(p) not in done and dim in p.shape]
    if wrong:
        raise ValueError(f"hidden: {wrong[0]} is {dim} wide; its place is not known")
    for each in (*module.modules(), *configs(layers), getattr(module, "config", None)):
        for name in SIZES:
            value = getattr(each, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and value == dim:
                setattr(each, name, width)
    for config in configs(layers):
        try:
            config.validate()
        except StrictDataclassError as error:
            raise ValueError(f"hidden: {describe_error(error)}") from error


def _dim(layers: LayerStack) -> int:
    attention = attention_of(layers.layers[0], 0, layers)
    return in_features(attention.query)


def _maps(module: nn.Module, layers: LayerStack, dim: int) -> tuple[list[Any], list[Any]]:
    """Return the maps that read hidden states, and those that write them."""
    readers: list[Any] = []
    writers: list[Any] = []
    for i, layer in enumerate(layers.layers):
        attention = attention_of(layer, i, layers)
        readers += list({id(m): m for m in (attention.query, attention.key, attention.value)}
                        .values())  # fmt: skip
        writers.append(attention.output)
        inside = {id(m) for m in attention.module.modules()}
        others = [m for m in linear_maps(layer).values() if id(m) not in inside]
        for other in others:
            sides = in_features(other) == dim, out_features(other) == dim
            if sides[0] == sides[1]:
                raise ValueError(
                    f"hidden: a map {in_features(other)} to {out_features(other)} in layer {i} of "
                    f"{layers.path} may read the hidden states or write them"
                )
            (readers if sides[0] else writers).append(other)
    within = {id(m) for m in layers.container.modules()}
    heads = [m for m in linear_maps(module).values() if id(m) not in within]
    return readers + [head for head in heads if in_features(head) == dim], writers


def _largest(module: nn.Module, writers: list[Any], dim: int, width: int) -> Any:
    """Return the places in which tables and maps write the largest values, in their order."""
    score: Tensor = torch.zeros(dim)
    for table in module.modules():
        if isinstance(table, nn.Embedding) and table.embedding_dim == dim:
            score += table.weight.detach().float().square().mean(0).cpu()
    for writer in writers:
        score += rows_of(writer).detach().float().square().sum(1).cpu()
    return torch.topk(score, width).indices.sort().values.tolist()


def _cut(
    module: nn.Module, readers: list[Any], writers: list[Any], places: list[int], dim: int
) -> set[int]:
    """Cut maps, tables and norms; return the ids of the parameters whose width is settled."""
    tied: dict[int, nn.Parameter] = {}
    for table in module.modules():
        if isinstance(table, nn.Embedding) and table.embedding_dim == dim:
            index = torch.tensor(places, device=table.weight.device)
            before = table.weight
            cut = nn.Parameter(before.detach().index_select(1, index), before.requires_grad)
            table.weight = tied.setdefault(id(before), cut)
            table.embedding_dim = len(places)
    for reader in readers:
        if (shared := tied.get(id(reader.weight))) is not None:
            reader.weight, reader.in_features = shared, len(places)
        else:
            keep_inputs(reader, places)
    for writer in writers:
        keep_outputs(writer, places)
    maps = (*readers, *writers)
    done = {id(p) for m in maps for p in m.parameters()} | {id(p) for p in tied.values()}
    for path, norm in module.named_modules():
        if path.rpartition(".")[2] in OF_HEADS:
            done |= {id(p) for p in norm.parameters()}
        elif _is_norm(norm, dim):
            for name, parameter in norm.named_parameters(recurse=False):
                index = torch.tensor(places, device=parameter.device)
                cut = nn.Parameter(parameter.detach()[index], parameter.requires_grad)
                setattr(norm, name, cut)
                done.add(id(cut))
            if isinstance(norm, nn.LayerNorm):
                norm.normalized_shape = (len(places),)
    return done


def _is_norm(module: nn.Module, dim: int) -> bool:
    parameters = list(module.parameters(recurse=False))
    return bool(parameters) and all(p.shape == (dim,) for p in parameters)
