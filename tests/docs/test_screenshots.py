"""The pictures of the site, and the line that stands in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import RuntimeFailure
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


def test_a_browser_that_fails_is_named_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="no picture of http") as error:
        screenshots.capture("false", "http://a", tmp_path / "a.png", 300, 200)
    assert "\n" not in str(error.value)


def test_what_is_empty_below_a_page_is_cut(tmp_path: Path) -> None:
    image = Image.new("RGB", (50, 400), "white")
    image.paste("black", (10, 20, 30, 60))
    image.save(tmp_path / "a.png")
    screenshots.trim(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as cut:
        assert cut.size == (50, 60 + screenshots.MARGIN)
        assert cut.convert("RGB").crop((0, 0, 50, 60)) == image.crop((0, 0, 50, 60))


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
