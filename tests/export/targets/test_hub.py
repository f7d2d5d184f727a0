"""The hub's folder: weights that load again bit by bit, a card whose programs run, scores as measured, nothing of this machine."""

import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from published import networks_of
from safetensors import safe_open

from engine.fetching.hub import SAFETENSORS_FILE
from engine.geometry import disp_to_depth
from engine.inference.depth_network import load_depth_network
from engine.weights import InputSize, load_weights, save_weights
from export.commands.md_predict import md_predict
from export.config import ExportConfig
from export.conversion.to_onnx import OPSET, depth_onnx
from export.runtime.model_facts import ModelFacts
from export.targets import hub
from splits.errors import InputError

SIZE_PX = (64, 96)
OPTIONS = {
    "data_path": "/home/someone/kitti_data", "split": "/home/someone/split", "log_dir": "C:\\runs", "dataset": "demo",
    "frame_ids": [0, -1, 1], "min_depth": 0.2, "max_depth": 50.0, "learning_rate": 1e-4, "load_weights_folder": None,
}  # fmt: skip
SCORES = {
    "settings": {"eval_split": "/home/someone/splits/streets", "max_gt_m": 80.0, "crop": None, "alignment": "median"},
    "models": [
        {"name": "/home/someone/run", "num_images": 25, "abs_rel": 0.1234567, "rmse": float("nan"), "a1": 0.87, "median_ratio": 31.4}
    ],
}
LICENCE = "trained on images rendered by this engine"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
LFS_FREE_MAX_BYTES = 10 * 2**20


