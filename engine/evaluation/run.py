"""An evaluation from its config: split list, ground truth, predictions, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataload.config import DataConfig
from dataload.datasets import make_dataset
from dataload.datasets.base import Dataset
from dataload.datasets.presence import require_files
from dataload.frames.frame_ref import FrameRef
from dataload.system.console import console
from dataload.system.progress import progress_bar
from engine.choices import ANNOTATED_SPLIT, DEFAULT_EVAL_SPLIT
from engine.evaluation.config import EvalConfig
from engine.evaluation.disp_files import InvDepths, open_inv_depths, read_blocks, save_blocks, write_server_pngs
from engine.evaluation.metrics import ALL_GT, EIGEN
from engine.evaluation.places import disps_path, server_folder
from engine.evaluation.report import Candidate
from engine.evaluation.run_facts import with_run_facts
from engine.evaluation.scoring import Rules, require_scored, score
from engine.evaluation.sharing import gather_scores
from engine.evaluation.subjects import Subject, find_subjects
from engine.evaluation.truths import Truths, find_truths
from engine.parallel.ranks import ALONE, Ranks
from engine.parallel.sameness import digest, require_same
from engine.parallel.sharing import share_of, whole_file_of_all
from splits import eigen_to_benchmark_ids, read_lines
from splits.errors import InputError

if TYPE_CHECKING:
    from engine.inference.depth_network import DepthNetwork


class Evaluation(NamedTuple):
    """A prepared evaluation.

    Attributes:
        config: its scale factor known.
        refs: the list of images.
        subjects: what is evaluated on them.
        ranks: the processes that share it.
        share: the positions in ``refs`` of this process's images, ascending.
        truths: what predictions are scored against; None where nothing is scored.
    """

    config: EvalConfig
    dataset: Dataset
    refs: Sequence[FrameRef]
    subjects: Sequence[Subject]
    ranks: Ranks
    share: Sequence[int]
    truths: Truths | None = None


def prepare(config: EvalConfig, network: DepthNetwork | None = None, ranks: Ranks = ALONE) -> Evaluation:
    """Check everything that is needed and make the ground truth: what may be missing comes first, the minutes of predicting last.

    ``network`` is the network of the only folder of weights, if it is loaded already. ``ranks`` are the processes that share the work.

    Raises:
        InputError: whatever is missing, damaged or does not fit together.
        FaultElsewhere: another of several processes reports such a fault.
    """
    subjects = [subject._replace(network=network) for subject in find_subjects(config)]
    config = with_run_facts(config, [subject.weights for subject in subjects if subject.weights is not None])
    # The dataset first: the demo world makes its split with itself.
    with ranks.machine_first():
        dataset, refs = _open_list(config)
    require_same(ranks, {"the list of images": digest(ref.line for ref in refs)})
    config = replace(config, all_depth=dataset.scores_all_depth)
    if config.weights_folders:
        require_files(dataset, refs, frame_ids=(0,), use_stereo=False)
    subjects, factors = _load_networks(config, dataset, subjects)
    factor = _scale_factor(config, factors)
    if config.for_server and config.scale_factor is None and config.alignment != "none":
        _warn_of_unknown_scale(subjects, factor)
    config = replace(config, scale_factor=factor)
    for path in config.ext_disps:
        _open_ext(config, path, dataset, refs)
    share = share_of(ranks, len(refs), config.batch_size)
    evaluation = Evaluation(config, dataset, refs, subjects, ranks, share)
    if config.no_eval or config.for_server:
        return evaluation
    truths = find_truths(config, dataset, refs, ranks, share)
    require_scored(truths.own, rules_of(config).protocol, [f"'{ref.line}'" for ref in truths.own_refs])
    return evaluation._replace(truths=truths)


def _open_list(config: EvalConfig) -> tuple[Dataset, Sequence[FrameRef]]:
    """The dataset and the list of images; with the runs' kind of image where it is there."""
    facts = {"depth_scale": config.depth_scale, "intrinsics": config.intrinsics}
    dataset = make_dataset(config.dataset, config.data_path, config.image_ext, **facts)
    refs = dataset.read(config.eval_split, "test")
    if config.run_image_ext not in (None, dataset.image_ext):
        other = make_dataset(config.dataset, config.data_path, config.run_image_ext, **facts)
        if refs and other.image_path(refs[0]).is_file():
            console.info("Images are %s, as in training", other.image_ext)
            return other, refs
    return dataset, refs


