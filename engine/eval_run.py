"""An evaluation from its config: split list, ground truth, predictions, scores, and what is kept of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dataload.check import require_data_path, require_files
from dataload.config import DataConfig
from dataload.datasets import dataset_class
from dataload.datasets.base import Dataset
from dataload.ground_truth import dataset_for, default_path, ground_truth, read_ground_truth
from dataload.split import FrameRef, parse_split
from engine.depth_network import DepthNetwork, load_depth_network
from engine.eval_config import EvalConfig
from engine.evaluate import Scores, inference_dtype, predict_inv_depths, score
from engine.log import set_up_console
from engine.metrics import PROTOCOLS
from engine.precision import pick_device
from splits import read_lines, subset_source
from splits.errors import InputError

console = logging.getLogger("md")


def evaluate(config: EvalConfig) -> Scores | None:
    """Predict or read inverse depth, save it where asked, and score it; None with ``no_eval``.

    Raises:
        InputError: whatever is missing, damaged or does not fit together; found before the network runs wherever it can be.
    """
    set_up_console()
    # The dataset first: the demo world makes its split with itself.
    dataset = dataset_class(config.dataset)(config.data_path, config.image_ext)
    require_data_path(dataset)
    refs = parse_split(read_lines(config.eval_split, "test"), source=subset_source(config.eval_split, "test"))
    if config.ext_disp is not None:
        inv_depths = read_inv_depths(config.ext_disp, len(refs))
        return _scored(config, inv_depths, _ground_truth(config, dataset, refs))
    assert config.weights_folder is not None
    # What may be missing comes first, the minutes of predicting last.
    network = load_depth_network(config.weights_folder, pick_device(no_cuda=config.no_cuda))
    require_files(dataset, refs, frame_ids=(0,), use_stereo=False)
    gts_m = None if config.no_eval else _ground_truth(config, dataset, refs)
    inv_depths = _predict(config, network, dataset, refs)
    if config.save_pred_disps:
        path = config.weights_folder / f"disps_{Path(config.eval_split).name}_split.npy"
        save_array(path, inv_depths)
        console.info("Saved inverse depths %s to %s", inv_depths.shape, path)
    return None if gts_m is None else _scored(config, inv_depths, gts_m)


def read_inv_depths(path: Path, num_images: int) -> np.ndarray:
    """Inverse depths (N,h,w) of a ``.npy`` file made elsewhere (Monodepth2's "scaled disparity"), left on disk until they are used.

    Raises:
        InputError: no such file, no array of floats of that form, another number of images, or values that are no inverse depth.
    """
    if not path.is_file():
        raise InputError(f"ext_disp_to_eval: no file {path}")
    try:
        inv_depths = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is no .npy array ({error}); write it with numpy.save") from error
    if not isinstance(inv_depths, np.ndarray):
        raise InputError(f"{path} holds several arrays; write the one of disparities with numpy.save")
    if inv_depths.ndim != 3 or not np.issubdtype(inv_depths.dtype, np.floating):
        raise InputError(f"{path} is {inv_depths.dtype} of shape {inv_depths.shape}, not floats of shape (images, height, width)")
    if len(inv_depths) != num_images:
        raise InputError(f"{path} holds {len(inv_depths)} images, the split's test list {num_images}; both must be of the same list")
    for number, inv_depth in enumerate(inv_depths):
        # NaN fails both comparisons, so one pass for each bound finds every fault.
        if not (inv_depth.min() >= 0 and inv_depth.max() < np.inf):
            raise InputError(f"{path}: image {number} (counted from 0) has NaN, infinite or negative values; inverse depth is 0 or more")
    return inv_depths


def write_scores(path: Path, config: EvalConfig, scores: Scores) -> None:
    """Write the scores as JSON, with the split, protocol and scale factor they were taken under."""
    circumstances = {"eval_split": config.eval_split, "protocol": config.protocol, "scale_factor": config.scale_factor}
    path.write_text(json.dumps(scores.as_json() | circumstances, indent=2) + "\n", encoding="utf-8")


def save_array(path: Path, array: np.ndarray) -> None:
    """Write ``array`` as ``.npy``; the file appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, array)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _ground_truth(config: EvalConfig, dataset: Dataset, refs: Sequence[FrameRef]) -> Iterable[np.ndarray]:
    path = default_path(config.eval_split, config.data_path)
    if path.is_file():
        console.info("Ground truth from %s", path)
        return read_ground_truth(path, refs)
    console.info("Ground truth made on the fly (md-data gt would keep it in %s)", path)
    return ground_truth(dataset_for(config.eval_split, dataset), refs, progress=True)


def _predict(config: EvalConfig, network: DepthNetwork, dataset: Dataset, refs: Sequence[FrameRef]) -> np.ndarray:
    from tqdm import tqdm

    # Imported here: scoring disparities made elsewhere needs no loader.
    from dataload.loader import Loader

    min_depth = network.min_depth if config.min_depth is None else config.min_depth
    max_depth = network.max_depth if config.max_depth is None else config.max_depth
    if not min_depth < max_depth:
        raise InputError(f"min_depth={min_depth} must be below max_depth={max_depth}")
    device = next(network.parameters()).device
    dtype = inference_dtype(config.amp, device)
    data = DataConfig(
        data_path=config.data_path, dataset=config.dataset, split=config.eval_split, height_px=network.height_px, width_px=network.width_px,
        frame_ids=(0,), image_ext=config.image_ext, batch_size=config.batch_size, num_levels=1, num_workers=config.num_workers,
        loader=config.loader,
    )  # fmt: skip
    precision = "fp32" if dtype is None else str(dtype).removeprefix("torch.")
    console.info("ResNet-%d at %dx%d, %s, %s", network.num_layers, data.width_px, data.height_px, device.type, precision)
    with Loader(data, dataset, refs, training=False, device=device) as loader:
        batches = tqdm(loader.epoch(0), total=loader.steps_per_epoch, desc="predictions", unit="batch")
        return predict_inv_depths(
            network, batches, len(refs), min_depth=min_depth, max_depth=max_depth, post_process=config.post_process, autocast_dtype=dtype
        )


def _scored(config: EvalConfig, inv_depths: np.ndarray, gts_m: Iterable[np.ndarray]) -> Scores:
    protocol = PROTOCOLS[config.protocol]
    return score(inv_depths, gts_m, protocol=protocol, median_scaling=config.median_scaling, scale_factor=config.scale_factor)
