"""Demonstrations that are ramps, every form of action over them, and an oracle for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sensorium.engine.inference import Pipeline
from sensorium.engine.model import compose
from sensorium.modalities.base import Source
from sensorium.tasks.control import distillation, regression
from sensorium.tasks.control.decoders import Chunk

FRAMES, SEEN = 24, 16
"""Frames of a demonstration, and steps of it that the environment asks for."""


def demonstrated(frame: np.ndarray) -> np.ndarray:
    """`[..., 2]` a ramp, which a shift of one frame moves by 1, and a gripper that closes."""
    return np.stack([10.0 + frame, np.where(frame < 7, -1.0, 1.0)], -1).astype(np.float32)


class Ramps(Source):
    """Episodes of one demonstration; the state is the number of the frame."""

    columns = ("state", "action", "previous_action")

    def __init__(self, *, count: int = 3) -> None:
        self.count = count

    @property
    def episodes(self) -> list[range]:
        return [range(i * FRAMES, (i + 1) * FRAMES) for i in range(self.count)]

    def __len__(self) -> int:
        return self.count * FRAMES

    def __getitem__(self, index: int) -> dict[str, Any]:
        frame = index % FRAMES
        before = demonstrated(np.array(max(0, frame - 1)))
        action = demonstrated(np.array(frame))
        return {"state": np.array([frame], np.float32), "action": action, "previous_action": before}

    def fingerprint(self) -> str:
        return f"ramps {self.count}"


class Counter(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes the number of its steps, in one array that it writes again at each."""

    observation_space = spaces.Box(-1, 999, (1,), np.float32)
    action_space = spaces.Box(-999, 999, (2,), np.float32)
    executed: ClassVar[dict[int, list[np.ndarray]]] = {}

    def __init__(self) -> None:
        self.state = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state[:] = 0
        self.actions = self.executed[seed or 0] = []
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action.copy())
        self.state += 1
        action[:] = np.nan  # what an environment does with its argument is its own affair
        return self.state, 0.0, False, len(self.actions) == SEEN, {"success": True}


gymnasium.register("FrameCounter-v0", entry_point=Counter)


SPLINE = {"type": "bspline", "num_basis": 6, "degree": 3, "vocab": 1024, "grippers": [-1]}
WHOLE = {"vocab": 512, "quantiles": [0.0, 1.0]}
BINS, FAST = {"type": "bins", **WHOLE}, {"type": "fast", "scale": 50.0, **WHOLE}
TASKS: dict[str, dict[str, Any]] = {
    "parallel": {"action_decoder": "parallel", "tokenizer": SPLINE},
    "fourier": {"action_decoder": "fourier", "frequencies": 4, "tokenizer": SPLINE},
    "continuous": {"action_decoder": "continuous", "tokenizer": SPLINE},
    "vae": {"action_decoder": "continuous", "latent": 2, "tokenizer": SPLINE},
    "bins": {"action_decoder": "autoregressive", "tokenizer": BINS},
    "fast": {"action_decoder": "autoregressive", "tokenizer": FAST},
    "spelled": {"action_decoder": "autoregressive", "tokenizer": SPLINE},
    "regression": {"type": "action_regression", "tokenizer": SPLINE},
    "distillation": {"type": "distill_actions", "expert": "expert", "tokenizer": SPLINE},
}


def recipe(
    task: Mapping[str, Any], window: tuple[int, int], start_order: int = 0
) -> dict[str, Any]:
    section = {"type": "control", "prompt": "<state>", **task}
    tokenizer = section["tokenizer"]
    if tokenizer["type"] == "bspline":
        section["tokenizer"] = {**tokenizer, "start_order": start_order}
    state = {"modality": "action", "encoder": {"type": "state", "dim": 8}, "connector": "linear"}
    inputs: dict[str, Any] = {"state": state}
    windows = {"action": list(window), "state": [-1, 0]}
    train = {"source": f"{__name__}:Ramps", "delta_frames": windows}
    if section["type"] == "action_regression":
        del section["prompt"]
        section["input"] = "state"
        state["connector"] = "mean"
    if section["type"] == "distill_actions":
        encoder = {**state["encoder"], "freeze": True}
        inputs["expert"] = {"modality": "action", "encoder": encoder}
        train["columns"] = {"expert": "state"}
    options = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    backbone = {"type": "causal", "name": "tiny-llama", "tokenizer": "bytes", "weights": "none"}
    return {
        "inputs": inputs,
        **({"backbone": {**backbone, "options": options | heads}} if "prompt" in section else {}),
        "tasks": {"act": {**section, "data": {"train": train}}},
        "train": {"steps": 1, "batch_size": 4},
        "env": {"name": "FrameCounter-v0", "max_steps": FRAMES, "clip": False},
    }


class Oracle(Pipeline):
    """A pipeline whose model predicts the tokens of the demonstrated chunk of the frames that it
    is asked about, and of the true action before it."""

    def __init__(self, plan: Any, patch: pytest.MonkeyPatch) -> None:
        super().__init__(compose(plan))
        self.task: Any = self.model.task("act")
        windows = plan.recipe.tasks["act"].data["train"].delta_frames
        self.offsets = np.arange(windows["action"][0], windows["action"][1] + 1)
        self.frames: list[int] = []
        if hasattr(self.task, "action_decoder"):
            patch.setattr(self.task.action_decoder, "generate", lambda *_: self.tokens())
        for module in (regression, distillation):
            patch.setattr(module, "head_output", lambda *_: self.tokens())

    def generate(self, task: str, inputs: Any = None, /, **options: Any) -> Any:
        states = inputs["state"] if isinstance(inputs["state"], list) else [inputs["state"]]
        self.frames = [round(float(np.asarray(state).reshape(-1)[-1])) for state in states]
        return super().generate(task, inputs, **options)

    def tokens(self) -> Any:
        frames = np.array(self.frames)[:, None] + self.offsets
        inside = np.clip(frames, 0, FRAMES - 1)
        actions = torch.from_numpy(demonstrated(inside))
        start = actions[:, 0] if self.task.tokenizer.fixed_start else None
        chunk = Chunk(actions, torch.from_numpy(frames != inside), start)
        if getattr(getattr(self.task, "action_decoder", None), "discrete", False):
            return self.task.tokenizer.encode(actions, padding=chunk.padding, start=start)
        return self.task.encode(chunk)
