"""Text as a strip of pixels (PIXEL, arXiv 2207.06991): the same text is the same pixels.

Glyphs are drawn one after the other by FreeType, without shaping, each from the first font that
has it, so that a strip depends on nothing but the text and the files of the fonts.

Legend: `P` patches of a text, `h` px of a side of a patch.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...base import ReadError

IGNORED = frozenset("\u200b\u200c\u200d\ufeff\ufe0e\ufe0f")
"""Characters without a glyph of their own: joiners and selectors."""


class Renderer:
    """Draws texts, black (0) on white (255), in strips `h` px high.

    patch: `h`. fonts: files of TrueType or OpenType fonts, tried in this order, before DejaVu Sans,
    which has Latin, Greek, Cyrillic and more; Devanagari or Han need another one.
    """

    def __init__(self, patch: int = 16, fonts: Sequence[str] = ()) -> None:
        self.patch, self.fonts = patch, tuple(fonts)
        for path in self.fonts:
            if not Path(path).is_file():
                raise ValueError(f"fonts: there is no file {path!r}; expected a .ttf or .otf file")

    def width(self, text: str) -> int:
        """Return the px of a text. Raise ReadError for a character that no font has."""
        return sum(width for _, _, width in self._glyphs(text))

    def patches(self, text: str) -> int:
        """Return the patches of a text, the black one at its end not counted."""
        return -(-self.width(text) // self.patch)

    def render(self, text: str) -> np.ndarray:
        """Return the strip `[h, h (P + 1)]` uint8: the text, then a black patch as its end."""
        glyphs, patch = self._glyphs(text), self.patch
        patches = -(-sum(width for _, _, width in glyphs) // patch)
        strip = Image.new("L", (patch * patches, patch), 255)
        draw, left = ImageDraw.Draw(strip), 0
        baseline = round(0.75 * patch)
        for character, font, width in glyphs:
            draw.text((left, baseline), character, fill=0, font=font, anchor="ls")
            left += width
        ending = np.zeros((patch, patch), np.uint8)
        return np.concatenate([np.asarray(strip), ending], 1)

    def _glyphs(self, text: str) -> list[tuple[str, Any, int]]:
        """Return each character that is drawn, its font and its px."""
        normal = unicodedata.normalize("NFC", " ".join(text.split()))
        glyphs = []
        for character in normal:
            if character in IGNORED:
                continue
            font = self._font_of(character, text)
            glyphs.append((character, font, round(font.getlength(character))))
        return glyphs

    def _font_of(self, character: str, text: str) -> Any:
        for path in (*self.fonts, _default_font()):
            if ord(character) in _characters(path):
                return _font(path, round(0.72 * self.patch))
        name = unicodedata.name(character, "a character without a name")
        raise ReadError(
            text,
            f"no font has {character!r}, U+{ord(character):04X} {name}",
            "a file with its script in fonts: [path.ttf]",
        )


@functools.cache
def _default_font() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """Return the code points of a font. Raise ValueError for a file that is none."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"fonts: {path} is no font ({error})") from error


@functools.cache
def _font(path: str, size: int) -> Any:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
