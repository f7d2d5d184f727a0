"""hf:USER/REPO against a hub on this machine, asked by huggingface_hub itself: what --target hub writes is read by every command."""

import json
import shutil
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hub_server import HubServer
from predicting import run, save_image, save_model
from serving import serving

from engine.commands.md_eval import md_eval
from engine.fetching.models import fetched
from engine.weights import weights_folder
from export.commands.md_export import md_export
from export.prediction.models import find_model
from splits.errors import InputError

pytest.importorskip("huggingface_hub")
NAME = "hf:someone/street-depth"
REPO = "someone/street-depth"
FETCHED = ["SHA256SUMS", "config.json", "model.safetensors", "opt.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What md-export --target hub writes of a small untrained network."""
    model = save_model(tmp_path_factory.mktemp("model"), use_stereo=True)
    out = tmp_path_factory.mktemp("made") / "street-depth"
    result = CliRunner().invoke(md_export, ["--load_weights_folder", str(model), "--target", "hub", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def use_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    """Point huggingface_hub, which reads its settings when it is imported, to a hub and an own cache."""
    for name, value in {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    server = HubServer()
    use_hub(monkeypatch, tmp_path, server.url)
    monkeypatch.chdir(tmp_path)
    with serving(server):
        yield server


def test_a_model_of_a_hub_predicts_as_the_folder_it_was_made_of(server: HubServer, folder: Path, tmp_path: Path) -> None:
    commit = server.add(REPO, folder, "main")
    image = save_image(tmp_path / "a.jpg")
    for model, out in ((NAME, "hub"), (folder, "local")):
        result = run("--image", image, "--model", model, "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
        assert (f"Fetching {NAME}, commit {commit[:12]}" in result.output) == (out == "hub")
    hub, local = (np.load(tmp_path / out / "a_disp.npy") for out in ("hub", "local"))
    np.testing.assert_array_equal(hub, local)
    assert sorted(server.sent) == FETCHED  # neither the ONNX file nor the card
    again = run("--image", image, "--model", NAME)
    assert again.exit_code == 0, again.output
    assert "Fetching" not in again.output
    assert sorted(server.sent) == FETCHED


def test_a_branch_a_tag_and_a_commit(server: HubServer, folder: Path, tmp_path: Path) -> None:
    first = server.add(REPO, folder, "v1.0")
    newer = Path(shutil.copytree(folder, tmp_path / "newer"))
    options = json.loads((newer / "opt.json").read_text())
    (newer / "opt.json").write_text(json.dumps({**options, "max_depth": 50.0}))
    second = server.add(REPO, newer, "main")
    for revision, commit in (("@v1.0", first), ("", second), (f"@{first}", first), (f"@{second}", second)):
        assert fetched(Path(NAME + revision)).name == commit


def test_without_a_connection_what_was_fetched_is_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HubServer()
    use_hub(monkeypatch, tmp_path, server.url)
    with serving(server):
        server.add(REPO, folder, "main")
        there = fetched(Path(NAME))
    assert fetched(Path(NAME)) == there
    with pytest.raises(InputError, match=r"hf:someone/other cannot be fetched: no connection to http://127.0.0.1:\d+, and it was not"):
        fetched(Path("hf:someone/other"))


def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), None) as closed:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{closed.server_port}"
    use_hub(monkeypatch, tmp_path, url)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", NAME)
    assert result.exit_code == 1
    assert result.output == (f"Error: {NAME} cannot be fetched: no connection to {url}, and it was not fetched before; try again online\n")


def test_offline_by_choice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    with pytest.raises(InputError, match=rf"{NAME} cannot be fetched: HF_HUB_OFFLINE is set, and it was not fetched before; unset it"):
        fetched(Path(NAME))


def test_what_a_hub_refuses(server: HubServer, folder: Path) -> None:
    server.add(REPO, folder, "main")
    server.add("someone/gated", folder, "main")
    server.gated.add("someone/gated")
    cases = {
        "hf:someone/nothing": f"{server.url} has no such repository, or it is private; check the name, or: hf auth login",
        "hf:someone/gated": f"is gated: ask for access on {server.url}/someone/gated, then log in with: hf auth login",
        f"{NAME}@v9": f"the repository has no revision v9; leave it out, or choose one on {server.url}/{REPO}/commits/main",
        "hf:street-depth": "is no name of a hub's model; write hf:USER/REPO, or hf:USER/REPO@REVISION",
        "hf:user/modèle": "is no name of a hub's model; write hf:USER/REPO",
        "hf:../..": "is no name of a hub's model; write hf:USER/REPO",
        "hf:-user/model": "is no name of a hub's model; write hf:USER/REPO",
        "hf:a/b/c": "is no name of a hub's model; write hf:USER/REPO",
        "hf:": "is no name of a hub's model; write hf:USER/REPO",
    }
    for name, message in cases.items():
        with pytest.raises(InputError) as error:
            fetched(Path(name))
        assert name in str(error.value)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    server.status = 503
    with pytest.raises(InputError, match=r"hf:someone/new cannot be fetched: http://127.0.0.1:\d+ answers 503; try again later"):
        fetched(Path("hf:someone/new"))
    assert server.sent == []


def test_another_layout_is_told_before_its_weights_are_fetched(server: HubServer, folder: Path, tmp_path: Path) -> None:
    for name, config in (("none", None), ("other", '{"architectures": ["BertModel"]}'), ("list", "[]"), ("broken", "{")):
        other = tmp_path / name
        other.mkdir()
        (other / "model.safetensors").write_bytes(b"gigabytes")
        if config is not None:
            (other / "config.json").write_text(config)
        server.add(f"someone/{name}", other, "main")
        with pytest.raises(InputError, match=rf"hf:someone/{name} is not in the layout of md-export --target hub"):
            fetched(Path(f"hf:someone/{name}"))
    assert "model.safetensors" not in server.sent
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    server.add("someone/bare", bare, "main")
    with pytest.raises(InputError, match=r"hf:someone/bare holds no model.safetensors; its owner can upload it"):
        fetched(Path("hf:someone/bare"))


def test_without_the_package_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "site"  # an environment in which the package cannot be found
    hidden.mkdir()
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "huggingface_hub").is_dir()])
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", NAME)
    assert result.exit_code == 1
    assert result.output == f"Error: model {NAME} needs the package huggingface_hub: pip install huggingface_hub\n"