def score_subjects(evaluation: Evaluation) -> list[Candidate]:
    """Predict or read inverse depth of each subject, save it where asked, and score it; empty where nothing is scored.

    Raises:
        InputError: damaged weights, images or scans.
    """
    candidates = [_evaluate_one(evaluation, subject) for subject in evaluation.subjects]
    return [candidate for candidate in candidates if candidate is not None]


def rules_of(config: EvalConfig) -> Rules:
    """The published protocol of the split, with the crop and the cap that the user chose instead; and the alignment."""
    protocol = ALL_GT if config.all_depth or config.eval_split == ANNOTATED_SPLIT else EIGEN
    if config.crop is not None:
        protocol = protocol._replace(crop=config.crop)
    if config.cap_m is not None:
        protocol = protocol._replace(max_gt_m=config.cap_m, max_pred_m=config.cap_m)
    return Rules(protocol, config.alignment, 1.0 if config.scale_factor is None else config.scale_factor)


def _evaluate_one(evaluation: Evaluation, subject: Subject) -> Candidate | None:
    config, ranks, share, truths = evaluation.config, evaluation.ranks, evaluation.share, evaluation.truths
    with open_predictions(evaluation, subject, share) as blocks, ExitStack() as stack:
        if config.save_pred_disps and subject.weights is not None:
            path = disps_path(config, subject)
            file = stack.enter_context(whole_file_of_all(ranks, path))
            blocks = save_blocks(blocks, file, share, len(evaluation.refs))
            console.info("Inverse depths go to %s", path)
        if config.for_server:
            folder = server_folder(config, subject)
            write_server_pngs(blocks, folder, share, rules_of(config).scale_factor)
            console.info("%d depth images for the KITTI server in %s", len(evaluation.refs), folder)
        elif truths is None:
            for _ in blocks:
                pass
        else:
            names = [f"'{ref.line}' of {subject.name}" for ref in truths.own_refs]
            mine = score(_rows_of(blocks, truths.rows), truths.own, rules_of(config), names=names, details=config.details)
            return Candidate(subject.name, gather_scores(ranks, mine, truths.own_numbers), subject.epoch)
    return None


def _rows_of(blocks: Iterator[NDArray[np.float32]], wanted: NDArray[np.intp]) -> Iterator[NDArray[np.float32]]:
    """The maps of blocks (B,h,w) whose places, counted through all blocks, are ``wanted``; they ascend."""
    first = 0
    for block in blocks:
        start, end = np.searchsorted(wanted, [first, first + len(block)])
        yield block if end - start == len(block) else block[wanted[start:end] - first]
        first += len(block)


