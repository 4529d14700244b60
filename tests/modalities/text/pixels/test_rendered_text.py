"""Text as pixels: the same text is the same strip, scripts, fonts, and lengths."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.modalities.base import ReadError
from sensorium.modalities.text.pixels import RenderedText, Renderer

TEXTS = ["A red circle", "Красный круг", "Ένας κόκκινος κύκλος", "né, 3 < 4?", ""]
SCRIPTS = {"Devanagari": "नमस्ते", "Han": "你好"}
WORDS = {
    "en": ("red blue green black", "circle square star cross"),
    "uk": ("червоний синій зелений чорний", "круг квадрат зірка хрест"),
    "hi": ("लाल नीला हरा काला", "वृत्त वर्ग तारा पार"),
    "zh": ("红 蓝 绿 黑", "圆 方 星 十"),
}
"""Colours and shapes in four languages."""


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_text_is_the_same_strip(text: str) -> None:
    first, second = Renderer().render(text), Renderer().render(text)
    assert first.dtype == np.uint8 and np.array_equal(first, second)
    assert np.array_equal(Renderer().render(f"  {text} "), first)


def test_other_texts_are_other_strips() -> None:
    prints = {hashlib.sha256(Renderer().render(text)).hexdigest() for text in TEXTS}
    assert len(prints) == len(TEXTS)


@pytest.mark.parametrize("patch", [8, 16, 24])
def test_the_length_is_read_off_the_black_end(patch: int) -> None:
    renderer = Renderer(patch)
    for text in TEXTS:
        strip = renderer.render(text)
        black = (strip == 0).reshape(patch, -1, patch).all((0, 2))
        assert black.tolist() == [False] * renderer.patches(text) + [True]
        longer = renderer.patches(text + " and more")
        assert longer > renderer.patches(text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_glyph_is_one_line(script: str) -> None:
    with pytest.raises(ReadError, match=r"no font has .*U\+.*; expected .* fonts: \[path.ttf\]"):
        Renderer().render(SCRIPTS[script])


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A font with a box of its own width for each character of the other scripts."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    texts = [*SCRIPTS.values(), *WORDS["hi"], *WORDS["zh"]]
    characters = sorted({c for text in texts for c in text if c != " "})
    names = {ord(c): f"u{ord(c):04X}" for c in characters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    glyphs, metrics = {}, {}
    for number, name in enumerate([".notdef", *names.values()]):
        pen, right = TTGlyphPen(None), 300 + 60 * number
        pen.moveTo((50, 0))
        for point in ((50, 700), (right, 700), (right, 0)):
            pen.lineTo(point)
        pen.closePath()
        glyphs[name], metrics[name] = pen.glyph(), (right + 50, 50)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(metrics)
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    path = tmp_path_factory.mktemp("fonts") / "boxes.ttf"
    builder.save(str(path))
    return str(path)


def test_a_named_font_brings_its_scripts(font: str) -> None:
    """And text that the first font lacks is drawn as before by the next."""
    renderer = Renderer(fonts=[font])
    strips = [renderer.render(text) for text in SCRIPTS.values()]
    assert all((strip[:, :16] < 255).any() for strip in strips)
    assert not np.array_equal(*strips[:2])
    assert np.array_equal(renderer.render(TEXTS[1]), Renderer().render(TEXTS[1]))
    mixed, plain = renderer.width("A " + SCRIPTS["Han"]), Renderer()
    gap = plain.width("A A") - 2 * plain.width("A")
    assert mixed == plain.width("A") + gap + renderer.width(SCRIPTS["Han"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fonts": ["none.ttf"]}, "fonts: there is no file 'none.ttf'"),
        ({"dim": 10, "heads": 4}, "heads must divide dim"),
        ({"max_patches": 1}, "max_patches be 2 or more"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RenderedText(**options)


def test_a_file_that_is_no_font_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_text("no")
    with pytest.raises(ValueError, match="is no font"):
        Renderer(fonts=[str(tmp_path / "a.ttf")]).render("a")


def test_padding_and_the_cut() -> None:
    """Blank patches of a batch are seen by no token; a longer text keeps a black end."""
    torch.manual_seed(0)
    encoder = RenderedText(dim=16, depth=1, heads=2, max_patches=4).eval()
    prepare = encoder.processor.prepare
    with pytest.warns(UserWarning, match="longer than max_patches 4"):
        long = prepare("a text of many patches, longer than four")
    assert long["strip"].shape == (16, 64) and not long["strip"][:, -16:].any()
    samples = [prepare("a"), long]
    with torch.no_grad():
        alone = encoder(**encoder.collate(samples[:1])).tokens
        together = encoder(**encoder.collate(samples)).tokens
    torch.testing.assert_close(together[0, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-4)
    assert not together[0, alone.shape[1] :].any()


@pytest.mark.slow
def test_sentences_that_say_the_same_are_alike_in_any_script(font: str) -> None:
    """A mixture of four languages, aligned on parallel sentences: pairs of sentences that training
    never had are nearer than any others, and before training they are not (PIXEL-M4)."""
    torch.manual_seed(0)
    encoder = RenderedText(dim=32, depth=1, heads=2, max_patches=16, fonts=[font])
    names = list(WORDS)
    said = [
        [f"{colour} {shape}" for colour in colours.split() for shape in shapes.split()]
        for colours, shapes in WORDS.values()
    ]
    held_out = [0, 5, 10, 15]  # each colour and each shape once
    known = [n for n in range(16) if n not in held_out]

    def vectors(sentences: list[int]) -> torch.Tensor:
        texts = [said[language][n] for language in range(len(names)) for n in sentences]
        batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
        pooled = torch.nn.functional.normalize(encoder(**batch).mean(), dim=-1)
        return pooled.view(len(names), len(sentences), -1)

    def margins() -> torch.Tensor:
        with torch.no_grad():
            found = vectors(held_out)
        cosines = torch.einsum("and,bmd->abnm", found, found)
        other = [(a, b) for a in range(len(names)) for b in range(a)]
        pairs = torch.stack([cosines[a, b] for a, b in other])
        same = pairs.diagonal(dim1=1, dim2=2).mean()
        return same - (pairs.sum((1, 2)) - pairs.diagonal(dim1=1, dim2=2).sum(1)).mean() / 12

    before = float(margins())
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for step in range(150):
        found = vectors(known)
        first, second = torch.randperm(len(names), generator=torch.Generator().manual_seed(step))[
            :2
        ]
        logits = found[first] @ found[second].T / 0.1
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(known)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(margins()) > 0.3 > 0.1 > before
