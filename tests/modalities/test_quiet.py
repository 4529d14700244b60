"""Silence around what libraries say while they load, and only there."""

from __future__ import annotations

import logging
from pathlib import Path

import huggingface_hub.utils as hub
import pytest
import transformers
from transformers.utils import logging as of_transformers

from sensorium.modalities.messages import quiet_loading, quiet_logger

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A masked language model: its head is left over where the encoder alone is loaded."""
    config = transformers.BertConfig(**SMALL, intermediate_size=16)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    return tmp_path


def load(checkpoint: Path) -> None:
    transformers.BertModel.from_pretrained(checkpoint, add_pooling_layer=False)


def test_weights_are_loaded_without_a_word(
    checkpoint: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    load(checkpoint)  # if transformers grows quiet by itself, there is nothing to do any more
    assert "Loading weights" in capfd.readouterr().err and "LOAD REPORT" in caplog.text
    caplog.clear()
    with quiet_loading():
        load(checkpoint)
        logging.getLogger("transformers.modeling_utils").warning("of another kind")
    assert "Loading weights" not in capfd.readouterr().err
    assert [record.message for record in caplog.records] == ["of another kind"]
    load(checkpoint)
    assert "Loading weights" in capfd.readouterr().err and "LOAD REPORT" in caplog.text


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("downloads", [True, False])
def test_settings_are_as_before(
    terminal: bool, shown: bool, downloads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of_transformers.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    try:
        (of_transformers.enable_progress_bar if shown else of_transformers.disable_progress_bar)()
        (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()
        with pytest.raises(ValueError), quiet_loading():
            assert not of_transformers.is_progress_bar_enabled()
            # Whoever waits for a download may watch it.
            assert hub.are_progress_bars_disabled() == (not (downloads and terminal))
            raise ValueError
        assert of_transformers.is_progress_bar_enabled() == shown
        assert hub.are_progress_bars_disabled() == (not downloads)
        assert not logging.getLogger("transformers.modeling_utils").filters
    finally:
        (
            of_transformers.enable_progress_bar
            if before[0]
            else of_transformers.disable_progress_bar
        )()
        (hub.disable_progress_bars if before[1] else hub.enable_progress_bars)()


def test_loggers_get_their_levels_back() -> None:
    one = logging.getLogger("a_library")
    one.setLevel(logging.INFO)
    with quiet_logger("a_library", "another_library"):
        assert not one.isEnabledFor(logging.WARNING) and one.isEnabledFor(logging.ERROR)
    assert one.level == logging.INFO
    assert logging.getLogger("another_library").level == logging.NOTSET