def test_md_export_and_md_eval_take_the_name_too(server: HubServer, folder: Path, tmp_path: Path) -> None:
    server.add(REPO, folder, "main")
    exported = CliRunner().invoke(md_export, ["--load_weights_folder", NAME, "--out", str(tmp_path / "again.onnx")])
    assert exported.exit_code == 0, exported.output
    evaluated = CliRunner().invoke(md_eval, ["--load_weights_folder", NAME, "--eval_mono", "--data_path", str(tmp_path / "none")])
    assert evaluated.exit_code == 1
    assert f"{tmp_path / 'none'} does not exist" in evaluated.output  # the data: the weights were found
    assert weights_folder(Path(NAME)).parent.name == "snapshots"


def test_names_with_a_drive_are_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("C:/models/street", "h:f/street", "HF:someone/street"):
        with pytest.raises(InputError, match=f"model {name} does not exist"):
            fetched(Path(name))
    (tmp_path / "hf:someone" / "street").mkdir(parents=True)
    assert fetched(Path("hf:someone/street")) == Path("hf:someone/street")  # what is there is what is meant


def test_a_folder_of_the_onnx_file_alone(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    shutil.copy(folder / "model.onnx", small)
    image = save_image(tmp_path / "a.jpg")
    for model, out in ((small, "folder"), (folder / "model.onnx", "file")):
        result = run("--image", image, "--model", model, "--out", tmp_path / out, "--provider", "cpu")
        assert result.exit_code == 0, result.output
    by_folder, by_file = (np.load(tmp_path / out / "a_disp.npy") for out in ("folder", "file"))
    np.testing.assert_array_equal(by_folder, by_file)
    (small / "models").mkdir()  # a run's folder, into which somebody exported
    with pytest.raises(InputError, match=r"holds no encoder\.pth"):
        weights_folder(find_model(small))
    wrong = run("--image", image, "--model", folder, "--provider", "cpu")  # its weights are there, and torch
    assert "--provider is for ONNX files" in wrong.output