def packed(folder: Path, *, scores: dict[str, Any] | None = None, batch_size: int | None = None, **facts: Any) -> SimpleNamespace:
    """An export of an untrained network, packed into ``folder/model``; ``facts`` as of ``ModelFacts``."""
    torch.manual_seed(0)
    stereo = facts.get("metric_factor") is not None
    save_weights(folder / "run" / "models" / "weights_0", networks_of(frame_ids=(0,), use_stereo=True), InputSize(*SIZE_PX, stereo))
    (folder / "run" / "models" / "opt.json").write_text(json.dumps(OPTIONS))
    network = load_depth_network(folder / "run")
    told = ModelFacts(
        height_px=SIZE_PX[0],
        width_px=SIZE_PX[1],
        min_depth=0.2,
        max_depth=50.0,
        opset=OPSET,
        source="monodepth-engine",
        licence=LICENCE,
        **facts,
    )
    depth_onnx(network, told, folder / "made.onnx", batch_size=batch_size)
    (folder / "pose.onnx").write_bytes(b"a pose network")
    config = ExportConfig(weights=folder / "run", out=folder / "model", target="hub", batch_size=batch_size)
    exported = SimpleNamespace(
        config=config, network=network, facts=told, model=folder / "made.onnx", pose=folder / "pose.onnx" if scores else None,
        parity="images   mean\n4 real   0.0000%", scores=scores,
    )  # fmt: skip
    config.out.mkdir()
    hub.pack(exported, config.out)
    return exported


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return packed(tmp_path_factory.mktemp("scored"), scores=SCORES, training="mono", median_ratio=31.4)


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Without scores; a graph of its own preprocessing for two frames at once, in metres."""
    folder = tmp_path_factory.mktemp("metric")
    return packed(folder, batch_size=2, preprocessing=True, training="stereo", output="depth_m", metric_factor=5.4)


def card(exported: SimpleNamespace) -> str:
    return (exported.config.out / "README.md").read_text()


def test_all_that_is_large_goes_to_lfs_and_nothing_tells_of_this_machine(scored, metric):
    usual = {".gitattributes", "LICENSE", "SHA256SUMS", "README.md", "config.json", "model.onnx", "model.safetensors", "opt.json"}
    for exported, extra in ((scored, {"pose.onnx"}), (metric, set())):
        folder = exported.config.out
        assert {path.name for path in folder.iterdir()} == usual | extra
        kept_by_lfs = {line.split()[0].removeprefix("*") for line in (folder / ".gitattributes").read_text().splitlines()}
        for path in folder.iterdir():
            assert path.suffix in kept_by_lfs or path.stat().st_size < LFS_FREE_MAX_BYTES
            if path.suffix != ".onnx":
                content = path.read_bytes()
                places = (b"someone", b":\\\\runs", str(folder.parent).encode(), str(Path.home()).encode())
                assert not any(place in content for place in places)


def test_weights_load_again_bit_by_bit_with_their_facts(scored, metric):
    for exported in (scored, metric):
        again, before = load_depth_network(exported.config.out), exported.network
        assert (again.size_px, again.use_stereo) == (SIZE_PX, before.use_stereo)
        assert (again.min_depth, again.max_depth, again.depth.scales) == (0.2, 50.0, before.depth.scales)
        assert again.state_dict().keys() == before.state_dict().keys()
        for key, value in before.state_dict().items():
            assert torch.equal(value, again.state_dict()[key]), key
            assert value.dtype == again.state_dict()[key].dtype


def test_md_predict_and_training_take_the_folder_as_weights(scored, tmp_path):
    Image.effect_noise((96, 64), 60).convert("RGB").save(tmp_path / "photo.png")
    for name, model in (("ours", scored.config.out), ("theirs", scored.config.weights)):
        arguments = ["--image", tmp_path / "photo.png", "--model", model, "--out", tmp_path / name, "--format", "npy", "--no_cuda"]
        done = CliRunner().invoke(md_predict, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
    ours, theirs = (np.load(tmp_path / name / "photo_disp.npy") for name in ("ours", "theirs"))
    assert np.array_equal(ours, theirs)
    networks = networks_of()
    assert load_weights(networks, scored.config.out, ["encoder", "depth"]) == ["encoder", "depth"]
    assert torch.equal(
        networks.depth.state_dict()["decoder.3.conv.conv.weight"], scored.network.state_dict()["depth.decoder.3.conv.conv.weight"]
    )
    with pytest.raises(
        InputError, match=r"has no pose_encoder\.pth and no pose\.pth; load the others with --models_to_load encoder depth$"
    ):
        load_weights(networks, scored.config.out, ["encoder", "depth", "pose_encoder", "pose"])


def test_the_same_weights_are_the_same_bytes(scored, tmp_path):
    """safetensors writes its metadata in another order each time."""
    for _ in range(8):
        hub.save_safetensors(tmp_path / SAFETENSORS_FILE, scored.network)
        assert (tmp_path / SAFETENSORS_FILE).read_bytes() == (scored.config.out / SAFETENSORS_FILE).read_bytes()
    with safe_open(tmp_path / SAFETENSORS_FILE, "pt") as file:
        assert file.metadata() == {"format": "pt", "height": "64", "width": "96", "use_stereo": "false"}
        assert set(file.keys()) == set(scored.network.state_dict())


def test_a_damaged_file_is_named(scored, tmp_path):
    whole = (scored.config.out / SAFETENSORS_FILE).read_bytes()
    (tmp_path / SAFETENSORS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors is corrupt or no weights file .*; copy or download it again"):
        load_depth_network(tmp_path)


@pytest.mark.parametrize("name", ["scored", "metric"])
def test_the_programs_of_the_card_run_as_they_stand(name, request, tmp_path, monkeypatch):
    exported = request.getfixturevalue(name)
    by_onnx, by_torch = PYTHON.findall(card(exported))
    Image.effect_noise((124, 75), 60).convert("RGB").save(tmp_path / "photo.jpg")
    (tmp_path / "model.onnx").symlink_to(exported.config.out / "model.onnx")
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(by_onnx, names)
    monkeypatch.chdir(exported.config.out)
    exec(by_torch, names)
    resized = Image.open(tmp_path / "photo.jpg").convert("RGB").resize(SIZE_PX[::-1], Image.Resampling.LANCZOS)
    images = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None] / 255
    inv_depth, depth = disp_to_depth(names["network"](images), 0.2, 50.0)
    expected = inv_depth if name == "scored" else 5.4 * depth
    np.testing.assert_allclose(names[exported.facts.output], expected[0, 0].numpy(), rtol=1e-3)


def test_config_says_what_the_graph_takes(scored, metric):
    for exported in (scored, metric):
        told = json.loads((exported.config.out / "config.json").read_text())["onnx"]
        session = onnxruntime.InferenceSession(exported.config.out / told["file"], providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0]
        assert told["input"]["name"] == given.name
        assert {"float32": "tensor(float)", "uint8": "tensor(uint8)"}[told["input"]["dtype"]] == given.type
        assert told["input"]["batch_size"] == (given.shape[0] if isinstance(given.shape[0], int) else "any")
        assert told["output"]["name"] == session.get_outputs()[0].name
    assert json.loads((scored.config.out / "config.json").read_text())["median_ratio"] == 31.4


def test_scores_are_those_of_the_evaluation_and_never_others(scored, metric):
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(card(scored).split("---\n")[1])
    assert front["pipeline_tag"] == "depth-estimation"
    assert front["license_link"] == "LICENSE"
    (result,) = front["model-index"][0]["results"]
    assert {m["type"]: m["value"] for m in result["metrics"]} == {"abs_rel": 0.1234567, "a1": 0.87}  # rmse was no number
    assert result["dataset"]["type"] == "streets"
    text = card(scored)
    assert "on 25 images of the test list streets" in text
    assert "| abs_rel | 0.1235 | lower |" in text
    assert "where it was evaluated, a unit was 31.400 metres in the median" in text
    assert "md-eval" in card(metric)
    assert "No scores were given. To add them: `md-eval" in card(metric)
    assert "model-index" not in yaml.safe_load(card(metric).split("---\n")[1])


def test_the_card_tells_training_parity_and_licence(scored, metric):
    for exported in (scored, metric):
        assert exported.parity in card(exported)
        assert f"Of the weights: {LICENCE}." in card(exported)
        assert "| learning_rate | 0.0001 |" in card(exported)
        assert "| frame_ids | 0 -1 1 |" in card(exported)
    assert "its unit is unknown" in card(scored)
    assert "The output is metres already." in card(metric)


def test_a_missing_package_is_found_before_the_work(monkeypatch, scored):
    hub.require(scored.config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--target hub needs the package safetensors: pip install safetensors"):
        hub.require(scored.config)


HOSTILE = "a|b `c` <script>alert(1)</script> [d](https://evil.example) ![](x) **e** www.evil.example $f$\n---\n# g\x1b[31m: {{ h }} @i"


def test_what_the_card_quotes_makes_no_markup(scored: SimpleNamespace) -> None:
    import yaml

    scores = {
        "settings": {"eval_split": HOSTILE.replace("/", "_"), HOSTILE: "value", "alignment": HOSTILE.replace("/", "_")},
        "models": [{"num_images": HOSTILE, "abs_rel": 0.5, "median_ratio": None}],
    }
    exported = SimpleNamespace(**vars(scored) | {"scores": scores})
    exported.facts = ModelFacts(height_px=64, width_px=96, licence=HOSTILE, source=HOSTILE)
    exported.config = ExportConfig(weights=scored.config.weights, out=Path(HOSTILE.replace("/", "_")), target="hub")
    card = hub.model_card(exported, {"dataset": HOSTILE, "frame_ids": [0, HOSTILE], "seed": {HOSTILE: HOSTILE}})
    plain = hub.model_card(
        SimpleNamespace(**vars(exported) | {"facts": ModelFacts(height_px=64, width_px=96)}), {"dataset": "a", "frame_ids": [0], "seed": 1}
    )
    _, front, body = card.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"library_name", "pipeline_tag", "license", "license_name", "license_link", "tags", "model-index"}
    assert body.count("\n") == plain.split("---\n", 2)[2].count("\n"), "a quoted text begins no line of its own"
    for mark in ("<script", "[d](", "![](", "**e**", "`c`", " $f$", "https://evil", " www.evil", "\x1b", "a|b"):
        assert mark not in body, mark
    rows = [line for line in body.splitlines() if line.startswith("| ") and "|" in line]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 4) for row in rows)
