"""Networks and training steps against numbers of the published implementation."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.formulas import fill_weights, formula_numbers, image, nominal_K, real_batch, real_numbers, stereo_transforms
from published import networks_of, objective_of, step_of
from torch import Tensor

from dataload.batch import Batch
from engine import geometry
from engine.loss import terms as losses
from engine.loss.objective import Predictions
from engine.networks import Networks
from engine.networks.encoder import ResnetEncoder
from engine.training.step import TrainStep

VALUE = 1e-4
GRADIENT = 1e-3
# A count of pixels: in saturated areas thousands of them have equal losses moved and unmoved, so that the last bit of fp32 decides
# (float64 flips 20 of the 61440, the published fp32 among them; without SSIM its share is 9 pixels from the published one). 2e-4 is
# twelve pixels.
USED_FRACTION = 2e-4
MONO, STEREO = (0, -1, 1), (0,)
# Relative changes of baseline and image centre by a rounding error or a few. In these cases some sampling positions lie within 1e-5 px of
# a pixel centre, where the slope of bilinear sampling jumps: rounding alone moves the gradient by 1e-3, and the published value is one of
# these. In stereo, float64 itself gives a norm of the decoder's gradient between 0.16683 and 0.16697, the plain formula in fp32 0.16675 to
# 0.16697, the published value is 0.16676.
NUDGES = {"stereo": (0.0, 1e-7, -1e-7, 2e-7, -2e-7, 4e-7), "mono_v1_multiscale": (0.0, 2e-7, -2e-7, 4e-7, -4e-7)}
ILL_CONDITIONED = {"stereo": 2e-3}
FORMULA_MOTION = (0.01, -0.02, 0.015), (0.05, -0.01, 0.08)
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
    expected = real_numbers(shared)
    batch = _batch(shared, use_stereo=True)
    frames = {"0": batch.target} | {name: tuple(level[:, i] for level in batch.sources) for i, name in enumerate(("-1", "1", "s"))}
    for name, means in expected["image_mean_per_scale"].items():
        found = [(level / 255.0).double().mean().item() for level in frames[name]]
        assert found == pytest.approx(means, rel=VALUE), f"frame {name}"
    assert batch.target[0][:, :, 48, 100:104].tolist() == expected["image_pixels_frame0_scale0_y48_x100to103"]


@pytest.mark.parametrize("num_layers", [18, 50])
def test_networks_in_eval_mode(shared: Path, num_layers: int) -> None:
    numbers = real_numbers(shared)
    expected = numbers["networks_eval_mode"][f"resnet{num_layers}"]
    networks = networks_of(num_layers=num_layers)
    # The reference numbers pair either depth encoder with a ResNet-18 for the pose.
    pose_networks = networks_of(num_layers=18)
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
def test_train_step(shared: Path, mode: str) -> None:
    numbers = real_numbers(shared)
    expected = numbers["train_step_batch2_resnet18"][mode]
    options = {"frame_ids": MONO, "use_stereo": False} | MODES[mode]
    frames = {"frame_ids": options["frame_ids"], "use_stereo": options["use_stereo"]}
    networks = _filled(networks_of(**frames), numbers["seed"])
    step = step_of(networks, noise=0.0, **options)
    batch = _batch(shared, **frames)
    terms = step(batch)
    found = {"loss": terms.loss.item()} | {f"loss/{s}": loss.item() for s, loss in enumerate(terms.per_scale)}
    assert found == pytest.approx({key: value for key, value in expected.items() if key.startswith("loss")}, rel=VALUE)
    norms = [_gradient_norms(step, _nudged(batch, nudge)) for nudge in NUDGES.get(mode, (0.0,))]
    for name, value in expected.items():
        if name.startswith("grad_norm") and value > 0:
            of_module = [norm[name] for norm in norms]
            tolerance = ILL_CONDITIONED.get(mode, GRADIENT)
            assert min(of_module) * (1 - tolerance) <= value <= max(of_module) * (1 + tolerance), (name, of_module, value)
    with torch.no_grad():
        used = step.objective.results(step.predict(batch), batch)[0].used
    assert (used is None) == ("automask_used_fraction_scale0" not in expected)
    if used is not None:
        assert used.mean().item() == pytest.approx(expected["automask_used_fraction_scale0"], abs=USED_FRACTION)


def _nudged(batch: Batch, relative: float) -> Batch:
    T_stereo, K = batch.T_stereo.clone(), batch.K.clone()
    T_stereo[:, 0, 3] *= 1 + relative
    K[:, :2, 2] *= 1 + relative
    return batch._replace(T_stereo=T_stereo, K=K)


def _gradient_norms(step: TrainStep, batch: Batch) -> dict[str, float]:
    """L2 norm of the gradient of each network."""
    step.zero_grad(set_to_none=True)
    step(batch).loss.backward()
    norms = {}
    for name, module in step.networks.named_children():
        parts = [p.grad.double().norm() for p in module.parameters() if p.grad is not None]
        norms[f"grad_norm/{name}"] = float(torch.stack(parts).norm())
    return norms


def _formula_levels(phase: float) -> list[Tensor]:
    return [image(2, 3, 32 >> level, 64 >> level, phase) for level in range(4)]


FORMULA_CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "v1_multiscale": {"v1_multiscale": True},
    "avg_reprojection": {"avg_reprojection": True},
    "disable_automasking": {"automask": False},
    "no_ssim": {"ssim": False},
    "stereo_only": {"frame_ids": STEREO, "use_stereo": True},
    "mono+stereo": {"use_stereo": True},
    "baseline(v1+disable_automask+avg)": {"v1_multiscale": True, "automask": False, "avg_reprojection": True},
}


@pytest.mark.parametrize("case", FORMULA_CASES)
def test_losses_of_formula_images(case: str) -> None:
    expected, fractions = formula_numbers()[f"LOSS {case} align_corners=True noise=0"]
    options = {"frame_ids": MONO, "use_stereo": False} | FORMULA_CASES[case]
    phases = [{-1: 0.3, 1: -0.25}[offset] for offset in options["frame_ids"][1:]] + ([0.5] if options["use_stereo"] else [])
    objective = objective_of(noise=0.0, **options)
    found = objective.results(_formula_predictions(options["frame_ids"]), _formula_batch(phases))
    values = {f"loss/{scale}": result.loss.item() for scale, result in found.items()}
    values["loss"] = sum(values.values()) / len(values)
    assert values == pytest.approx(expected, rel=VALUE)
    used = [result.used.mean().item() for result in found.values() if result.used is not None]
    assert used == pytest.approx(fractions or [], rel=VALUE)


def _formula_batch(phases: list[float]) -> Batch:
    # Floats in 0..255 where the loader ships bytes: the formula has no bytes.
    target = tuple(255.0 * level for level in _formula_levels(0.0))
    sources = tuple(255.0 * torch.stack(level, dim=1) for level in zip(*(_formula_levels(phase) for phase in phases), strict=True))
    K, T_stereo = nominal_K(2, 32, 64), stereo_transforms(-0.1, -0.1)
    return Batch(target, sources, target[0], sources[0], K, T_stereo, torch.arange(2))


def _formula_predictions(frame_ids: tuple[int, ...]) -> Predictions:
    disps = {scale: 0.02 + 0.3 * image(2, 1, 32 >> scale, 64 >> scale, 0.2 * scale) for scale in range(4)}
    motion = torch.tensor([FORMULA_MOTION[0]] * 2), torch.tensor([FORMULA_MOTION[1]] * 2)
    return Predictions(disps, {}, [motion] * (len(frame_ids) - 1))


def test_functions_of_formula_images() -> None:
    expected = formula_numbers()
    a, b = image(2, 3, 16, 24, 0.0), image(2, 3, 16, 24, 0.4)
    dissimilarity = losses.ssim(a, losses.prepare_target(b))
    assert dissimilarity.mean().item() == pytest.approx(expected["SSIM(A,B).mean"][0], rel=VALUE)
    assert dissimilarity[0, :, 0, 0].tolist() == pytest.approx(expected["SSIM(A,B)[0,:,0,0]"], rel=VALUE)
    disp = 0.1 + 0.8 * image(2, 1, 16, 24, 1.1)
    assert losses.smoothness(disp, a).item() == pytest.approx(expected["smooth(D/mean,A)"][0], rel=VALUE)

    inv_depth, depth = geometry.disp_to_depth(torch.tensor([[[0.0, 0.3, 1.0]]]), 0.1, 100.0)
    conversion = expected["disp_to_depth([0,.3,1],.1,100)"]
    assert inv_depth.flatten().tolist() == pytest.approx(conversion["scaled_disp"], rel=VALUE)
    assert depth.flatten().tolist() == pytest.approx(conversion["depth"], rel=VALUE)
    for invert in (False, True):
        T = geometry.transform_from_axisangle(torch.tensor([[0.1, -0.2, 0.3]]), torch.tensor([[1.0, 2.0, 3.0]]), invert=invert)
        assert T.flatten().tolist() == pytest.approx(expected[f"T(aa=[.1,-.2,.3],t=[1,2,3],invert={invert})"], rel=VALUE)

    _, depth = geometry.disp_to_depth(disp, 0.1, 100.0)
    T = geometry.transform_from_axisangle(*(torch.tensor([values] * 2) for values in FORMULA_MOTION))
    grid = geometry.sampling_grids(depth, nominal_K(2, 16, 24), T[:, None])[:, 0]
    assert grid[0, 0, 0].tolist() == pytest.approx(expected["pix_coords[0,0,0]"], rel=VALUE)
    assert grid[1, 7, 11].tolist() == pytest.approx(expected["pix_coords[1,7,11]"], rel=VALUE)
    key = "grid_sample(B,pix,border,align_corners=True).mean"
    assert geometry.warp(b, grid).mean().item() == pytest.approx(expected[key][0], rel=VALUE)


def test_the_other_alignment_of_corners_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions stretched by W / (W - 1) and H / (H - 1) give the numbers of the sampler's newer default; ours differ from them."""
    expected = formula_numbers()
    ours = geometry.sampling_grids

    def stretched(depth: Tensor, K: Tensor, T: Tensor) -> Tensor:
        height_px, width_px = depth.shape[-2:]
        return ours(depth, K, T) * torch.tensor([width_px / (width_px - 1), height_px / (height_px - 1)])

    b, K = image(2, 3, 16, 24, 0.4), nominal_K(2, 16, 24)
    _, depth = geometry.disp_to_depth(0.1 + 0.8 * image(2, 1, 16, 24, 1.1), 0.1, 100.0)
    T = geometry.transform_from_axisangle(*(torch.tensor([values] * 2) for values in FORMULA_MOTION))[:, None]
    key = "grid_sample(B,pix,border,align_corners=False).mean"
    assert geometry.warp(b, stretched(depth, K, T)[:, 0]).mean().item() == pytest.approx(expected[key][0], rel=VALUE)
    assert geometry.warp(b, ours(depth, K, T)[:, 0]).mean().item() != pytest.approx(expected[key][0], rel=VALUE)

    monkeypatch.setattr(geometry, "sampling_grids", stretched)
    values, used = expected["LOSS default align_corners=False noise=0"]
    found = objective_of(frame_ids=MONO, use_stereo=False, noise=0.0).results(_formula_predictions(MONO), _formula_batch([0.3, -0.25]))
    assert [found[s].loss.item() for s in range(4)] == pytest.approx([values[f"loss/{s}"] for s in range(4)], rel=VALUE)
    assert [found[s].used.mean().item() for s in range(4)] == pytest.approx(used, rel=VALUE)


def test_the_unused_classifier_is_kept_and_frozen() -> None:
    encoder = ResnetEncoder(18)
    assert encoder.state_dict()["encoder.fc.weight"].shape == (1000, 512)
    assert not encoder.encoder.fc.weight.requires_grad
