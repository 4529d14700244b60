"""espeak-ng by ctypes: words in, samples and the times of their phonemes out, always the same.

The library keeps state between utterances (phases, noise, whose seed is the time of day), so that
its output depends on its earlier output. Each utterance is therefore spoken by a library that
is loaded for it and closed again, with a fixed seed: any order and any process yield the same
samples. Mode 2 is synchronous: nothing runs in a thread, which also makes a fork safe.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import functools
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base import ReadError

SYNCHRONOUS, PHONEME_EVENTS, DONT_EXIT = 2, 1, 0x8000
RATE_OPTION, PITCH_OPTION, RANGE_OPTION = 1, 3, 4
UTF8, PHONEME_EVENT = 1, 7
SEED = 1
LIBRARY = "the espeak-ng library: pip install 'sensorium[talker]', or install espeak-ng"

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Voice:
    """A speaker. accent: a voice of espeak-ng. variant: the suffix after `+`. rate: words a
    minute. pitch, range: 0 to 99, 50 is the voice's own."""

    accent: str
    variant: str
    rate: int = 175
    pitch: int = 50
    range: int = 50


@dataclass(frozen=True, eq=False)
class Utterance:
    """samples: int16 `[N]`. rate: Hz. phonemes: (name, its first sample), in order."""

    samples: np.ndarray
    rate: int
    phonemes: tuple[tuple[str, int], ...]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@functools.cache
def library() -> tuple[str, bytes | None]:
    """Return the library's file and the folder of its data: of the package `espeakng_loader`, else
    the system's. Raise `ReadError` where there is neither."""
    if _packaged():
        import espeakng_loader

        return espeakng_loader.get_library_path(), espeakng_loader.get_data_path().encode()
    path = ctypes.util.find_library("espeak-ng")
    if path is None:
        raise ReadError("talker", "espeak-ng is not installed", LIBRARY)
    return path, None


def require() -> None:
    """As `library`, without importing anything where the package is there."""
    if not _packaged():
        library()


def _packaged() -> bool:
    return importlib.util.find_spec("espeakng_loader") is not None


@contextmanager
def _new_library() -> Iterator[tuple[Any, int]]:
    """A fresh library, and its sampling rate in Hz."""
    path, data = library()
    with _ONE_AT_A_TIME:
        try:
            espeak = ctypes.CDLL(path)
        except OSError as error:
            raise ReadError(path, f"cannot be loaded ({error})", LIBRARY) from error
        try:
            rate = espeak.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | DONT_EXIT)
            if rate <= 0:
                raise ReadError(path, "espeak-ng does not find its data", LIBRARY)
            seed = getattr(espeak, "espeak_ng_SetRandSeed", None)  # since 1.52; fixed before
            if seed is not None:
                seed(ctypes.c_long(SEED))
            yield espeak, rate
        finally:
            espeak.espeak_Terminate()
            _ctypes.dlclose(espeak._handle)


def version() -> str:
    """Return the version of espeak-ng: another one speaks a little differently."""
    with _new_library() as (espeak, _):
        espeak.espeak_Info.restype = ctypes.c_char_p
        return str(espeak.espeak_Info(None).decode())


@functools.lru_cache(maxsize=8)
def speak(text: str, voice: Voice) -> Utterance:
    """Return the speech of a voice. Raise `ReadError` for a voice that espeak-ng lacks."""
    pieces: list[bytes] = []
    phonemes: list[tuple[str, int]] = []

    def take(wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            pieces.append(ctypes.string_at(wave, 2 * count))
        index = 0
        while events[index].type:
            if events[index].type == PHONEME_EVENT:
                name = events[index].name.decode("utf-8", "replace")
                phonemes.append((name, events[index].sample))
            index += 1
        return 0

    with _new_library() as (espeak, rate):
        callback = _Callback(take)
        espeak.espeak_SetSynthCallback(callback)
        name = f"{voice.accent}+{voice.variant}"
        if espeak.espeak_SetVoiceByName(name.encode()):
            raise ReadError(name, "espeak-ng has no such voice", "one that it lists")
        for option, value in (
            (RATE_OPTION, voice.rate),
            (PITCH_OPTION, voice.pitch),
            (RANGE_OPTION, voice.range),
        ):
            espeak.espeak_SetParameter(option, value, 0)
        data = text.encode()
        failed = espeak.espeak_Synth(data, len(data) + 1, 0, 0, 0, UTF8, None, None)
    if failed or not pieces:
        raise ReadError(text, f"espeak-ng produces no sound (error {failed})", "words")
    return Utterance(np.frombuffer(b"".join(pieces), np.int16), rate, tuple(phonemes))


def pronounce(texts: list[str], accent: str) -> list[str]:
    """Return the phonemes of texts, in IPA, in an accent."""
    ipa = 2
    with _new_library() as (espeak, _):
        if espeak.espeak_SetVoiceByName(accent.encode()):
            raise ReadError(accent, "espeak-ng has no such voice", "one that it lists")
        espeak.espeak_TextToPhonemes.restype = ctypes.c_char_p
        transcriptions = []
        for text in texts:
            pointer = ctypes.c_char_p(text.encode())
            parts = []
            while pointer.value:
                phonemes = espeak.espeak_TextToPhonemes(ctypes.byref(pointer), UTF8, ipa)
                parts.append((phonemes or b"").decode())
            transcriptions.append(" ".join(parts))
    return transcriptions
