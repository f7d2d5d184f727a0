"""Checkpoints: whole or absent, exact, in Monodepth2's layout, and clear about what does not fit."""

import errno
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from engines import SIZE, stereo_networks
from places import PROJECT
from published import networks_of

from dataload.system.files import whole_folder
from dataload.system.leftovers import aside_of
from engine import weights
from engine.checkpoints import checkpoint_folders
from engine.inference.depth_network import load_depth_network
from engine.networks import Networks
from engine.sums import SUMS_FILE
from engine.training import checkpoint
from engine.training.checkpoint import Position
from engine.training.optim import build_optimizer
from splits.errors import InputError


def one_update(networks: Networks, optimizer: torch.optim.Optimizer) -> None:
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    sum(disp.mean() for disp in networks.depth(networks.encoder(images)).values()).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Networks, torch.optim.Optimizer]:
    networks = stereo_networks()
    optimizer = build_optimizer(networks, 1e-3)
    one_update(networks, optimizer)
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_3"
    checkpoint.save_checkpoint(
        folder, networks, SIZE, optimizer, torch.amp.GradScaler("cpu", enabled=False), Position(4, 0, 40, 0.25, samples=96)
    )
    return folder, networks, optimizer


def without_sums(folder: Path, copy: Path) -> Path:
    """A copy of a checkpoint as versions before checksums wrote it."""
    return Path(shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(SUMS_FILE)))


def test_files_and_extras_are_monodepth2s(saved):
    folder, _, _ = saved
    assert sorted(p.name for p in folder.iterdir()) == ["SHA256SUMS", "adam.pth", "depth.pth", "encoder.pth", "state.pt"]
    content = torch.load(folder / "encoder.pth", weights_only=True)
    assert (content["height"], content["width"], content["use_stereo"]) == (64, 96, True)
    assert "encoder.fc.weight" in content
    groups = torch.load(folder / "adam.pth", weights_only=True)["param_groups"]
    assert len(groups) == 1
    assert len(groups[0]["params"]) == 62 + 28  # encoder with its unused fc, then the depth decoder


def test_a_state_from_before_the_best_abs_rel_was_kept_is_resumed(saved, tmp_path):
    folder, networks, optimizer = saved
    old = without_sums(folder, tmp_path / "weights_3")
    state = torch.load(old / "state.pt", weights_only=True)
    del state["position"]["best_val_abs_rel"]
    torch.save(state, old / "state.pt")
    position = checkpoint.load_checkpoint(old, networks, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    assert position == Position(4, 0, 40, 0.25, float("inf"), 96)


def test_a_state_from_before_samples_were_counted_is_resumed(saved, tmp_path):
    folder, networks, optimizer = saved
    old = without_sums(folder, tmp_path / "weights_3")
    state = torch.load(old / "state.pt", weights_only=True)
    del state["position"]["samples"]
    torch.save(state, old / "state.pt")
    assert checkpoint.load_checkpoint(old, networks, optimizer, torch.amp.GradScaler("cpu", enabled=False)).samples is None


@pytest.mark.parametrize("samples", [-1, 1.5, "3", True])
def test_a_number_of_samples_that_is_none_is_refused(saved, tmp_path, samples):
    folder, _, _ = saved
    models = tmp_path / "models"
    state = torch.load(folder / "state.pt", weights_only=True)
    state["position"]["samples"] = samples
    torch.save(state, without_sums(folder, models / "weights_3") / "state.pt")
    with pytest.raises(InputError, match="is damaged: it does not say where the run stood"):
        checkpoint.latest_resumable(models)


def test_resume_restores_weights_moments_and_position_exactly(saved):
    folder, networks, optimizer = saved
    again = stereo_networks()
    fresh = build_optimizer(again, 1e-3)
    position = checkpoint.load_checkpoint(folder, again, fresh, torch.amp.GradScaler("cpu", enabled=False))
    assert position == Position(4, 0, 40, 0.25, samples=96)
    for key, value in networks.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    for i, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, fresh.state_dict()["state"][i][name]), (i, name)


