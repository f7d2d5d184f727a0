"""The pose network read off a weights folder answers as the training's networks do, for every type."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published import networks_of, step_of

from engine.geometry import transform_from_axisangle
from engine.inference.pose_network import load_pose_network
from engine.networks import Networks
from engine.odometry.motions import Pair, chain_pairs, plan_pairs
from engine.weights import InputSize, save_weights
from splits.errors import InputError

SIZE_PX = (64, 96)


def networks(**options: object) -> Networks:
    """Untrained networks whose motions are large enough to tell apart."""
    torch.manual_seed(0)
    made = networks_of(**options)
    with torch.no_grad():
        for parameter in made.pose.parameters():
            parameter.mul_(3)
    return made.eval()


def saved(folder: Path, made: Networks, **options: object) -> Path:
    folder.mkdir(parents=True)
    save_weights(folder / "models" / "weights_0", made, InputSize(*SIZE_PX, False))
    if options:
        (folder / "models" / "opt.json").write_text(json.dumps(options))
    return folder


def images(count: int) -> torch.Tensor:
    return torch.rand(2, count, 3, *SIZE_PX, generator=torch.Generator().manual_seed(1))


def motion_of_training(made: Networks, frames: torch.Tensor, **options: object) -> torch.Tensor:
    """T_source_target (B,S,4,4) of the training step itself; ``posecnn``'s translations without their unit."""
    frame_ids = (0, *range(1, frames.shape[1]))
    step = step_of(made, frame_ids=frame_ids, use_stereo=False, **{"scales": (0, 1, 2, 3), **options})
    given = list(frames.unbind(dim=1))
    if options.get("pose_model_type") == "shared":
        given = [made.encoder(image)[-1] for image in given]
    with torch.no_grad():
        return torch.stack([transform_from_axisangle(*motion) for motion in step._motions(given)], dim=1)


@pytest.mark.parametrize(
    ("pose_model_type", "num_layers"), [("separate_resnet", 18), ("separate_resnet", 50), ("shared", 18), ("posecnn", 18)]
)
def test_pairs_answer_as_in_training(tmp_path: Path, pose_model_type: str, num_layers: int) -> None:
    made = networks(pose_model_type=pose_model_type, num_layers=num_layers)
    network = load_pose_network(saved(tmp_path / "run", made))
    assert (network.frame_ids, network.size_px) == ((0, 1), SIZE_PX)
    assert network.pose_model_type == pose_model_type
    frames = images(2)
    found = network(frames[:, 0], frames[:, 1:])
    assert found.shape == (2, 1, 4, 4)
    expected = motion_of_training(made, frames, pose_model_type=pose_model_type)
    if pose_model_type == "posecnn":
        disp = made.depth(made.encoder(frames[:, 0]))[0]
        expected[:, 0, :3, 3] *= (1 / 100 + (1 / 0.1 - 1 / 100) * disp).mean(dim=(1, 2, 3))[:, None]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # Of any use only if the order of the frames matters.
    assert not torch.allclose(found, network(frames[:, 1], frames[:, :1]), atol=1e-5)


@pytest.mark.parametrize("pose_model_type", ["separate_resnet", "shared", "posecnn"])
def test_networks_of_all_frames(tmp_path: Path, pose_model_type: str) -> None:
    options = {"pose_model_type": pose_model_type, "pose_model_input": "all"}
    made = networks(**options)
    network = load_pose_network(saved(tmp_path / "run", made, frame_ids=[0, -1, 1, "s"], **options))
    assert network.frame_ids == (0, -1, 1)
    frames = images(3)
    found = network(frames[:, 0], frames[:, 1:])
    expected = motion_of_training(made, frames, **options)
    torch.testing.assert_close(found[..., :3], expected[..., :3], rtol=1e-5, atol=1e-6)
    if pose_model_type != "posecnn":
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # Without its options, three frames mean the usual ones.
    (tmp_path / "run" / "models" / "opt.json").unlink()
    assert load_pose_network(tmp_path / "run").frame_ids == (0, -1, 1)


def test_a_network_of_all_of_two_frames_keeps_their_order(tmp_path: Path) -> None:
    options = {"frame_ids": [0, -1], "pose_model_input": "all"}
    made = networks(**{**options, "frame_ids": (0, -1)})
    assert load_pose_network(saved(tmp_path / "run", made, **options)).frame_ids == (0, -1)


def test_input_size_is_found_or_given(tmp_path: Path) -> None:
    weights = saved(tmp_path / "run", networks(), height=96, width=160) / "models" / "weights_0"
    assert load_pose_network(weights, width_px=128).width_px == 128
    assert load_pose_network(weights, width_px=128).height_px == 64
    (weights / "encoder.pth").unlink()
    network = load_pose_network(weights)
    assert network.size_px == (96, 160)
    (tmp_path / "run" / "models" / "opt.json").unlink()
    with pytest.raises(InputError, match="records the input size; give --height and --width"):
        load_pose_network(weights)
    assert load_pose_network(weights, height_px=64, width_px=64).height_px == 64


