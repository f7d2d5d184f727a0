"""Monodepth2's documented commands of evaluation and prediction, word for word but for the program's name, on a tree of its layout."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from kitti_tree import DATE, drive_folder, write_calibration
from PIL import Image
from published import networks_of

from dataload.commands.md_data import md_data
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.kitti_depth import KittiDepth
from dataload.frames.frame_ref import FrameRef, parse_split
from engine.commands.md_eval import md_eval
from engine.weights import InputSize, save_weights
from export.commands.md_predict import md_predict
from splits import read_lines

COMMANDS: dict[str, click.Command] = {"md-data": md_data, "md-eval": md_eval, "md-predict": md_predict}
NATIVE_PX = (75, 248)
# The least that networks take: two thousand images go through one.
INPUT_PX = (64, 64)


def run(line: str) -> Result:
    name, *arguments = line.split()
    result = CliRunner().invoke(COMMANDS[name], arguments)
    assert result.exit_code == 0, (line, result.output)
    return result


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.fixture(scope="module")
def place(kitti_tree: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with ``kitti_data``: every image, scan and annotated depth of the Eigen test lists, and weights of three models."""
    tree, place = kitti_tree(size_px=NATIVE_PX), tmp_path_factory.mktemp("place")
    first = FrameRef(drive_folder("0001"), 1, "l")
    raw = KittiRaw(place / "kitti_data", ".jpg")
    annotated = place / "annotated.png"
    Image.fromarray(np.random.default_rng(0).integers(256, 60 * 256, NATIVE_PX).astype(np.uint16)).save(annotated)
    for ref in parse_split(read_lines("eigen", "test"), source="test"):
        link(raw.image_path(ref), KittiRaw(tree, ".jpg").image_path(first))
        link(raw.scan_path(ref), KittiRaw(tree, ".jpg").scan_path(first))
    for ref in parse_split(read_lines("eigen_benchmark", "test"), source="test"):
        link(KittiDepth(place / "kitti_data", ".jpg").depth_places(ref)[0], annotated)
    for date in ("2011_09_26", "2011_09_28", "2011_09_29", "2011_09_30", "2011_10_03"):
        write_calibration(place / "kitti_data" / date, NATIVE_PX)
    assert (tree / DATE).is_dir()
    torch.manual_seed(0)
    networks = networks_of(frame_ids=(0,), use_stereo=True)
    for model in ("tmp/mono_model/models/weights_19", "tmp/stereo_model/models/weights_19", "models/mono+stereo_640x192"):
        (place / model).parent.mkdir(parents=True, exist_ok=True)
        save_weights(place / model, networks, InputSize(*INPUT_PX, "stereo" in model))
    return place


def test_ground_truth_and_depth(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    run("md-data gt --data_path kitti_data --split eigen")
    run("md-data gt --data_path kitti_data --split eigen_benchmark")
    mono = run("md-eval --load_weights_folder tmp/mono_model/models/weights_19/ --eval_mono --save_pred_disps --json mono.json")
    assert " Scaling ratios | med: " in mono.output
    stereo = run("md-eval --load_weights_folder tmp/stereo_model/models/weights_19/ --eval_stereo --json stereo.json")
    assert "Scaling" not in stereo.output
    disps = "tmp/mono_model/models/weights_19/disps_eigen_split.npy"
    run(f"md-eval --ext_disp_to_eval {disps} --json ext.json")
    run(f"md-eval --ext_disp_to_eval {disps} --eval_mono --eval_split eigen_benchmark --eval_eigen_to_benchmark --json mapped.json")
    run("md-eval --load_weights_folder tmp/mono_model/models/weights_19/ --eval_mono --eval_split eigen_benchmark --json direct.json")
    scores = {path.stem: json.loads(path.read_text())["models"][0] for path in place.glob("*.json")}
    assert scores["ext"]["abs_rel"] == pytest.approx(scores["mono"]["abs_rel"], rel=1e-6)
    assert scores["mapped"]["abs_rel"] == pytest.approx(scores["direct"]["abs_rel"], rel=1e-5)
    assert scores["mapped"]["num_images"] == 652
    assert scores["stereo"]["abs_rel"] != scores["mono"]["abs_rel"]


def test_a_single_image(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "assets").mkdir()
    Image.new("RGB", (248, 75), (90, 120, 60)).save("assets/test_image.jpg")
    run("md-predict --image_path assets/test_image.jpg --model_name mono+stereo_640x192")
    assert np.load("assets/test_image_disp.npy").shape == (1, 1, *INPUT_PX)
    with Image.open("assets/test_image_disp.jpeg") as picture:
        assert picture.size == (248, 75)
    run("md-predict --image_path assets --ext jpg --model_name mono+stereo_640x192 --pred_metric_depth --no_cuda")
    depth_m, inv_depth = np.load("assets/test_image_depth.npy"), np.load("assets/test_image_disp.npy")
    np.testing.assert_allclose(depth_m, 5.4 / inv_depth, rtol=1e-5)
