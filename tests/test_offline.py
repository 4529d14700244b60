"""The guard of `conftest.py` does refuse."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

# An address of documentation (RFC 5737) and a name that never resolves (RFC 2606).
ELSEWHERE = ("192.0.2.1", 9)


def _connect_ex() -> int:
    with socket.socket() as expected:
        return expected.connect_ex(ELSEWHERE)


@pytest.mark.parametrize(
    ("reach", "host"),
    [
        (lambda: socket.create_connection(ELSEWHERE, timeout=1), "192.0.2.1"),
        (lambda: socket.getaddrinfo("a.invalid", 443), "a.invalid"),
        (_connect_ex, "192.0.2.1"),
    ],
)
def test_another_machine_is_refused(reach: Callable[[], object], host: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"may not reach {host}"):
        reach()


def test_this_machine_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_libraries_know_that_there_is_no_network() -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    assert Path(constants.HF_HOME).parent == Path(os.environ["SENSORIUM_CACHE"]).parent
