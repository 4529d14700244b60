"""No test leaves this machine, nor reads or fills the caches of whoever runs it.

`HF_HUB_OFFLINE=0 pytest -m hub` lets the tests marked `hub` out.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ONLINE = os.environ.get("HF_HUB_OFFLINE") == "0"
FOLDER = tempfile.TemporaryDirectory(prefix="sensorium-tests-", ignore_cleanup_errors=True)

# Libraries read these when they are imported, which the conftests further down do.
os.environ |= {
    "HF_HOME": f"{FOLDER.name}/hf",
    "RAY_worker_niceness": "0",  # 15 by default: beside other work they hardly start
    "SENSORIUM_CACHE": f"{FOLDER.name}/sensorium",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_HOME": f"{FOLDER.name}/torch",
}
if not ONLINE:
    os.environ |= dict.fromkeys(
        ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"
    )
# Two processes with two threads each on two cores take turns at waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As in a terminal: a shell that starts the tests in the background lets them ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test cuts the power, and some disks take a tenth of a second to flush a file.
os.fsync = lambda descriptor: None

# A slow machine fails no test, and every run looks at the same examples.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=30, help="interruptions by test_kills in all")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `quick_share` leaves out of the quick suite."""
    cases: Counter[tuple[object, ...]] = Counter()
    for item in items:
        share = item.get_closest_marker("quick_share")
        if share is not None:
            test = (item.path, getattr(item, "originalname", item.name))
            if cases[test] % share.args[0]:
                item.add_marker(pytest.mark.slow)
            cases[test] += 1


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let a test and its fixtures draw the same numbers whichever test ran before them."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def no_modules_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find, or note beside a recipe, the modules that a test before it found."""
    monkeypatch.setattr("sensorium.engine.utils.plugin_path._imported_modules", {})


HERE = {"", "::", "::1", "0.0.0.0", "localhost", socket.gethostname()}


def _refuse(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    if name not in HERE and not name.startswith("127."):
        pytest.fail(f"a test may not reach {name}; no test touches the network")


def _guarded(original: Callable[..., Any], host: Callable[..., Any]) -> Callable[..., Any]:
    def guard(*args: Any, **kwargs: Any) -> Any:
        _refuse(host(*args))
        return original(*args, **kwargs)

    return guard


def _host_of_address(_: socket.socket, address: Any) -> Any:
    """The host of `(host, port, ...)`; a path is a socket of this machine's own."""
    return address[0] if isinstance(address, tuple) else None


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Connections and names other than this machine's fail the test that asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        if not ONLINE:
            for name in ("connect", "connect_ex"):
                guard = _guarded(getattr(socket.socket, name), _host_of_address)
                patch.setattr(socket.socket, name, guard)
            patch.setattr(
                socket, "getaddrinfo", _guarded(socket.getaddrinfo, lambda host, *_: host)
            )
        yield


@pytest.fixture
def accelerator() -> Iterator[Any]:
    """A device other than the CPU, on any machine; see `fake_accelerator`."""
    from sensorium.tests.fake_accelerator import fake_accelerator

    with fake_accelerator() as device:
        yield device
