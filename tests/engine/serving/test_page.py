"""The page in a real browser, against a real server; skipped where there is no Chromium."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_runs import png, wav

from sensorium.engine.inference import Pipeline
from sensorium.engine.serving import ServeSettings, create_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def address(pipelines: dict[str, Pipeline]) -> Iterator[str]:
    """A server on a free port of this machine."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(pipelines, ServeSettings())
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    """The page, opened; no error of JavaScript may have been logged at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": request.param, "height": 800})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.wait_for_function("document.querySelector('#run').options.length == 2")
        yield page
        browser.close()
    assert problems == []


def test_upload_answer_and_error(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.select_option("#run", "pictures")
    page.select_option("#task", "digit")
    page.set_input_files("input[type=file]", str(tmp_path / "a.png"))
    page.click("#send")
    page.wait_for_selector("#answer:not([hidden])")
    assert '"label"' in page.inner_text("#curl") or '"image"' in page.inner_text("#curl")
    assert page.locator("#shown .text").inner_text()

    page.set_input_files("input[type=file]", str(tmp_path / "bad.png"))
    page.focus("#send")
    page.keyboard.press("Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith("digit:")

    page.select_option("#task", "ask")
    page.set_input_files("input[type=file]", str(tmp_path / "a.png"))
    page.fill("textarea[name=question]", "what is it?")
    page.click("#send")
    page.wait_for_selector("#answer:not([hidden])")

    page.select_option("#run", "speech")
    page.set_input_files("input[type=file]", str(tmp_path / "a.wav"))
    page.fill("#options-json", '{"times": true}') if page.is_visible("#options-json") else None
    page.click("#send")
    page.wait_for_selector("#answer:not([hidden])")


def test_nothing_is_wider_than_the_window(page: Any) -> None:
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]
    labels = page.locator("select, input:visible, textarea:visible, button:visible")
    assert labels.count() >= 4


def test_the_python_line_runs(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.select_option("#run", "pictures")
    page.select_option("#task", "digit")
    (tmp_path / "a.png").write_bytes(png(1))
    page.set_input_files("input[type=file]", str(tmp_path / "a.png"))
    page.wait_for_function("document.querySelector('#python').textContent.includes('a.png')")
    code = page.inner_text("#python")
    monkeypatch.chdir(tmp_path)
    answers: list[Any] = []
    code = re.sub(r"^print\((.*)\)$", r"answers.append(\1)", code, flags=re.M)
    exec(code, {"answers": answers})
    assert set(answers[0]) >= {"label"}
