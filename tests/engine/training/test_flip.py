"""Warping with the true depth and motion is exact before and after a flip, whatever the principal point, the native size and the camera."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batches import BACKENDS
from evo_tree import FULL, SMALL, T_source_target, T_world_camera, view, write_evo_tree

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.loader import MIRROR_X, Loader
from dataload.pipeline.order import draw
from engine.geometry import sampling_grids, warp

SIZE_PX = (64, 96)
FRAME_IDS = (0, -1, 1)
# Where a source's view ends, its border is repeated: only what lies inside of both is compared.
INNER = (slice(None), slice(8, -8), slice(12, -12))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evo_tree(
        tmp_path_factory.mktemp("evo"), (FULL, SMALL._replace(baseline_m=0.3), FULL._replace(name="pair", baseline_m=0.3)), ext=".png"
    )


def make(tree: Path, split: Path, backend: str, **options) -> Loader:
    config = DataConfig(
        data_path=tree, dataset="evo", split=str(split), height_px=SIZE_PX[0], width_px=SIZE_PX[1], loader=backend, num_workers=2, **options
    )
    dataset = open_dataset(config)
    lines = (split / "train_files.txt").read_text().splitlines()
    refs = dataset.with_sources(dataset.refs(lines, source="test"), source="test", frame_ids=config.frame_ids, use_stereo=config.use_stereo)
    return Loader(config, dataset, refs, training=True)


def true_depth_m(loader: Loader, index: int, flip: bool) -> np.ndarray:
    """(H, W) at the network's size, as a mirror shows it where ``flip``."""
    ref = loader.refs[index]
    K = loader.dataset.K(ref, *SIZE_PX).astype(np.float64)
    depth_m = view(K, SIZE_PX, T_world_camera(ref.frame_index))[1]
    return depth_m[:, ::-1] if flip else depth_m


def true_T(loader: Loader, index: int, flip: bool) -> np.ndarray:
    """T_source_target (S, 4, 4) of the temporal sources, as a mirror shows them where ``flip``."""
    target = loader.refs[index].frame_index
    T = np.stack([T_source_target(target + k, target) for k in loader.config.temporal_ids])
    return MIRROR_X @ T @ MIRROR_X if flip else T


def warp_error(K: torch.Tensor, depth_m: np.ndarray, T: np.ndarray, sources: torch.Tensor, target: torch.Tensor) -> float:
    """Mean difference in levels of the sources (S, 3, H, W), warped, from the target (3, H, W), well inside the image."""
    depth = torch.from_numpy(depth_m.copy()).float()[None, None]
    grids = sampling_grids(depth, K[None], torch.from_numpy(T).float()[None])
    warped = warp(sources.float(), grids[0])
    return max((image - target.float()).abs()[INNER].mean().item() for image in warped)


@pytest.mark.parametrize("backend", BACKENDS)
def test_true_depth_and_motion_warp_exactly_before_and_after_a_flip(tree: Path, backend: str) -> None:
    with make(tree, tree / "splits" / "evo", backend, frame_ids=FRAME_IDS, batch_size=12) as loader:
        batch = next(loader.epoch(0))
    flips, sizes, wrong = set(), set(), []
    for row, index in enumerate(batch.indices.tolist()):
        flip = draw(0, 0, index, training=True).flip
        depth_m, T = true_depth_m(loader, index, flip), true_T(loader, index, flip)
        error = warp_error(batch.K[row], depth_m, T, batch.sources[0][row], batch.target[0][row])
        assert error < 0.6, (index, flip, error)
        flips.add(flip)
        sizes.add(loader.dataset.intrinsics(loader.refs[index]).width_px)
        # A principal point left where it was, as it once was done, is seen by this test.
        unmirrored = batch.K[row].clone()
        unmirrored[0, 2] = SIZE_PX[1] - 1 - unmirrored[0, 2]
        wrong.append(warp_error(unmirrored, depth_m, T, batch.sources[0][row], batch.target[0][row]) - error)
    assert flips == {True, False}
    assert sizes == {192, 128}
    assert min(wrong) > 0.2


def test_a_mirrored_sample_is_sampled_at_the_mirrored_positions(tree: Path) -> None:
    """To the rounding of fp32, where W - cx in place of W - 1 - cx would be off by hundredths of a pixel."""
    with make(tree, tree / "splits" / "evo", "torch", frame_ids=FRAME_IDS, batch_size=12) as loader:
        batch = next(loader.epoch(0))
    for row, index in enumerate(batch.indices.tolist()):
        if not draw(0, 0, index, training=True).flip:
            continue
        grids, off = [], None
        for flip, K in ((False, torch.from_numpy(loader.dataset.K(loader.refs[index], *SIZE_PX))), (True, batch.K[row])):
            depth = torch.from_numpy(true_depth_m(loader, index, flip).copy()).float()[None, None]
            motion = torch.from_numpy(true_T(loader, index, flip)).float()[None]
            grids.append(sampling_grids(depth, K[None], motion)[0] * torch.tensor([1 - 2 * flip, 1]))
            off = sampling_grids(depth, (K + torch.tensor([[0, 0, 1], [0, 0, 0], [0, 0, 0]]))[None], motion)[0] if flip else off
        pixels = torch.tensor([(SIZE_PX[1] - 1) / 2, (SIZE_PX[0] - 1) / 2])
        plain, mirrored = grids[0], grids[1].flip(-2)
        assert ((plain - mirrored).abs() * pixels).max() < 1e-3
        off_px = ((plain - (off * torch.tensor([-1, 1])).flip(-2)).abs() * pixels).max()
        assert 0.02 < off_px < 0.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_other_camera_warps_by_its_own_baseline(tree: Path, tmp_path: Path, backend: str) -> None:
    split = tmp_path / "pairs"
    split.mkdir()
    lines = [line for line in (tree / "splits/evo/train_files.txt").read_text().splitlines() if line.startswith(("pair", "hospital"))]
    (split / "train_files.txt").write_text("\n".join(lines) + "\n")
    with make(tree, split, backend, frame_ids=(0,), use_stereo=True, batch_size=12) as loader:
        batch = next(loader.epoch(0))
    assert loader.dataset.metric_factor == pytest.approx(3)
    flips = set()
    for row, index in enumerate(batch.indices.tolist()):
        flip = draw(0, 0, index, training=True).flip
        depth_m = true_depth_m(loader, index, flip)
        T = batch.T_stereo[row].double().numpy()
        assert abs(T[0, 3]) == pytest.approx(0.1)
        T[0, 3] *= loader.dataset.metric_factor
        assert warp_error(batch.K[row], depth_m, T[None], batch.sources[0][row], batch.target[0][row]) < 0.6
        flips.add(flip)
    assert flips == {True, False}