def test_depth_network_reads_architecture_off_the_weights(saved, tmp_path):
    folder, networks, _ = saved
    network = load_depth_network(folder.parent.parent)
    assert (network.num_layers, network.size_px, network.use_stereo) == (18, (64, 96), True)
    images = torch.rand(1, 3, 64, 96)
    networks.eval()
    with torch.no_grad():
        expected = networks.depth(networks.encoder(images))[0]
    assert torch.allclose(network(images), expected, atol=1e-5)  # channels_last sums in another order
    weights.save_weights(tmp_path / "r50", stereo_networks(50, scales=(1,)), SIZE)
    other = load_depth_network(tmp_path / "r50")
    assert other.num_layers == 50
    assert other(images).shape == (1, 1, 64, 96)  # scale 0 was not trained; its finest scale stands in


def test_other_architecture_is_refused_by_name(saved):
    folder, _, _ = saved
    with pytest.raises(InputError, match=r"encoder\.pth belongs to another architecture: encoder\.layer1.*--num_layers"):
        weights.load_weights(stereo_networks(50), folder, ["encoder"])


def test_missing_file_names_the_remedy(saved):
    networks = networks_of(num_layers=18, scales=(0,), frame_ids=(0, -1), use_stereo=False)
    with pytest.raises(
        InputError, match=r"has no pose_encoder\.pth and no pose\.pth; load the others with --models_to_load encoder depth$"
    ):
        weights.load_weights(networks, saved[0], ["encoder", "depth", "pose_encoder", "pose"])


@pytest.mark.parametrize("damage", ["truncated", "text", "object", "empty"])
def test_corrupt_file_is_named(damage, saved, tmp_path):
    path = tmp_path / "encoder.pth"
    whole = (saved[0] / "encoder.pth").read_bytes()
    why = r"encoder\.pth is corrupt or no weights file"
    if damage == "object":
        torch.save({"x": Fraction(1, 2)}, path)
        why = r"encoder\.pth holds a Python object, fractions\.Fraction, which is not unpacked"
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"not weights at all" if damage == "text" else b"")
    with pytest.raises(InputError, match=why):
        weights.read_file(path)


def test_a_folder_without_state_cannot_be_resumed(tmp_path):
    weights.save_weights(tmp_path / "weights_0", stereo_networks(), SIZE)
    with pytest.raises(InputError, match=r"nothing to resume .* --load_weights_folder"):
        checkpoint.latest_resumable(tmp_path)


def test_missing_weights_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist; name a run folder"):
        weights.weights_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no encoder\.pth"):
        weights.weights_folder(tmp_path)


