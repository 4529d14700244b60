"""Seeded mutations of a file's bytes: blind ones, and those that parse the format's header."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]

INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    32767,
    -32768,
    65535,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
)
FLOATS = (0.0, -0.0, -1.0, -5.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"), 0.9, 1e9)
TEXTS = (
    '"', "'", ",", ";", "\n", "\r\n", "\t", "{", "}", "[", "]", ":", ": ", "- ", "? ", "#", "\\",
    "\0", "null", "NaN", "1e999", "-1", "true", "0x10", "9" * 5000, "&a ", "*a", "!!int x",
    "<<: *a", "!!float x", "!!binary ?", "!!python/object:os.system ", "%TAG ! x",
    "|\n", ">\n", "{}", "[]", '""', "\ufeff", "\u2028", "é", "猫", "[" * 300, "{a: " * 200,
    '{"a":' * 300, "..", "/", "~", "type: ", "source: ", "extends: r.yaml\n", "2026-01-01",
      "image: ", "a,b,c", "x" * 3000,
)  # fmt: skip
"""What a text is most easily spoilt by."""


def blind(data: bytes, rng: Rng) -> bytes:
    """Flip, set, cut, double, move or insert bytes; near the beginning half of the time."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            return bytes(changed)
        near = min(len(changed), 128 if rng.random() < 0.5 else len(changed))
        at, kind = int(rng.integers(near)), int(rng.integers(8))
        length = int(rng.integers(1, 1 + min(64, len(changed))))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
        elif kind == 2:
            del changed[int(rng.integers(len(changed) + 1)) :]
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        elif kind == 5:
            changed[at:at] = rng.bytes(length)
        elif kind == 6:
            _number(changed, at, rng)
        else:
            other = int(rng.integers(len(changed)))
            changed[at : at + length] = changed[other : other + length]
    return bytes(changed)


def _number(changed: bytearray, at: int, rng: Rng) -> None:
    """Write a number at the edge of its type."""
    code = str(rng.choice(list("bBhHiIqQfd")))
    at -= at % struct.calcsize(code)
    if code in "fd":
        value = struct.pack(f"<{code}", float(rng.choice(FLOATS)) if code == "d" else _single(rng))
    else:
        size = struct.calcsize(code)
        order = "little" if rng.random() < 0.6 else "big"
        value = (int(rng.choice(INTEGERS)) % 256**size).to_bytes(size, order)
    changed[at : at + len(value)] = value


def _single(rng: Rng) -> float:
    return float(np.float32(rng.choice(FLOATS)))


def text(data: bytes, rng: Rng) -> bytes:
    """Insert texts that break parsers; delete, double and exchange lines; sometimes as `blind`."""
    if rng.random() < 0.2:
        return blind(data, rng)
    for _ in range(int(rng.integers(1, 4))):
        kind, lines = int(rng.integers(6)), data.split(b"\n")
        at, row = int(rng.integers(len(data) + 1)), int(rng.integers(len(lines)))
        piece = str(rng.choice(TEXTS)).encode()
        if kind == 0:
            data = data[:at] + piece + data[at:]
        elif kind == 1:
            data = data[:at] + piece + data[at + int(rng.integers(1, 20)) :]
        elif kind == 2:
            data = b"\n".join(lines[:row] + lines[row + 1 :])
        elif kind == 3:
            data = b"\n".join([*lines[:row], lines[row], *lines[row:]])
        elif kind == 4:
            other = int(rng.integers(len(lines)))
            lines[row], lines[other] = lines[other], lines[row]
            data = b"\n".join(lines)
        else:
            lines[row] = b" " * int(rng.integers(5)) + lines[row]
            data = b"\n".join(lines)
    return data


