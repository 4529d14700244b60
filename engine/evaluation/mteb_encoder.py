"""A run as a model of mteb: `mteb.evaluate(MTEBEncoder("runs/x"), mteb.get_tasks(...))`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..inference import Pipeline, load
from ..utils import ConfigError


class MTEBEncoder:
    """The text streams of a run behind the interface of mteb's encoders (`EncoderProtocol`).

    run: a folder, a recipe, a hub id or a loaded model. query, passage: the stream that embeds
    texts of each side, and `passage` those of tasks without sides; by default the only text stream,
    or the two of these names. Raise ConfigError if neither is clear.
    """

    def __init__(
        self,
        run: str | Path | Pipeline,
        *,
        query: str | None = None,
        passage: str | None = None,
        device: str | None = None,
    ) -> None:
        self.pipeline = run if isinstance(run, Pipeline) else load(run, device=device)
        inputs = self.pipeline.model.plan.recipe.inputs
        texts = [name for name, section in inputs.items() if section.modality == "text"]
        self.streams = {
            side: stream or _stream_of(side, texts)
            for side, stream in (("query", query), ("document", passage))
        }
        name = "model" if isinstance(run, Pipeline) else Path(run).name
        self.name = f"sensorium/{name}"

    @property
    def mteb_model_meta(self) -> Any:
        from mteb.models import ModelMeta

        return ModelMeta.create_empty({"name": self.name, "framework": ["PyTorch"]})

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any = None, **options: Any
    ) -> np.ndarray:
        """Return vectors `[N, D]`. inputs: batches with a list of texts, `text`. prompt_type:
        mteb's side, `query` or `document`; None for tasks without sides."""
        texts = [text for batch in inputs for text in batch["text"]]
        side = str(getattr(prompt_type, "value", None) or "document")
        stream, size = self.streams[side], options.get("batch_size")
        return np.stack(self.pipeline.embed(batch_size=size, **{stream: texts}))

    def similarity(self, first: Any, second: Any) -> Tensor:
        """Return cosines `[N, M]` of vectors `[N, D]` and `[M, D]`."""
        return _unit(first) @ _unit(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """Return cosines `[N]` of vectors `[N, D]` and `[N, D]`."""
        return (_unit(first) * _unit(second)).sum(-1)


def _unit(vectors: Any) -> Tensor:
    return F.normalize(torch.as_tensor(vectors).float(), dim=-1)


def _stream_of(side: str, texts: Sequence[str]) -> str:
    name = {"query": "query", "document": "passage"}[side]
    if len(texts) != 1 and name not in texts:
        raise ConfigError(
            f"{name}: name the stream that embeds it, one of {', '.join(texts) or 'none of text'}"
        )
    return name if name in texts else texts[0]