def test_a_failed_write_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "best"
    with whole_folder(folder) as temporary:
        (temporary / "x").write_text("old")

    def fail() -> None:
        with whole_folder(folder) as temporary:
            (temporary / "x").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert (folder / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_disk_full_while_saving_names_the_file_and_leaves_no_half_folder(tmp_path):
    program = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = ["tests/support"]
from engines import SIZE, stereo_networks
from engine import weights
networks = stereo_networks()
folder = Path({str(tmp_path)!r}) / "weights_0"
weights.save_weights(folder, networks, SIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    weights.save_weights(folder, networks, SIZE)
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert "while saving" in done.stdout
    assert "encoder.pth" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["weights_0"]
    assert load_depth_network(tmp_path / "weights_0").num_layers == 18


def test_finetuning_keeps_the_asked_learning_rate(saved):
    networks = stereo_networks()
    optimizer = build_optimizer(networks, 1e-5)
    checkpoint.load_optimizer(optimizer, saved[0])
    assert optimizer.param_groups[0]["lr"] == 1e-5
    assert optimizer.state_dict()["state"]
    other = build_optimizer(stereo_networks(50), 1e-5)
    with pytest.raises(InputError, match=r"exp_avg of parameter|of \d+ parameters, the networks have \d+"):
        checkpoint.load_optimizer(other, saved[0])
    assert not other.state_dict()["state"]


def test_superseded_step_folders_go(tmp_path):
    for name in ("step_5", "step_9", "weights_0"):
        (tmp_path / name).mkdir()
    checkpoint.remove_superseded(tmp_path, tmp_path / "step_9")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_9", "weights_0"]


def checkpoints(models: Path, saved: Path, *names: str) -> None:
    """Checkpoints of as many steps as their names say."""
    for name in names:
        state = torch.load(saved / "state.pt", weights_only=True)
        state["position"]["global_step"] = int(name.split("_")[1])
        torch.save(state, without_sums(saved, models / name) / "state.pt")


def test_checkpoints_are_in_the_order_of_their_numbers(saved, tmp_path, caplog):
    for name in ("step_9", "step_10", "weights_2", "weights_11", "step_100.old", "weights_x"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["weights_2", "weights_11", "step_9", "step_10"]
    models = tmp_path / "models"
    checkpoints(models, saved[0], "step_9", "step_10")
    assert checkpoint.latest_resumable(models).name == "step_10"
    assert weights.weights_folder(models).name == "step_10"
    (models / "step_10" / "depth.pth").unlink()
    assert weights.weights_folder(models).name == "step_9"
    assert f"{models / 'step_10'} lacks encoder.pth or depth.pth: step_9 is taken instead" in caplog.text


@pytest.mark.parametrize("file", ["state.pt", "adam.pth", "depth.pth"])
@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_damaged_checkpoint_is_skipped_and_named(file, damage, saved, tmp_path, caplog):
    checkpoints(tmp_path, saved[0], "step_9", "step_10")
    path = tmp_path / "step_10" / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    assert checkpoint.latest_resumable(tmp_path).name == "step_9"
    assert "Skipped  " in caplog.text
    assert str(tmp_path / "step_10") in caplog.text
    shutil.rmtree(tmp_path / "step_9")
    with pytest.raises(InputError, match=r"step_10"):
        checkpoint.latest_resumable(tmp_path)


@pytest.mark.parametrize("version", [2, "1", torch.zeros(2), torch.zeros(1).expand(2**40)], ids=["newer", "text", "numbers", "terabytes"])
def test_a_checkpoint_of_another_version_is_not_skipped(saved, tmp_path, version):
    checkpoints(tmp_path, saved[0], "step_9", "step_10")
    torch.save({"version": version}, tmp_path / "step_10" / "state.pt")
    with pytest.raises(InputError, match=r"step_10/state.pt is of another version; resume it with the version that wrote it"):
        checkpoint.latest_resumable(tmp_path)


def test_a_superseded_checkpoint_that_another_process_writes_into_stays_and_is_named(tmp_path, caplog):
    for name in ("step_8", "step_9"):
        (tmp_path / name).mkdir()
    program = (
        "import sys; from pathlib import Path; from dataload.system.locks import hold\n"
        "with hold(Path(sys.argv[1]), '', folder=True): print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", program, tmp_path / "step_8"]
    with subprocess.Popen(command, cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "1\n"
        checkpoint.remove_superseded(tmp_path, tmp_path / "step_9")
        assert (tmp_path / "step_8").is_dir()
        assert "step_8 stays for now: " in caplog.text
        process.communicate("\n")
    checkpoint.remove_superseded(tmp_path, tmp_path / "step_9")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_9"]


def test_weights_that_a_killed_process_moved_aside_are_found_by_readers(saved, tmp_path):
    models = tmp_path / "run" / "models"
    checkpoints(models, saved[0], "weights_3", "weights_4")
    (models / "weights_4").rename(aside_of(models / "weights_4"))
    assert weights.weights_folder(tmp_path / "run").name == "weights_4"
    (models / "weights_4").rename(aside_of(models / "weights_4"))
    assert weights.weights_folder(models / "weights_4") == models / "weights_4"
    (models / "weights_4").rename(models / ".weights_4.old")  # as earlier versions did
    assert checkpoint.latest_resumable(models).name == "weights_4"
    assert not list(models.glob(".*"))
