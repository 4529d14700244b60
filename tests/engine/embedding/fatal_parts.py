"""A stranger's encoder whose process is killed in the forward that `FATAL` names."""

from __future__ import annotations

import os
import signal

from tiny_parts import Tiny
from torch import Tensor

from sensorium.modalities.base import Features

forwards = 0


class Fatal(Tiny):
    def forward(self, pixel_values: Tensor) -> Features:
        global forwards
        forwards += 1
        if forwards == int(os.environ.get("FATAL", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(pixel_values)
