"""The pictures of the site, and the line that stands in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.engine.recipe import parse_recipe
from sensorium.scripts.docs import screenshots


def test_without_a_browser_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screenshots, "BROWSERS", ())
    screenshots.main(tmp_path)
    assert "left out, no Chromium was found" in capsys.readouterr().out
    assert "There are none here" in (tmp_path / "reference" / "screens.md").read_text()


def test_the_run_that_is_pictured_is_a_recipe() -> None:
    assert parse_recipe(screenshots.RECIPE).tasks.keys() == {"digit"}


def test_each_picture_has_its_place() -> None:
    page = screenshots.screens_page({name: f"screens/{name}.png" for name in screenshots.SHOTS})
    assert page.count("![") == len(screenshots.SHOTS)


@pytest.mark.slow
def test_a_browser_pictures_a_page(tmp_path: Path) -> None:
    program = screenshots.browser()
    if program is None:
        pytest.skip("no Chromium")
    (tmp_path / "a.html").write_text("<h1>A page</h1>")
    screenshots.capture(program, tmp_path / "a.html", tmp_path / "a.png", 300, 200)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
