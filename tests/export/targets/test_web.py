"""What ``--target web`` writes, and how it finds onnxruntime-web; the page itself is used in ``test_web_page``."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from web_package import made_package

from export.config import ExportConfig
from export.runtime.model_facts import ModelFacts
from export.targets import web
from export.targets.exported import Export
from splits.errors import InputError

METRIC_FACTOR = 5.4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A file that answers every uint8 image (1,H,W,3) with its green level (1,1,h,w)."""
    folder = tmp_path_factory.mktemp("exported")
    nodes = [
        helper.make_node("Shape", ["image"], ["size"], "size"),
        helper.make_node("Cast", ["size"], ["sizes"], "sizes", to=TensorProto.FLOAT),
        helper.make_node("Gather", ["image", "one"], ["plane"], "plane", axis=3),
        helper.make_node("Cast", ["plane"], ["levels"], "levels", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["levels", "axis"], ["planes"], "planes"),
        helper.make_node("Mul", ["planes", "one_too"], ["inv_depth"], "inv_depth"),
    ]
    constants = [helper.make_tensor(name, TensorProto.INT64, dims, [1]) for name, dims in (("one", []), ("axis", [1]))]
    constants.append(helper.make_tensor("one_too", TensorProto.FLOAT, [], [1.0]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])
    inv_depth = helper.make_tensor_value_info("inv_depth", TensorProto.FLOAT, [1, 1, "H", "W"])
    graph = helper.make_graph(nodes, "green", [image], [inv_depth], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, str(folder / "model.onnx"))
    facts = ModelFacts(height_px=64, width_px=96, preprocessing=True, training="stereo", metric_factor=METRIC_FACTOR)
    return Export(config_of(None), None, facts, folder / "model.onnx", None, "", None)


def config_of(given: Path | None) -> ExportConfig:
    return ExportConfig(weights=Path("weights"), out=Path("page"), target="web", preprocessing=True, onnxruntime_web=given)


def test_what_is_packed(exported, tmp_path):
    archive = made_package(tmp_path / "package.tgz")
    page = tmp_path / "page"
    page.mkdir()
    web.pack(exported._replace(config=config_of(archive)), page)
    assert sorted(path.name for path in (page / "ort").iterdir()) == sorted([*web.NEEDED, *web.LICENCES])
    assert (page / "model.onnx").read_bytes() == exported.model.read_bytes()
    assert json.loads((page / "model.json").read_text())["metric_factor"] == METRIC_FACTOR
    described = json.loads((page / "page.json").read_text())
    shell, check = described["shell"], described["check"]
    assert {"./", "index.html", "app.js", "worker.js", "ort/ort.wasm.bundle.min.mjs", "model.json"} <= set(shell)
    assert all((page / name).exists() for name in shell)
    assert described["files"]["model.onnx"]["bytes"] == exported.model.stat().st_size
    assert described["on_processor"] == ["size", "sizes"]
    frame = web.check_frame(check["height_px"], check["width_px"])
    assert frame.shape == (96, 144, 3)
    assert check["values"] == frame[..., 1].ravel()[check["places"]].tolist()


def test_a_folder_of_the_package_or_its_dist_will_do(tmp_path):
    with tarfile.open(made_package(tmp_path / "package.tgz")) as archive:
        archive.extractall(tmp_path, filter="data")
    web.require(config_of(tmp_path / "package"))
    web.require(config_of(tmp_path / "package" / "dist"))


def test_what_is_not_the_package(tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(made_package(tmp_path / "package.tgz").read_bytes()[:200])
    other = made_package(tmp_path / "other.tgz", web.NEEDED[1:])
    cases = {
        tmp_path / "none": "--onnxruntime_web: no folder or archive",
        tmp_path / "empty": f"is not onnxruntime-web {web.VERSION}: no {web.NEEDED[0]} in its dist",
        other: f"is not onnxruntime-web {web.VERSION}: no {web.NEEDED[0]} in its dist",
        broken: "is not the archive of",
        Path(__file__): "is not the archive of .*; remove it",
    }
    for given, message in cases.items():
        with pytest.raises(InputError, match=message) as raised:
            web.require(config_of(given))
        assert f"npm pack {web.PACKAGE}" in str(raised.value)


def test_a_batch_of_several_images(tmp_path):
    config = replace(config_of(made_package(tmp_path / "package.tgz")), batch_size=4)
    with pytest.raises(InputError, match="--batch_size 4: the page shows one image at a time; leave it out"):
        web.require(config)
    web.require(replace(config, batch_size=1))


def fake_npm(folder: Path, script: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_npm_is_asked_once(tmp_path, monkeypatch):
    made_package(tmp_path / "package.tgz")
    fake_npm(tmp_path, f'/bin/cp {tmp_path}/package.tgz onnxruntime-web.tgz; echo "$@" >> {tmp_path}/asked')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    web.require(config_of(None))
    web.require(config_of(None))
    assert (tmp_path / "asked").read_text().splitlines() == [f"pack --loglevel=error {web.PACKAGE}"]
    assert [path.suffix for path in sorted((tmp_path / "cache" / "md-engine").iterdir()) if path.suffix != ".lock"] == [".tgz"]


def test_npm_that_is_missing_or_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"there is no npm to fetch it; install Node\.js, or fetch it elsewhere .* --onnxruntime_web"):
        web.require(config_of(None))
    fake_npm(tmp_path, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(InputError, match=r"npm could not fetch .*ENOTFOUND.*try again online, or fetch it elsewhere .* --onnxruntime_web"):
        web.require(config_of(None))
    assert not list((tmp_path / "cache").rglob("*.tgz"))
