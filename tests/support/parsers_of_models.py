"""The parsers of what training and export leave: weights, checkpoints, options, metrics, models in zips, ONNX files, scores, locks."""

import io
import json
import os
import socket
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from onnx_models import facts, save_onnx
from parser_entry import Parser
from safetensors.torch import save as save_tensors
from tiny_files import made_by
from torch import nn

from dataload.system.lock_files import read_holder
from engine.evaluation.config import EvalConfig
from engine.evaluation.run_facts import with_run_facts
from engine.fetching.hub import _is_our_layout
from engine.fetching.models import fetched
from engine.inference.depth_network import resnet_layers
from engine.run_options import number_in, run_options
from engine.sums import SUMS_FILE, digest_of, require_undamaged, sums_text
from engine.training.checkpoint import Position, latest_resumable, load_checkpoint, load_optimizer, save_checkpoint
from engine.training.config import TrainConfig, saved_options
from engine.training.log import _keep_before
from engine.weights import InputSize, load_weights, read_network, weights_folder
from export.choices import AssumedFacts
from export.conversion.facts import read_scores
from export.session import DepthSession
from splits.errors import InputError


class _Networks(nn.Module):
    """As small as something that every reader takes for an encoder and a depth decoder can be."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.depth = nn.Module(), nn.Module()
        self.encoder.encoder = nn.Module()
        self.encoder.encoder.conv1 = nn.Conv2d(1, 2, 1, bias=False)
        self.depth.decoder = nn.ModuleList([nn.ModuleDict({"conv": nn.ModuleDict({"conv": nn.Conv2d(2, 1, 1)})})])
        for number, parameter in enumerate(self.parameters()):
            nn.init.constant_(parameter, 0.1 * (number + 1))


NETWORKS = _Networks()
OPTIMIZER = torch.optim.Adam(NETWORKS.parameters(), 1e-4)
SCALER = torch.amp.GradScaler("cpu", enabled=False)
SIZE = InputSize(64, 96, False)


def _checkpoint(folder: Path) -> None:
    """A checkpoint with all its files, without the checksums by which any change would be seen before it is read."""
    networks = _Networks()
    optimizer = torch.optim.Adam(networks.parameters(), 1e-4)
    sum(parameter.sum() for parameter in networks.parameters()).backward()
    optimizer.step()
    save_checkpoint(folder / "models" / "weights_3", networks, SIZE, optimizer, SCALER, Position(4, 0, 12, samples=0))
    (folder / "models" / "weights_3" / SUMS_FILE).unlink()


def _file_of_checkpoint(name: str) -> list[bytes]:
    """As it is written, and in torch's older form, which is a pickle as it stands."""
    with TemporaryDirectory() as folder:
        _checkpoint(Path(folder))
        path = Path(folder) / "models" / "weights_3" / name
        return [path.read_bytes(), _as_pickle(torch.load(path))]


