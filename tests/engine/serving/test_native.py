"""Search, policies and maps over HTTP equal the direct calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from served_runs import data_uri, png

from sensorium.engine.embedding import Retriever, embed, index_metadata, open_data, parse_query
from sensorium.engine.inference import Pipeline
from sensorium.engine.model import build
from sensorium.engine.recipe import Env, parse_recipe
from sensorium.engine.rollout import make_policy
from sensorium.engine.serving import ServeSettings, create_app
from sensorium.tests.engine.rollout.test_control_run import recipe as control_recipe

SEGMENT: dict[str, Any] = {
    "inputs": {
        "volume": {
            "modality": "mri",
            "encoder": {
                "type": "vit3d", "size": [16, 16, 16], "spacing": [8, 8, 8], "patch": [8, 8, 8],
                "dim": 16, "depth": 1, "heads": 2,
            },
        },
        "mask": {"modality": "mri_mask", "encoder": {"type": "mask", "freeze": True}},
    },
    "tasks": {"lesion": {"type": "segmentation", "input": "volume", "mask": "mask"}},
}  # fmt: skip


def client_of(pipelines: dict[str, Pipeline], **indexes: Retriever) -> Any:
    from starlette.testclient import TestClient

    return TestClient(create_app(pipelines, ServeSettings(), indexes))


@pytest.fixture(scope="module")
def photos(runs: Path, pipelines: dict[str, Pipeline]) -> Path:
    """An index of six pictures."""
    folder = runs / "photos"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(png(i))
    model = pipelines["pictures"].model
    rows = open_data(model.plan, "image", [str(folder)], None, "")
    maker = index_metadata(model, "image", str(runs / "pictures"), ())
    embed(model, maker, rows, str(runs / "index"))
    return runs / "index"


def test_search_finds_what_retrieve_does(
    pipelines: dict[str, Pipeline], photos: Path, tmp_path: Path
) -> None:
    retriever = Retriever(str(photos))
    with client_of(pipelines, photos=retriever) as client:
        listed = client.get("/v1/search").json()["data"]
        assert listed == [
            {"id": "photos", "object": "index", "streams": {"image": "image", "caption": "text"}}
        ]
        query = {"stream": "image", "value": data_uri(png(3)), "k": 2}
        rows = client.post("/v1/search", json=query).json()["rows"]
        (tmp_path / "3.png").write_bytes(png(3))
        direct = retriever.find(parse_query({}, {}, f"image={tmp_path / '3.png'}"), 2)
        assert [row["key"] for row in rows] == [hit.columns()["key"] for hit in direct]
        assert rows[0]["score"] == pytest.approx(1, abs=1e-4)
        text = client.post("/v1/search", json={"stream": "caption", "value": "a five", "k": 6})
        assert len(text.json()["rows"]) == 6
        for body, status, words in (
            ({"stream": "sound", "value": "x"}, 400, "there is no 'sound'"),
            ({"stream": "caption", "value": " "}, 400, "the query is empty"),
            ({"stream": "image", "value": "/etc/passwd"}, 400, "found no base64"),
            ({"stream": "caption", "value": "x", "where": "no = 1"}, 400, "no"),
            ({"stream": "caption", "value": "x", "index": "other"}, 404, "there is no 'other'"),
        ):
            answer = client.post("/v1/search", json=body)
            assert answer.status_code == status and words in answer.text, answer.text


def test_a_connection_is_one_policy(tmp_path: Path) -> None:
    pipeline = Pipeline(build(parse_recipe(control_recipe())).eval())
    observations = [{"state": [0.1 * i, 0.5, 1.0]} for i in range(5)]
    expected = []
    policy = make_policy(pipeline, Env(name="any", n_action_steps=None))
    policy.reset([{"instruction": "left"}])
    for observation in observations:
        expected.append(policy.step({"state": np.asarray(observation["state"], np.float32)}))
    with (
        client_of({"arm": pipeline}) as client,
        client.websocket_connect("/v1/act") as one,
        client.websocket_connect("/v1/act") as two,
    ):
        for socket, text in ((one, "left"), (two, "right")):
            socket.send_json({"reset": {"instruction": text}})
            assert socket.receive_json() == {"reset": True}
        for observation, action in zip(observations, expected, strict=True):
            two.send_json({"observation": {"state": [0.0, 0.0, 0.0]}})
            one.send_json({"observation": observation})
            np.testing.assert_allclose(one.receive_json()["action"], action, atol=1e-5)
            two.receive_json()
        for message, words in (
            ({"observation": {"states": [1]}}, "state"),
            ({"observation": {"state": "x"}}, "expected numbers"),
            ([], "expected"),
        ):
            one.send_json(message)
            assert words in one.receive_json()["error"]["message"]


def test_who_is_no_policy_says_so(pipelines: dict[str, Pipeline]) -> None:
    with (
        client_of({"speech": pipelines["speech"]}) as client,
        client.websocket_connect("/v1/act") as socket,
    ):
        assert "control" in socket.receive_json()["error"]["message"]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[bytes]:
    data = np.random.default_rng(0).random((20, 18, 16)).astype(np.float32)
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(data, np.diag([6.0, 6, 6, 1])), path)
    yield path.read_bytes()


def test_masks_are_files_of_the_volume_s_grid(volume: bytes, tmp_path: Path) -> None:
    pipeline = Pipeline(build(parse_recipe(SEGMENT)).eval())
    with client_of({"heads": pipeline}) as client:
        body = {"inputs": {"volume": data_uri(volume, "application/gzip")}}
        answer = client.post("/v1/tasks/lesion", json=body)
        assert answer.status_code == 200, answer.text
        stored = answer.json()["prediction"]["mask"]["file"]
        (tmp_path / "mask.nii.gz").write_bytes(client.get(f"/v1/files/{stored}/content").content)
        mask = nib.load(tmp_path / "mask.nii.gz")
        assert mask.shape == (20, 18, 16)
        np.testing.assert_allclose(mask.affine, np.diag([6.0, 6, 6, 1]), atol=1e-5)


def test_a_volume_that_would_not_fit_is_refused_by_its_header(volume: bytes) -> None:
    from starlette.testclient import TestClient

    pipeline = Pipeline(build(parse_recipe(SEGMENT)).eval())
    app = create_app({"heads": pipeline}, ServeSettings(max_voxels=1000))
    with TestClient(app) as client:
        answer = client.post("/v1/tasks/lesion", json={"inputs": {"volume": data_uri(volume)}})
        assert answer.status_code == 413 and "5,760 voxels" in answer.text
