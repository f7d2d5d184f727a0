"""Weights as people save them: one reader for every command, and true reasons where it refuses."""

import argparse
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import SIZE, stereo_networks

from engine import weights
from engine.inference.depth_network import load_depth_network
from engine.networks import Networks
from engine.sums import SUMS_FILE
from splits.errors import InputError

State = dict[str, Any]


@pytest.fixture(scope="module")
def networks() -> Networks:
    return stereo_networks()


@pytest.fixture
def folder(tmp_path: Path, networks: Networks) -> Path:
    """As others leave it: without checksums."""
    weights.save_weights(tmp_path / "w", networks, SIZE)
    (tmp_path / "w" / SUMS_FILE).unlink()
    return tmp_path / "w"


def resave(folder: Path, change: Callable[[State], Any], *names: str) -> None:
    for name in names or ("encoder", "depth"):
        path = folder / f"{name}.pth"
        torch.save(change(torch.load(path, weights_only=True)), path)


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{key}" if torch.is_tensor(value) else key: value for key, value in state.items()}


def without(*words: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not any(word in key for word in words)}


FORMS: dict[str, Callable[[State], Any]] = {
    "DataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "a model's": prefixed("model.net."),
    "inside": lambda state: {key.replace("layer1.", "layer1.module."): value for key, value in state.items()},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"step": 1}}, "param_groups": []}},
    "unknown wrapper": lambda state: {"my_net": {"inner": prefixed("module.")(state)}, "height": state.get("height")},
    "ema beside": lambda state: {"model": state, "model_ema": {k: torch.zeros_like(v) for k, v in state.items() if torch.is_tensor(v)}},
    "no counters": without("num_batches_tracked"),
    "no classifier": without("fc."),
    "other classifier": lambda state: state | ({"encoder.fc.weight": torch.zeros(10, 512)} if "height" in state else {}),
    "thop": lambda state: state | {"total_ops": torch.zeros(1), "total_params": torch.zeros(1), "encoder.total_ops": torch.zeros(1)},
    "numpy arrays": lambda state: {key: value.numpy() if torch.is_tensor(value) else value for key, value in state.items()},
    "float64": lambda state: {key: value.double() if torch.is_tensor(value) else value for key, value in state.items()},
    "options beside": lambda state: state | {"opt": argparse.Namespace(lr=1e-4, log_dir=Path("runs"), size=np.float32(1))},
    "parameters": lambda state: {
        key: torch.nn.Parameter(v) if torch.is_tensor(v) and v.is_floating_point() else v for key, v in state.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_read(form: str, folder: Path, networks: Networks) -> None:
    resave(folder, FORMS[form])
    network = load_depth_network(folder)
    assert network.size_px == SIZE[:2]
    for own, read in ((networks.encoder, network.encoder), (networks.depth, network.depth)):
        for (key, expected), value in zip(own.state_dict().items(), read.state_dict().values(), strict=True):
            assert "fc." in key or torch.equal(expected, value), key


@pytest.mark.parametrize(
    ("height", "width"),
    [("64", "96"), (np.int64(64), np.int32(96)), (torch.tensor(64), torch.tensor([96])), (64.0, np.float64(96)), (np.uint8(64), " 96.0 ")],
)
def test_sizes_as_they_are_saved(height: Any, width: Any, folder: Path) -> None:
    resave(folder, lambda state: state | {"height": height, "width": width, "use_stereo": np.bool_(True)}, "encoder")
    network = load_depth_network(folder)
    assert (network.size_px, network.use_stereo) == ((64, 96), True)


@pytest.mark.parametrize(
    "size", [(100, 300), (0, 96), (-64, 96), ("tall", 96), (64, None), (float("nan"), 96), (64.5, 96), (10**7 * 32, 96), (True, 96)]
)
def test_sizes_that_are_none_are_refused_or_given(size: tuple[Any, Any], folder: Path) -> None:
    resave(folder, lambda state: state | {"height": size[0], "width": size[1]}, "encoder")
    with pytest.raises(InputError, match=r"encoder\.pth records"):
        load_depth_network(folder)
    assert load_depth_network(folder, size_px=(64, 128)).size_px == (64, 128)


def test_a_size_that_is_missing_is_the_runs_or_given(folder: Path) -> None:
    resave(folder, without("height", "width"), "encoder")
    with pytest.raises(InputError, match=r"does not record its input size; give .* --height and --width"):
        load_depth_network(folder)
    assert load_depth_network(folder, size_px=(64, 128)).size_px == (64, 128)
    (folder / "opt.json").write_text('{"height": 96, "width": 160}')
    assert load_depth_network(folder).size_px == (96, 160)


@pytest.mark.parametrize("ending", [".pt", ".pth.tar", ".tar", ".ckpt", ".safetensors"])
def test_endings(ending: str, folder: Path) -> None:
    from safetensors.torch import save_file

    for name in ("encoder", "depth"):
        path = folder / f"{name}.pth"
        if ending == ".safetensors":
            state = torch.load(path, weights_only=True)
            save_file({k: v for k, v in state.items() if torch.is_tensor(v)}, folder / f"{name}{ending}", {"height": "64", "width": "96"})
            path.unlink()
        else:
            path.rename(folder / f"{name}{ending}")
    for given in (folder, folder / f"encoder{ending}", folder / f"depth{ending}"):
        assert weights.weights_folder(given) == folder
    assert load_depth_network(folder).size_px == SIZE[:2]


def test_the_form_of_old_torch(folder: Path) -> None:
    for name in ("encoder", "depth"):
        state = torch.load(folder / f"{name}.pth", weights_only=True)
        torch.save(state, folder / f"{name}.pth", _use_new_zipfile_serialization=False)
    assert load_depth_network(folder).size_px == SIZE[:2]


@pytest.mark.parametrize("form", ["by name", "by prefix", "in a module"])
def test_one_file_of_all_networks(form: str, folder: Path, networks: Networks) -> None:
    states = {name: torch.load(folder / f"{name}.pth", weights_only=True) for name in ("encoder", "depth")}
    sizes = {"height": 64, "width": 96}
    tensors = {name: {key: value for key, value in state.items() if torch.is_tensor(value)} for name, state in states.items()}
    flat = {f"{name}.{key}": value for name, state in tensors.items() for key, value in state.items()}
    content = {
        "by name": {"epoch": 1, "models": states},
        "by prefix": flat | sizes,
        "in a module": {"state_dict": prefixed("module.")(flat)} | sizes,
    }
    path = folder.parent / "all.ckpt"
    torch.save(content[form], path)
    network = load_depth_network(path)
    assert network.size_px == (64, 96)
    assert torch.equal(network.depth.state_dict()["decoder.0.conv.conv.weight"], networks.depth.state_dict()["decoder.0.conv.conv.weight"])
    assert weights.has_weights(path, "encoder")
    assert not weights.has_weights(path, "pose")
    assert weights.load_weights(stereo_networks(), path, ["encoder", "depth"]) == ["encoder", "depth"]


def test_two_sets_that_nothing_tells_apart_are_refused(folder: Path) -> None:
    resave(folder, lambda state: {"first": state, "second": dict(state)}, "depth")
    with pytest.raises(InputError, match=r"depth\.pth holds several networks that may be depth: first, second"):
        load_depth_network(folder)


def test_what_a_fine_tuning_lacks_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    resave(folder, without("layer4"), "encoder")
    weights.load_weights(stereo_networks(), folder, ["encoder"])
    assert "lacks 25 tensors of encoder, first encoder.layer4.0.conv1.weight: they keep their initial values" in caplog.text


def with_first(tensor: torch.Tensor) -> Callable[[State], State]:
    return lambda state: state | {"encoder.conv1.weight": tensor}


FIRST = torch.zeros(64, 3, 7, 7)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "web page": (lambda p: p.write_text("\n<!DOCTYPE html><html>"), "it is a web page, as a failed download leaves"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "Git LFS pointer.*git lfs pull"),
    "onnx": (lambda p: p.write_bytes(b"\x08\x0a\x12\x07pytorch"), "looks like an ONNX file"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(40)), "compressed by gzip"),
    "half": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "as where it was cut off"),
    "npz": (lambda p: np.savez(p.open("wb"), a=np.zeros(3)), r"a zip archive of a\.npy"),
    "program": (lambda p: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), p), "TorchScript program"),
    "protocol 4": (lambda p: torch.save({"a": torch.zeros(1)}, p, pickle_protocol=4), "pickle_protocol 4"),
    "code": (lambda p: torch.save({"x": Fraction(1, 2)}, p), r"holds a Python object, fractions\.Fraction, which is not unpacked"),
    "depth": (lambda p: p.write_bytes((p.parent / "depth.pth").read_bytes()), "holds no ResNet.*, but a depth decoder"),
    "Lite-Mono": (lambda p: torch.save({"downsample_layers.0.0.conv.weight": torch.zeros(1)}, p), "it is Lite-Mono"),
    "a list": (lambda p: torch.save([torch.zeros(1)], p), "it holds no tensors"),
    "integers": (lambda p: resave(p.parent, with_first(FIRST.to(torch.int8)), "encoder"), "plain floats"),
    "8 bits": (lambda p: resave(p.parent, with_first(FIRST.to(torch.float8_e4m3fn)), "encoder"), "float8.* plain floats"),
    "nested": (lambda p: resave(p.parent, with_first(torch.nested.nested_tensor([FIRST])), "encoder"), "it holds nested tensors"),
    "infinite in 32 bits": (lambda p: resave(p.parent, with_first(FIRST.double() + 1e300), "encoder"), "9408 of 9408 numbers .* infinite"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_for_the_true_reason(kind: str, folder: Path) -> None:
    spoil, why = REFUSED[kind]
    spoil(folder / "encoder.pth")
    with pytest.raises(InputError, match=f"encoder.pth.*{why}") as refused:
        load_depth_network(folder)
    assert "\n" not in str(refused.value)


class _Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_no_code_is_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resave(folder, lambda state: state | {"opt": _Command()}, "encoder")
    with pytest.raises(InputError, match=r"holds a Python object, (posix|nt|os)\.system, which is not unpacked"):
        load_depth_network(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_end_in_one_line(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / "encoder.pth"
    torch.save(
        {"encoder.conv1.weight": torch.zeros(2, 2), "height": np.int64(64), "opt": argparse.Namespace(a=1)},
        path,
        _use_new_zipfile_serialization=seed % 2 == 0,
    )
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        damaged[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged[: rng.integers(1, len(whole) + 1) if rng.random() < 0.3 else len(whole)].tobytes())
        with pytest.raises(InputError) as refused:  # whole, it is no encoder either
            load_depth_network(tmp_path)
        assert "\n" not in str(refused.value)
