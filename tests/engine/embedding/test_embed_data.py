"""The data that `embed` takes: a split of the recipe, a folder, a file, a source."""

from __future__ import annotations

import pytest

from sensorium.engine.embedding import (
    load_run_or_recipe,
    open_data,
    resolve_stream,
)
from sensorium.engine.embedding.data_spec import open_spec
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.embedding.places import Place


class TestData:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["phots"], "'phots' is no folder or file that exists, and no KEY=VALUE"),
            (["path=photos"], "lacks source=NAME"),
            (["source=imagfolder", "path=photos"], "did you mean 'imagefolder'"),
            (["source=imagefolder pth=photos"], "did you mean 'path'"),
            (["source=digits split=test columns.image=pixels"], "no column 'pixels'"),
            (["source=csv path=t.csv"], "--data: has no column 'image'.*map one with columns"),
            (["picture.gif"], "picture.gif is no table"),
            (["empty"], "no file ends in"),
        ],
    )
    def test_mistakes(self, place: Place, words: list[str], message: str) -> None:
        place.pictures([1])
        (place.folder / "t.csv").write_text("a,b\n1,2\n")
        (place.folder / "picture.gif").touch()
        (place.folder / "empty").mkdir()
        with pytest.raises(ConfigError, match=message) as caught:
            open_data(load_run_or_recipe(place.recipe).plan, "image", words, None, "test")
        assert "\n" not in str(caught.value)

    def test_tables_and_pairs(self, place: Place) -> None:
        folder = place.pictures([1, 2])
        (place.folder / "t.csv").write_text("image,age\nodd/001.png,3\neven/002.png,4\n")
        plan = load_run_or_recipe(place.recipe).plan
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            table = open_data(plan, "image", [str(place.folder / "t.csv")], None, "")
            pairs = ["source=csv", f"path={place.folder / 't.csv'} columns.look=image limit=1"]
            other = open_data(plan, "image", pairs, None, "")
            assert len(open_spec(plan, "image", other.text).source) == 1
        assert [table.source[i]["age"] for i in range(2)] == [3, 4]
        assert len(other.source) == 1
        assert other.source[0]["look"] == "odd/001.png"
        with pytest.raises(ValueError, match=rf"name files of the folder {folder}"):
            open_spec(plan, "image", other.text)

    def test_a_split_that_is_not_there(self, place: Place) -> None:
        plan = load_run_or_recipe(place.recipe).plan
        with pytest.raises(ConfigError, match="no split 'tset'; did you mean 'test'"):
            open_data(plan, "image", (), None, "tset")
        with pytest.raises(ConfigError, match="no 'digits'; did you mean 'digit'"):
            open_data(plan, "image", (), "digits", "test")

    def test_any_files_of_a_modality_without_a_source_of_its_own(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sensorium.engine.embedding import data_spec

        folder = place.pictures([1, 2])
        (folder / ".hidden").touch()
        monkeypatch.setattr(data_spec, "registered", lambda kind: {})
        assert place.go(str(folder)).added.new == 2
        assert place.rows("index", "path")["odd/001.png"]["path"] == str(folder / "odd/001.png")

    def test_streams(self, place: Place) -> None:
        model = load_run_or_recipe(place.recipe)
        assert resolve_stream(model, None) == "image"
        with pytest.raises(ConfigError, match="no 'imag'; did you mean 'image'"):
            resolve_stream(model, "imag")