def nifti(data: bytes, rng: Rng) -> bytes:
    """Give fields of the header values at the edge of their type."""
    import nibabel

    packed = data[:2] == b"\x1f\x8b"
    changed = bytearray(gzip.decompress(data) if packed else data)
    fields = nibabel.Nifti1Header.template_dtype.fields
    assert fields is not None
    for name in rng.choice(list(fields), int(rng.integers(1, 4))):
        dtype, offset = fields[str(name)][:2]
        base = dtype.base
        place = offset + base.itemsize * int(rng.integers(max(1, dtype.itemsize // base.itemsize)))
        if base.kind == "f":
            value = struct.pack("<f", _single(rng))
        elif base.kind in "iu":
            value = (int(rng.choice(INTEGERS)) % 256**base.itemsize).to_bytes(
                base.itemsize, "little"
            )
        else:
            value = rng.bytes(dtype.itemsize)
        changed[place : place + len(value)] = value
    return gzip.compress(bytes(changed), 1, mtime=0) if packed else bytes(changed)


def png(data: bytes, rng: Rng) -> bytes:
    """Change a chunk and set the right checksum, so that the decoder reads it."""
    at, chunks = 8, []
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return blind(data, rng)
    place = int(rng.integers(len(chunks)))
    name, body = chunks[place]
    chunks[place] = (name, blind(body, rng) if body else rng.bytes(5))
    out = io.BytesIO(data[:8])
    out.seek(8)
    for name, body in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        out.write(struct.pack(">I", len(body)) + name + body + checksum)
    return out.getvalue()


def ogg_pages(data: bytes) -> list[bytes]:
    """Return the pages of an Ogg file, or all of another file as one."""
    starts = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    if not data.startswith(b"OggS"):
        return [data]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def ogg_page(page: bytes) -> bytes:
    """Return an Ogg page as one of stream 1, with the right checksum; other bytes unchanged."""
    if not page.startswith(b"OggS") or len(page) < 27:
        return page
    page = (
        page[:14]
        + struct.pack("<II", 1, struct.unpack("<I", page[18:22])[0])
        + bytes(4)
        + page[26:]
    )
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x04C11DB7 if checksum & 0x80000000 else 0)
    return page[:22] + struct.pack("<I", checksum & 0xFFFFFFFF) + page[26:]


def ogg(data: bytes, rng: Rng) -> bytes:
    """Change a page of an Ogg file and set the right checksum."""
    pages = ogg_pages(data)
    place = int(rng.integers(len(pages)))
    pages[place] = pages[place][:6] + blind(pages[place][6:], rng)
    return b"".join(map(ogg_page, pages))


TAR_FIELDS = ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (257, 6), (345, 155))


def tar(data: bytes, rng: Rng) -> bytes:
    """Change a field of a member's header and set the header's checksum."""
    changed = bytearray(data)
    headers = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return blind(data, rng)
    at = int(rng.choice(headers))
    start, size = TAR_FIELDS[int(rng.integers(len(TAR_FIELDS)))]
    choices = (
        b"77777777777",
        b"-1",
        b"\x80\x00\x00\xff",
        b"a/b/../c.x",
        rng.bytes(size),
        b"",
        b"5",
        b"L",
    )
    value = choices[int(rng.integers(len(choices)))][:size]
    changed[at + start : at + start + size] = value.ljust(size, b"\0")
    changed[at + 148 : at + 156] = b" " * 8
    changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    return bytes(changed)


def dicom(data: bytes, rng: Rng) -> bytes:
    """Give elements of a data set values that do not belong there, or remove them."""
    import pydicom
    from pydicom.dataelem import DataElement

    dataset = pydicom.dcmread(io.BytesIO(data))
    values: tuple[Any, ...] = (
        None,
        "",
        "abc",
        "1",
        "-1",
        "1e40",
        "nan",
        "1\\2",
        "1\\2\\3\\4\\5\\6\\7",
        "9" * 20,
        [],
    )
    for _ in range(int(rng.integers(1, 4))):
        group = dataset.file_meta if rng.random() < 0.15 else dataset
        tags = list(group.keys())
        if not tags:
            continue
        tag = tags[int(rng.integers(len(tags)))]
        kind = group[tag].VR
        if rng.random() < 0.2:
            del group[tag]
            continue
        value: Any = values[int(rng.integers(len(values)))]
        if kind in ("US", "SS", "UL", "SL"):
            value = int(rng.choice([0, 1, 2, 3, 15, 16, 255, 65535]))
        elif kind in ("OB", "OW"):
            value = bytes(group[tag].value or b"")[: int(rng.integers(0, 400))]
        elif kind == "SQ":
            continue
        group[tag] = DataElement(tag, kind, value, validation_mode=pydicom.config.IGNORE)
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset)
    return out.getvalue()