@contextmanager
def open_predictions(evaluation: Evaluation, subject: Subject, indices: Sequence[int]) -> Iterator[Iterator[NDArray[np.float32]]]:
    """Inverse depths of the chosen images in blocks (B,h,w), read or predicted while they are taken."""
    config, refs = evaluation.config, evaluation.refs
    if subject.ext_disp is not None:
        inv_depths = _open_ext(config, subject.ext_disp, evaluation.dataset, refs)
        ids = eigen_to_benchmark_ids()
        yield read_blocks(inv_depths, [ids[i] for i in indices] if config.eigen_to_benchmark else indices, config.batch_size)
        return
    if not len(indices):  # of fewer batches than processes
        yield iter(())
        return
    assert subject.weights is not None
    from dataload.loader import Loader
    from engine.inference.depth_network import load_depth_network
    from engine.inference.predictions import inference_dtype, predict_inv_depths
    from engine.precision import describe_precision, pick_device

    device = pick_device(no_cuda=config.no_cuda)
    network = load_depth_network(subject.weights, size_px=config.size_px) if subject.network is None else subject.network
    network = network.to(device)
    low, high = _depth_range(config, network)
    dtype = inference_dtype(config.amp, device)
    data = DataConfig(
        data_path=config.data_path, dataset=config.dataset, split=config.eval_split, height_px=network.height_px, width_px=network.width_px,
        frame_ids=(0,), image_ext=evaluation.dataset.image_ext, batch_size=config.batch_size, num_levels=1, num_workers=config.num_workers,
        loader=config.loader,
    )  # fmt: skip
    console.info(
        "%s: ResNet-%d at %dx%d, %s, %s",
        subject.name, network.num_layers, data.width_px, data.height_px, device.type, describe_precision(dtype, device),
    )  # fmt: skip
    with Loader(data, evaluation.dataset, [refs[i] for i in indices], training=False, device=device) as loader:
        batches = progress_bar(loader.steps_per_epoch, "predictions", "batches", items=loader.epoch(0), in_logs=True)
        yield predict_inv_depths(network, batches, min_depth=low, max_depth=high, post_process=config.post_process, autocast_dtype=dtype)


def _depth_range(config: EvalConfig, network: DepthNetwork) -> tuple[float, float]:
    low = network.min_depth if config.min_depth is None else config.min_depth
    high = network.max_depth if config.max_depth is None else config.max_depth
    if not low < high:
        raise InputError(f"min_depth={low} must be below max_depth={high}")
    return low, high


def _open_ext(config: EvalConfig, path: Path, dataset: Dataset, refs: Sequence[FrameRef]) -> InvDepths:
    if config.eigen_to_benchmark:
        return open_inv_depths(path, len(read_lines(DEFAULT_EVAL_SPLIT, "test")))
    stems = [dataset.image_path(ref).stem for ref in refs] if path.is_dir() else ()
    return open_inv_depths(path, len(refs), stems)


def _load_networks(config: EvalConfig, dataset: Dataset, subjects: Sequence[Subject]) -> tuple[list[Subject], dict[float, str]]:
    """The subjects with their networks, and the metres in their units, each with the first that has it: the dataset's where none says.

    Raises:
        InputError: damaged weights: those of the last are used when the others have long been evaluated.
    """
    loaded: list[Subject] = []
    factors: dict[float, str] = {}
    for subject in subjects:
        network = subject.network
        if subject.weights is not None:
            from engine.inference.depth_network import load_depth_network, require_size

            network = network or load_depth_network(subject.weights, size_px=config.size_px)
            require_size(network, config.size_px, subject.weights)
            _depth_range(config, network)
        own = None if network is None else network.metric_factor
        factors.setdefault(round(own or dataset.metric_factor, 6), subject.name)
        # The epochs of a run may be too many to be held at once.
        loaded.append(subject._replace(network=None if config.all_weights else network))
    return loaded, factors


def _scale_factor(config: EvalConfig, factors: Mapping[float, str]) -> float:
    """What depth is multiplied by: the metres in the models' unit where that is asked for.

    Raises:
        InputError: models of different units.
    """
    if config.scale_factor is not None:
        return config.scale_factor
    if len(factors) > 1:
        named = ", ".join(f"{factor:g} m of {name}" for factor, name in factors.items())
        raise InputError(f"the models' units differ ({named}); evaluate them one at a time, or by --eval_mono")
    return next(iter(factors))


def _warn_of_unknown_scale(subjects: Sequence[Subject], factor: float) -> None:
    """Warn where nothing says that depth images for the server are in metres: the metres in the model's unit are not known."""
    for subject in subjects:
        if subject.network is None or subject.network.metric_factor is None:
            console.warning(
                "%s: nothing says that its depths times %g are metres, which the KITTI server compares; of a mono model they are not: give "
                "--pred_depth_scale_factor (times the median ratio that --eval_mono shows), or --eval_stereo where stereo pairs trained it",
                subject.name, factor,
            )  # fmt: skip