class Tiny:
    """A run folder whose pose.pth has shapes of a network that reads three frames, and numbers of none."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.options = folder, {"pose_model_input": "all", "frame_ids": [0, -1, 1], "height": 64, "width": 96}
        self.tensors = {"net.0.weight": torch.zeros(256, 1), "net.1.weight": torch.zeros(1, 768), "net.3.weight": torch.zeros(12, 1)}

    def refusal(self) -> str:
        torch.save(self.tensors, self.folder / "pose.pth")
        (self.folder / "opt.json").write_text(json.dumps(self.options))
        with pytest.raises(InputError) as refused:
            load_pose_network(self.folder)
        return str(refused.value)


@pytest.mark.parametrize("value", [None, True, 3, 1.5, {}, {"a": 1}, [None, 1, 2], [0, -1, "s"], [0, True, 1], "012", [[], [], []]])
def test_frame_ids_of_any_value_are_refused_in_a_line(tmp_path: Path, value: object) -> None:
    tiny = Tiny(tmp_path)
    tiny.options["frame_ids"] = value
    assert "reads 3 frames at once, the run's frame_ids are" in tiny.refusal()


@pytest.mark.parametrize("name", ["net.1.weight", "net.3.weight"])
@pytest.mark.parametrize("shape", [None, (), (0,), (1,), (2**30, 2**30)])
def test_shapes_of_any_size_are_refused_before_a_network_is_made(tmp_path: Path, name: str, shape: tuple[int, ...] | None) -> None:
    tiny = Tiny(tmp_path)
    if shape is None:
        del tiny.tensors[name]
    else:
        tiny.tensors[name] = torch.zeros(()).expand(shape)
    tiny.options["frame_ids"] = list(range(64))
    said = tiny.refusal()
    assert f"{tmp_path / 'pose.pth'} is not of a pose network" in said
    assert "check that the files are what their names say" in said


def test_folders_without_a_pose_network(tmp_path: Path) -> None:
    stereo = networks_of(frame_ids=(0,), use_stereo=True)
    save_weights(tmp_path / "stereo", stereo, InputSize(*SIZE_PX, True))
    with pytest.raises(InputError, match=r"has no pose\.pth: a model trained on stereo pairs alone has no pose network"):
        load_pose_network(tmp_path / "stereo")
    save_weights(tmp_path / "mono", networks(), InputSize(*SIZE_PX, False))
    (tmp_path / "mono" / "SHA256SUMS").unlink()  # which sees any change
    (tmp_path / "mono" / "pose_encoder.pth").rename(tmp_path / "pose_encoder.pth")
    with pytest.raises(InputError, match=r"has no pose_encoder\.pth"):
        load_pose_network(tmp_path / "mono")
    (tmp_path / "mono" / "encoder.pth").rename(tmp_path / "mono" / "pose_encoder.pth")
    with pytest.raises(InputError, match=r"pose_encoder\.pth reads one image"):
        load_pose_network(tmp_path / "mono", height_px=64, width_px=64)
    torch.save({"a": torch.zeros(1)}, tmp_path / "mono" / "pose.pth")
    with pytest.raises(InputError, match="holds no pose network"):
        load_pose_network(tmp_path / "mono", height_px=64, width_px=64)
    with pytest.raises(InputError, match="does not exist"):
        load_pose_network(tmp_path / "none")


def test_options_that_belong_to_another_network(tmp_path: Path) -> None:
    made = networks(pose_model_input="all")
    folder = saved(tmp_path / "run", made, frame_ids=[0, -2, -1, 1, 2], pose_model_input="all")
    with pytest.raises(InputError, match="reads 3 frames at once, the run's frame_ids are"):
        load_pose_network(folder)


def test_pairs_of_a_pair_network_are_the_frames_themselves() -> None:
    assert plan_pairs((0, 1), 4) == [Pair(0, 0), Pair(1, 0), Pair(2, 0)]


@pytest.mark.parametrize("frame_ids", [(0, 1), (0, -1, 1), (0, -1), (0, 1, 2), (0, -2, -1, 1, 2), (0, -2, -1)])
def test_motions_are_read_off_any_frames(frame_ids: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (9, 1, 1))
    poses[:, :3, 3] = rng.normal(size=(9, 3))
    poses[:, :3, :3] = np.linalg.qr(rng.normal(size=(9, 3, 3)))[0]
    pairs = plan_pairs(frame_ids, 9)
    targets = sorted({pair.target for pair in pairs})
    assert all(0 <= target + frame_id < 9 for target in targets for frame_id in frame_ids)
    transforms = np.stack([[np.linalg.inv(poses[c + s]) @ poses[c] for s in frame_ids[1:]] for c in targets])
    np.testing.assert_allclose(chain_pairs(transforms, frame_ids, pairs), np.linalg.inv(poses[1:]) @ poses[:-1], atol=1e-12)


def test_frames_that_hold_no_pair() -> None:
    with pytest.raises(InputError, match="sees frames 0 -2 2 at once, no two in a row"):
        plan_pairs((0, -2, 2), 9)
    with pytest.raises(InputError, match="a sequence of 2 frames is too short"):
        plan_pairs((0, -1, 1), 2)
