"""Steps of an encoder of pictures, sound, text or volumes, each against the library's own call.

Legend: `B` rows, `T` tokens, `D` width.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...engine.cache import from_records, to_records
from ...engine.recipe import find, parse_recipe
from ...engine.training import check, train
from ...modalities.audio.hf_extractor import MAIN
from ...modalities.groups import try_batch_invariance
from ...testing.common import outputs
from ...testing.encoders import EncoderContract
from ...testing.geometry import check_places
from . import encoder_cases as cases
from .cases import enliven, set_running_statistics
from .forks import Report
from .steps import OK, NotApplicable, Wrong, outcome, same

NAMES = tuple(cases.MODALITY)
rows = cases.rows

SOURCES = {
    "image": ("digits", "image"),
    "audio": ("sounds", "audio"),
    "text": ("digits", "caption"),
}


def examine(row: str, report: Report, chosen: Sequence[str] | None = None) -> None:
    """Run all steps of a row, `vision/clip`, or the chosen ones, and report each."""
    kind, _, name = row.partition("/")
    if kind == "vision" and cases.detector(name):
        report("library", "n/a: a detector, whose hidden states are those of queries")
        return
    holder: list[EncoderSteps] = []
    result = outcome(lambda: holder.append(EncoderSteps(kind, name)))
    report("build", result)
    if not holder:
        report("library", outcome(lambda: cases.library_builds(kind, name)))
        return
    report("library", OK)
    for step, run in holder[0].steps().items():
        if chosen is None or step in chosen:
            report(step, outcome(run))


class EncoderSteps:
    """The steps of one encoder; each raises if it does not pass."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.modality = kind, cases.MODALITY[kind]
        errors: list[Exception] = []
        for options in cases.options(kind, name):
            torch.manual_seed(0)
            try:
                self.contract = self._contract(dict(options))
                self.options = options
                break
            except Exception as error:
                errors.append(error)
        else:
            raise errors[0]
        self.encoder: Any = self.contract.encoder

    def _contract(self, options: dict[str, Any]) -> EncoderContract:
        part = find(f"{self.modality}_encoder", options.pop("type"), "coverage")
        contract = EncoderContract(part, self.modality, cases.examples(self.kind, options))
        make = contract.make

        def lively(seed: int = 0) -> Any:
            encoder = make(seed)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                if not torch.empty(0).is_meta:
                    enliven(encoder)
                    set_running_statistics(encoder, lambda: cases.encode(encoder, contract.raws))
                    try_batch_invariance(encoder)  # the row of padding is no longer zero
            return encoder

        contract.make = lively  # type: ignore[method-assign]
        try:
            contract.build(options)
            contract.check_processor()
            with torch.no_grad():
                contract.features = contract.encode(contract.samples)
        except AssertionError as error:
            raise ValueError(str(error)) from error
        return contract

    def steps(self) -> dict[str, Callable[[], None]]:
        names = ["forward", "library_tokens", "batches", "places", "gradients", "copies"]
        names += ["supports", "size", "cache", "check", "freeze_last", "lora", "train", "load"]
        return {name: getattr(self, name) for name in names}

    def forward(self) -> None:
        self._asserted(self.contract.check_forward)

    def batches(self) -> None:
        self._asserted(self.contract.check_batches)

    def gradients(self) -> None:
        self._asserted(lambda: self.contract.check_training(()), Failed)

    def copies(self) -> None:
        self._asserted(self.contract.check_copies, Failed)

    def supports(self) -> None:
        if not self.encoder.supports:
            raise NotApplicable("it supports nothing beyond its batch")
        self._asserted(self.contract.check_supports)

    def places(self) -> None:
        if self.contract.features.grid is None:
            raise NotApplicable("its tokens have no grid")
        self._asserted(lambda: check_places(self.contract, self.modality))

    @staticmethod
    def _asserted(run: Callable[[], None], kind: type[Exception] = Wrong) -> None:
        try:
            run()
        except AssertionError as error:
            raise kind(str(error)) from error

    @torch.no_grad()
    def library_tokens(self) -> None:
        """Every token is a vector of the library's own output on the same weights."""
        sample = self.contract.samples[0]
        tokens = self.contract.row(self.contract.encode([sample]), 0)
        expected = self._library(sample)
        gap = cases.distance_to(tokens, expected)
        if gap > 1e-4:
            shapes = [tuple(t.shape) for t in expected]
            raise Wrong(f"tokens {tuple(tokens.shape)} are {gap:.2g} from the library's {shapes}")

    def _library(self, sample: dict[str, Tensor]) -> list[Tensor]:
        batch, model = self.encoder.collate([sample]), self.encoder.model
        if self.kind == "timm":
            pixels = batch["pixel_values"]
            maps = model.forward_intermediates(pixels, intermediates_only=True, norm=True)
            return cases.tensors_of([model.forward_features(pixels), maps])
        if self.kind == "open_clip":
            out = model.forward_intermediates(batch["pixel_values"], output_extra_tokens=False)
            if hasattr(model, "trunk"):
                out = [out, model.trunk.forward_features(batch["pixel_values"])]
            return [*cases.tensors_of(out), *self._last_norm(model, batch["pixel_values"])]
        if self.kind == "monai":
            raise NotApplicable("MONAI returns no features; a module's output is taken")
        if self.kind == "text":
            stack = self.encoder.encoder
            known = inspect.signature(stack.forward).parameters
            keys = {"input_ids": batch["ids"], "attention_mask": batch["mask"].long()}
            return cases.tensors_of(stack(**{k: v for k, v in keys.items() if k in known}))
        return cases.tensors_of(self._tower(model, batch))

    def _last_norm(self, model: Any, pixels: Tensor) -> list[Tensor]:
        taken: list[Tensor] = []
        if (norm := getattr(model, "ln_post", None)) is not None:
            hook = norm.register_forward_hook(lambda m, a, out: taken.append(out))
            model(pixels)
            hook.remove()
        return taken

    def _tower(self, model: Any, batch: dict[str, Tensor]) -> Any:
        """Call a tower of transformers with what its own processor returned."""
        processor = self.encoder.processor
        raw = self.contract.raws[0]
        frames = getattr(processor, "frames", 0)
        has_pictures = hasattr(processor, "transform")
        if has_pictures and not frames:
            inputs = dict(processor.transform(images=raw, return_tensors="pt"))
        elif has_pictures:
            inputs = {"pixel_values": batch["pixel_values"]}
        else:
            wave = processor.wave(raw).numpy()
            inputs = dict(
                processor._extractor(wave, sampling_rate=processor.rate, return_tensors="pt")
            )
        known = list(inspect.signature(model.forward).parameters)
        matched: dict[str, Any] = {}
        for key, value in inputs.items():
            name = next((n for n in known if key == n or key.endswith(f"_{n}")), None)
            if name:
                matched[name] = value
        first = next((inputs[k] for k in MAIN if k in inputs), next(iter(inputs.values())))
        if known[0] not in matched:
            matched[known[0]] = first
        if isinstance(first, Tensor) and first.ndim == 5 and not frames and len(first) == 1:
            matched[known[0]] = first[0]
        return model(**matched)

    @torch.no_grad()
    def size(self) -> None:
        """A picture of another size has another grid, where the encoder takes one."""
        sample = self.contract.samples[0]
        if "pixel_values" not in sample or sample["pixel_values"].ndim != 3:
            raise NotApplicable("its samples are no pictures")
        plain = sample["pixel_values"][None]
        other = torch.cat([plain, plain], dim=2)
        try:
            calls = self._call(plain), self._call(other)
        except Exception as error:
            raise NotApplicable(f"the library takes its own size alone: {error}") from error
        shapes = [[tensor.shape for tensor in cases.tensors_of(output)] for output in calls]
        if shapes[0] == shapes[1]:
            raise NotApplicable("the library returns one grid for all sizes")
        features = self.encoder(pixel_values=other)
        grid, before = features.grid, self.contract.features.grid
        if grid is None or before is None or not before[0] < grid[0] <= 2 * before[0] + 1:
            raise Wrong(f"grid {grid} at twice the height, {before} before")

    def _call(self, pixels: Tensor) -> Any:
        model = self.encoder.model
        known = inspect.signature(model.forward).parameters
        more = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
        return model(pixels, **more)

    @torch.no_grad()
    def cache(self) -> None:
        """Features that come from the cache are those that were computed."""
        features = self.contract.features
        back = from_records(to_records(features))
        for cached, expected in zip(outputs(back), outputs(features), strict=True):
            same(cached, expected[:, : cached.shape[1]], "cached features", 0)  # padding is cut
        kinds = [(f.grid, f.spacing, f.mask.sum(1).tolist()) for f in (back, features)]
        if kinds[0] != kinds[1]:
            raise Wrong(f"cached grid, spacing and tokens {kinds[0]}, {kinds[1]} before")

    def recipe(self, **more: Any) -> Any:
        if self.modality not in SOURCES:
            raise NotApplicable("no small data set of this modality")
        source, column = SOURCES[self.modality]
        encoder = {**self.options, "weights": "none", **more}
        stream = {"modality": self.modality, "encoder": encoder, "connector": "mean"}
        data = {"train": {"source": source, "split": "train", "limit": 4}}
        task = {"type": "captioning", "prompt": f"<{column}>", "target": " {caption}", "data": data}
        return parse_recipe(
            {
                "inputs": {column: {**stream, "connector": "linear"}},
                "backbone": {
                    "type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none",
                    "options": {"hidden_size": 32, "intermediate_size": 48},
                },
                "tasks": {"caption": task},
                "train": {"steps": 2, "batch_size": 2, "optimizer": {"type": "sgd", "lr": 1e-3}},
            }
        )  # fmt: skip

    def check(self) -> None:
        check(self.recipe())

    def freeze_last(self) -> None:
        if not self.encoder.blocks():
            raise NotApplicable("it names no blocks")
        check(self.recipe(freeze={"last": 1}))

    def lora(self) -> None:
        check(self.recipe(lora={"r": 2}))

    def train(self) -> None:
        """Two steps with the encoder frozen, whose features come from the cache."""
        with tempfile.TemporaryDirectory() as folder:
            train(self.recipe(freeze=True), Path(folder) / "run", show=False)

    def load(self) -> None:
        """A folder that the library wrote is read to the bit."""
        if self.kind not in ("vision", "audio", "text"):
            raise NotApplicable("no folder of the library's own")
        with tempfile.TemporaryDirectory() as folder:
            expected = cases.save_folder(self.encoder, self.options["config"], folder)
            if not expected:
                raise NotApplicable("the whole model has no weights of this name")
            part = type(self.encoder)
            section = {k: v for k, v in self.options.items() if k not in ("type", "config")}
            section["name"] = folder
            other = self._contract_of(part, section)
            other.load()
            for name, value in expected.items():
                if not torch.equal(value, other.model.state_dict()[name]):
                    raise Wrong(f"{name} differs from the checkpoint's")

    def _contract_of(self, part: Any, section: dict[str, Any]) -> Any:
        contract = EncoderContract(part, self.modality, cases.examples(self.kind, self.options))
        self._asserted(lambda: contract.build(section), Failed)
        return contract.encoder


class Failed(RuntimeError):
    """A step that failed without a wrong number."""