def _as_pickle(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def _read_checkpoint(path: Path) -> object:
    """As ``--resume``."""
    return load_checkpoint(latest_resumable(path.parents[1]), NETWORKS, OPTIMIZER, SCALER)


def _read_weights(path: Path) -> object:
    """As a run that starts from weights, and as prediction."""
    folder = weights_folder(path.parent)
    load_weights(NETWORKS, folder, ["encoder", "depth"])
    saved = read_network(folder, "encoder")
    with suppress(InputError):  # no real network is as small
        resnet_layers(saved)
    return saved.size_px(), saved.use_stereo


def _read_adam(path: Path) -> object:
    load_optimizer(OPTIMIZER, path.parent)
    return OPTIMIZER.state_dict()


def _legacy() -> list[bytes]:
    """Torch's older form, of tensors, and of numpy's arrays in a wrapper."""
    networks = _Networks()
    tensors = dict(networks.encoder.state_dict())
    return [
        _as_pickle(tensors | {"height": 64, "width": 96, "use_stereo": False}),
        _as_pickle({"state_dict": {key: value.numpy() for key, value in tensors.items()}, "epoch": np.int64(3)}),
    ]


def _safetensors() -> list[bytes]:
    tensors = dict(NETWORKS.state_dict())
    return [save_tensors(tensors, {"format": "pt", "height": "64", "width": "96", "use_stereo": "false"}), save_tensors(tensors)]


SUMMED = b"weights"


def _sums() -> list[bytes]:
    """Ours, and another program's."""
    digests = {"encoder.pth": digest_of(SUMMED), "depth.pth": digest_of(b"")}
    return [sums_text(digests).encode(), f"{digests['encoder.pth']} *encoder.pth\n".encode()]


def _summed(folder: Path) -> None:
    (folder / "encoder.pth").write_bytes(SUMMED)


# --- options


def _options() -> list[bytes]:
    config = TrainConfig.from_options(data_path="/data", model_name="run")
    theirs = {
        "data_path": "/d",
        "model_name": "mdp",
        "split": "eigen_zhou",
        "num_layers": 18,
        "dataset": "kitti",
        "png": False,
        "height": 192,
        "width": 640,
        "scales": [0, 1, 2, 3],
        "min_depth": 0.1,
        "max_depth": 100.0,
        "frame_ids": [0, -1, 1],
        "batch_size": 12,
        "learning_rate": 1e-4,
    }
    return [json.dumps(saved_options(config), indent=1).encode(), json.dumps(theirs).encode()]


def _resume(path: Path) -> object:
    return TrainConfig.from_options(log_dir=str(path.parents[2]), model_name=path.parents[1].name, resume=True)


EVALUATION = EvalConfig.from_options(load_weights_folder=["unused"], eval_mono=True, dataset="kitti", eval_split="eigen", min_depth=0.2)


def _evaluate_options(path: Path) -> object:
    """What evaluation, prediction and export take from a run's options."""
    options = run_options(path.parent)
    config = with_run_facts(EVALUATION, [path.parent])
    return config, [number_in(options, key, path.parent) for key in ("min_depth", "max_depth")]


def _metrics() -> list[bytes]:
    return [
        "".join(
            json.dumps({"mode": mode, "step": n, "epoch": 0, "loss": 0.1 * n}) + "\n" for n in range(4) for mode in ("train", "val")
        ).encode()
    ]


def _read_metrics(path: Path) -> object:
    return _keep_before(path, {"train": 2, "val": 3})


# --- models


def _zips() -> list[bytes]:
    found = []
    for folder in ("", "mono/"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if folder else zipfile.ZIP_STORED) as archive:
            for name in ("encoder", "depth"):
                saved = io.BytesIO()
                torch.save(getattr(NETWORKS, name).state_dict(), saved)
                archive.writestr(f"{folder}{name}.pth", saved.getvalue())
        found.append(out.getvalue())
    return found


def _read_zip(path: Path) -> object:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(path.parent / "cache")
    try:
        return fetched(path)
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


def _onnx(known: bool) -> Callable[[], list[bytes]]:
    if known:
        return lambda: (
            made_by(lambda path: save_onnx(path, facts()), "m.onnx")
            + made_by(lambda path: save_onnx(path, facts(preprocessing=True), size_px=("h", "w"), takes_bytes=True), "m.onnx")
        )
    return lambda: made_by(lambda path: save_onnx(path, None, more_outputs=2), "m.onnx")


def _predict(assumed: AssumedFacts | None) -> Callable[[Path], Any]:
    def read(path: Path) -> object:
        session = DepthSession(path, "cpu", assumed)
        return session.predict(np.full((1, 20, 30, 3), 100, np.uint8))

    return read


def _scores() -> list[bytes]:
    model = {"abs_rel": 0.115, "sq_rel": 0.9, "rmse": 4.8, "median_ratio": 5.4}
    return [json.dumps({"models": [model], "settings": {"eval_split": "eigen"}}).encode()]


def _hub_config() -> list[bytes]:
    return [json.dumps({"architecture": {"encoder": "resnet18"}, "weights": {"file": "model.safetensors"}, "height_px": 64}).encode()]


def _holder() -> list[bytes]:
    facts = {"command": "md-train", "pid": 5, "host": socket.gethostname(), "since": "now", "folder": True}
    return [json.dumps(facts).encode()]


def _read_lock(path: Path) -> object:
    """Who holds it, in words, and whether that process is gone."""
    holder = read_holder(path)
    return None if holder is None else (str(holder), holder.is_gone)


PARSERS = (
    Parser(
        name="encoder_pth",
        modules=["engine.torch_file", "engine.weights", "engine.saved_forms"],
        place="models/weights_3/encoder.pth",
        form="zip",
        seeds=lambda: _file_of_checkpoint("encoder.pth")[:1],
        read=_read_weights,
        around=_checkpoint,
        named=("weights_3",),
        cheap=False,
    ),
    Parser(
        name="encoder_legacy",
        modules=["engine.torch_file"],
        place="models/weights_3/encoder.pth",
        form="pickle",
        seeds=_legacy,
        read=_read_weights,
        around=_checkpoint,
        named=("weights_3",),
        cheap=False,
    ),
    Parser(
        name="safetensors",
        modules=["engine.torch_file"],
        place="model.safetensors",
        form="safetensors",
        seeds=_safetensors,
        read=_read_weights,
        named=("model.safetensors", "weights folder", "has no depth.pth", "has no encoder.pth"),
    ),
    Parser(
        name="adam_pth",
        modules=["engine.training.checkpoint"],
        place="models/weights_3/adam.pth",
        form="zip",
        seeds=lambda: _file_of_checkpoint("adam.pth")[:1],
        read=_read_adam,
        around=_checkpoint,
        cheap=False,
    ),
    Parser(
        name="adam_legacy",
        modules=["engine.training.checkpoint"],
        place="models/weights_3/adam.pth",
        form="pickle",
        seeds=lambda: _file_of_checkpoint("adam.pth")[1:],
        read=_read_adam,
        around=_checkpoint,
        cheap=False,
    ),
    Parser(
        name="state_pt",
        modules=["engine.training.checkpoint"],
        place="models/weights_3/state.pt",
        form="zip",
        seeds=lambda: _file_of_checkpoint("state.pt")[:1],
        read=_read_checkpoint,
        around=_checkpoint,
        cheap=False,
    ),
    Parser(
        name="state_legacy",
        modules=["engine.training.checkpoint"],
        place="models/weights_3/state.pt",
        form="pickle",
        seeds=lambda: _file_of_checkpoint("state.pt")[1:],
        read=_read_checkpoint,
        around=_checkpoint,
        cheap=False,
    ),
    Parser(
        name="opt_json_resume", modules=["engine.training.config"], place="run/models/opt.json", form="json", seeds=_options, read=_resume
    ),
    Parser(
        name="sums",
        modules=["engine.sums"],
        place="SHA256SUMS",
        form="text",
        seeds=_sums,
        read=lambda path: require_undamaged(path.with_name("encoder.pth")),
        around=_summed,
    ),
    Parser(name="opt_json", modules=["engine.run_options"], place="models/opt.json", form="json", seeds=_options, read=_evaluate_options),
    Parser(name="metrics", modules=["engine.training.log"], place="metrics.jsonl", form="json", seeds=_metrics, read=_read_metrics),
    Parser(
        name="model_zip",
        modules=["engine.fetching.models"],
        place="model.zip",
        form="zip",
        seeds=_zips,
        read=_read_zip,
        clears=["cache"],
        cheap=False,
        named=("model.zip", "cache/"),
    ),
    Parser(
        name="onnx",
        modules=["export.runtime.onnx_file", "export.runtime.model_facts"],
        place="model.onnx",
        form="onnx",
        seeds=_onnx(known=True),
        read=_predict(None),
        cheap=False,
    ),
    Parser(
        name="onnx_foreign",
        modules=["export.runtime.onnx_file"],
        place="model.onnx",
        form="onnx",
        seeds=_onnx(known=False),
        read=_predict(AssumedFacts(output="inv_depth")),
        cheap=False,
    ),
    Parser(name="scores", modules=["export.conversion.facts"], place="scores.json", form="json", seeds=_scores, read=read_scores),
    Parser(name="hub_config", modules=["engine.fetching.hub"], place="config.json", form="json", seeds=_hub_config, read=_is_our_layout),
    Parser(name="lock", modules=["dataload.system.lock_files"], place=".out.lock", form="json", seeds=_holder, read=_read_lock),
)
