"""Networks and training steps against numbers of the published implementation."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.formulas import fill_weights, real_batch, read_numbers

from dataload.batch import Batch
from engine.networks import Networks, build_networks
from engine.networks.encoder import ResnetEncoder
from engine.step import TrainStep

VALUE = 1e-4
GRADIENT = 1e-3
MONO, STEREO = (0, -1, 1), (0,)
MODES: dict[str, dict[str, Any]] = {
    "mono": {},
    "stereo": {"frame_ids": STEREO, "use_stereo": True},
    "mono+stereo": {"use_stereo": True},
    "mono_no_automask": {"automask": False},
    "mono_avg_reprojection": {"avg_reprojection": True},
    "mono_v1_multiscale": {"v1_multiscale": True},
    "mono_no_ssim": {"ssim": False},
}


def _filled(networks: Networks, seed: int) -> Networks:
    for name, module in networks.named_children():
        fill_weights(module, name, seed)
    return networks


@cache
def _batch(shared: Path, *, use_stereo: bool = False, frame_ids: tuple[int, ...] = MONO) -> Batch:
    return real_batch(shared, frame_ids=frame_ids, use_stereo=use_stereo)


def test_images_are_those_of_the_numbers(shared: Path) -> None:
    expected = read_numbers(shared, "upstream")
    batch = _batch(shared, use_stereo=True)
    frames = {"0": batch.target} | {name: tuple(level[:, i] for level in batch.sources) for i, name in enumerate(("-1", "1", "s"))}
    for name, means in expected["image_mean_per_scale"].items():
        found = [(level / 255.0).double().mean().item() for level in frames[name]]
        assert found == pytest.approx(means, rel=VALUE), f"frame {name}"
    assert batch.target[0][:, :, 48, 100:104].tolist() == expected["image_pixels_frame0_scale0_y48_x100to103"]


@pytest.mark.parametrize("num_layers", [18, 50])
def test_networks_in_eval_mode(shared: Path, num_layers: int) -> None:
    numbers = read_numbers(shared, "upstream")
    expected = numbers["networks_eval_mode"][f"resnet{num_layers}"]
    networks = build_networks(num_layers=num_layers)
    # The reference numbers pair either depth encoder with a ResNet-18 for the pose.
    pose_networks = build_networks(num_layers=18)
    networks.pose_encoder, networks.pose = pose_networks.pose_encoder, pose_networks.pose
    _filled(networks, numbers["seed"]).eval()
    batch = _batch(shared)
    target, before = batch.target[0] / 255.0, batch.sources[0][:, 0] / 255.0
    with torch.no_grad():
        features = networks.encoder(target)
        disps = networks.depth(features)
        axisangle, translation = networks.pose([networks.pose_encoder(torch.cat([before, target], dim=1))[-1]])
    assert [f.abs().mean().item() for f in features] == pytest.approx(expected["feature_mean_abs"], rel=VALUE)
    assert [disps[s].mean().item() for s in range(4)] == pytest.approx(expected["disp_mean"], rel=VALUE)
    assert [disps[s].std().item() for s in range(4)] == pytest.approx(expected["disp_std"], rel=VALUE)
    columns = disps[0][:, 0, 40, [0, 64, 128, 192, 256]]
    torch.testing.assert_close(columns, torch.tensor(expected["disp0_row40_x0_64_128_192_256"]), rtol=VALUE, atol=0)
    torch.testing.assert_close(axisangle[:, 0], torch.tensor(expected["pose_axisangle_frame-1_to_0"]), rtol=VALUE, atol=0)
    torch.testing.assert_close(translation[:, 0], torch.tensor(expected["pose_translation_frame-1_to_0"]), rtol=VALUE, atol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["planar", "channels_last"])
def test_train_step(shared: Path, mode: str, memory_format: torch.memory_format) -> None:
    numbers = read_numbers(shared, "upstream")
    expected = numbers["train_step_batch2_resnet18"][mode]
    options = {"frame_ids": MONO, "use_stereo": False} | MODES[mode]
    frames = {"frame_ids": options["frame_ids"], "use_stereo": options["use_stereo"]}
    networks = _filled(build_networks(**frames), numbers["seed"]).to(memory_format=memory_format)
    step = TrainStep(networks, noise=0.0, **options)
    batch = _batch(shared, **frames)
    step.train()
    results = step.objective.results(step.predict(batch), batch)
    loss = sum(result.loss for result in results.values()) / len(results)
    loss.backward()
    found = {"loss": loss.item()} | {f"loss/{s}": result.loss.item() for s, result in results.items()}
    assert found == pytest.approx({key: value for key, value in expected.items() if key.startswith("loss")}, rel=VALUE)
    gradients = {f"grad_norm/{name}": gradient_norm(module) for name, module in networks.named_children()}
    nonzero = {key: value for key, value in expected.items() if key.startswith("grad_norm") and value > 0}
    assert gradients == pytest.approx(nonzero, rel=GRADIENT)
    used = results[0].used
    assert (used is None) == ("automask_used_fraction_scale0" not in expected)
    if used is not None:
        assert used.mean().item() == pytest.approx(expected["automask_used_fraction_scale0"], rel=VALUE)


def gradient_norm(module: torch.nn.Module) -> float:
    """L2 norm of all gradients of ``module``."""
    return float(torch.stack([p.grad.double().norm() for p in module.parameters() if p.grad is not None]).norm())


def test_the_unused_classifier_is_kept_and_frozen() -> None:
    encoder = ResnetEncoder(18)
    assert encoder.state_dict()["encoder.fc.weight"].shape == (1000, 512)
    assert not encoder.encoder.fc.weight.requires_grad
