"""An evaluation of ego-motion from its config: true poses, predicted motions, scores, and what is kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from dataload.system.console import console, shown_console
from dataload.system.files import require_writable_file, require_writable_folder, whole_file, whole_files
from dataload.system.json_text import json_text
from dataload.system.locks import hold
from engine.odometry.config import PoseEvalConfig
from engine.odometry.errors import Array, absolute_poses, heading_error_deg, inverse
from engine.odometry.motions import PUBLISHED_SEQUENCES, predict_motions, published_refs
from engine.odometry.plot import draw_trajectory, write_page
from engine.odometry.scores import PoseScores, score_motions
from engine.odometry.trajectory import kitti_rows, read_kitti_poses, read_motions, timestamps_s, tum_rows
from engine.parallel.ranks import Ranks, joined
from engine.parallel.sameness import config_facts, require_same
from splits.errors import InputError

# Motions whose inverse is nearer to the truth by this factor were saved the other way round; below this error nothing is wrong.
FAR_BETTER, LEAST_ERROR_DEG = 3.0, 5.0
MOTIONS_FILE, SCORES_FILE = "poses.npy", "pose.json"
PAGE_FILE = "index.html"


def evaluate_pose(config: PoseEvalConfig) -> PoseScores:
    """Predict or read the motions of one sequence, score them against its true poses, and write what the config asks for.

    Processes that torchrun has started share the pairs of frames, where all of them call this with the same config: each returns the
    scores of the whole sequence.

    Args:
        config: as ``PoseEvalConfig.from_options`` makes it.

    Raises:
        InputError: whatever is missing, damaged or does not fit together, processes too; found before the network runs wherever it can be.
        FaultElsewhere: another of several processes reports such a fault.
    """
    with joined() as ranks, shown_console():
        if ranks.world > 1:
            require_same(ranks, _common_facts(config))
        gt_poses = read_gt_poses(config.data_path, config.sequence)
        seconds = timestamps_s(config.data_path, config.sequence, len(gt_poses))
        with ranks.machine_first():  # weights may have to be fetched
            out_dir = _out_dir(config)
        with _hold_outputs(config, out_dir) if ranks.is_first else nullcontext():
            ranks.heart.tell("evaluating")
            motions = _motions(config, gt_poses, ranks)
            if config.weights_folder is not None and ranks.is_first:
                assert out_dir is not None
                # Before scoring, which may refuse them.
                _save_motions(motions, out_dir / MOTIONS_FILE)
            scores = score_motions(gt_poses, motions, sequence=config.sequence)
            if ranks.is_first:
                _keep(config, scores, gt_poses, motions, seconds, out_dir)
            return scores


def _common_facts(config: PoseEvalConfig) -> dict[str, Any]:
    """What all processes must have alike before they load anything."""
    facts = config_facts(config)
    if config.weights_folder is not None:
        from engine.precision import pick_device

        facts["the device"] = pick_device(no_cuda=config.no_cuda).type
    return facts


@contextmanager
def _hold_outputs(config: PoseEvalConfig, out_dir: Path | None) -> Iterator[None]:
    """Hold what will be written; ``InputError`` where something cannot be, or is being written by another process."""
    with ExitStack() as stack:
        for folder in (out_dir, config.report):
            if folder is not None:
                require_writable_folder(folder, "give another one with --eval_out_dir or --report")
        if config.json_path is not None:
            require_writable_file(config.json_path, "json")
        outputs = {"json": config.json_path}
        outputs |= {"eval_out_dir": out_dir and out_dir / MOTIONS_FILE, "report": config.report and config.report / PAGE_FILE}
        for option, path in outputs.items():
            if path is not None:
                stack.enter_context(hold(path, f"wait until it has ended, or give another --{option}"))
        yield


def _motions(config: PoseEvalConfig, gt_poses: Array, ranks: Ranks) -> Array:
    """The motions (N-1,4,4) of a file, or of the network as all ranks together predict them."""
    if config.ext_poses is None:
        return predict_motions(config, len(gt_poses), ranks).astype(np.float64)
    motions = read_motions(config.ext_poses, len(gt_poses))
    if ranks.is_first:
        _warn_of_the_inverse(gt_poses, motions, config)
    return motions


def _save_motions(motions: Array, file: Path) -> None:
    with whole_file(file) as path:
        np.save(path, motions.astype(np.float32))
    console.info("Saved motions %s to %s", motions.shape, file)


def _keep(config: PoseEvalConfig, scores: PoseScores, gt_poses: Array, motions: Array, seconds: Array, out_dir: Path | None) -> None:
    """Write what was asked for of the scores: the trajectory, the report, JSON."""
    if out_dir is not None:
        _write_trajectory(out_dir, scores, gt_poses, motions, seconds)
        console.info("Saved trajectory_%02d_{kitti,tum}.txt and .png to %s", config.sequence, out_dir)
    if config.report is not None:
        _write_report(config.report, config, scores, gt_poses, motions)
    if config.json_path is not None:
        with whole_file(config.json_path) as path:
            path.write_text(_json(config, scores), encoding="utf-8")


def _warn_of_the_inverse(gt_poses: Array, motions: Array, config: PoseEvalConfig) -> None:
    """Warn where the inverse of motions made elsewhere fits far better: they are then saved the other way round."""
    errors = [heading_error_deg(gt_poses, candidate) for candidate in (motions, inverse(motions))]
    if errors[0] < LEAST_ERROR_DEG or errors[1] * FAR_BETTER > errors[0]:
        return
    as_given, turned = (score_motions(gt_poses, candidate, sequence=config.sequence) for candidate in (motions, inverse(motions)))
    console.warning(
        "%s: its inverse fits far better (ATE %.2f m, as given %.2f m%s): the file holds T_previous_next, and T_next_previous is wanted, "
        "which maps points of a frame into the next one; save numpy.linalg.inv of it",
        config.ext_poses, turned.ate_rmse_m, as_given.ate_rmse_m, _t_errors(turned, as_given),
    )  # fmt: skip


def _t_errors(turned: PoseScores, as_given: PoseScores) -> str:
    """Both translation errors, where the path is long enough to have them."""
    if not len(turned.segments.length_m):
        return ""
    return f"; t_err {turned.segments.t_err_percent:.1f} % instead of {as_given.segments.t_err_percent:.1f} %"


def read_gt_poses(data_path: Path, sequence: int) -> Array:
    """The true poses (N,4,4), T_world_camera, metres, of a sequence: ``<data>/poses/09.txt``.

    Raises:
        InputError: no such file, a damaged one, or another number of frames than the published list has.
    """
    path = data_path / "poses" / f"{sequence:02d}.txt"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the true poses of sequence {sequence}; unpack KITTI odometry's data_odometry_poses.zip "
            f"(its poses folder) in {data_path}, or give another --data_path"
        )
    poses = read_kitti_poses(path)
    if len(poses) < 2:
        raise InputError(f"{path} holds one pose; motion needs two frames or more")
    if sequence in PUBLISHED_SEQUENCES and len(poses) != len(published_refs(sequence)) + 1:
        raise InputError(
            f"{path} holds {len(poses)} poses, sequence {sequence} has {len(published_refs(sequence)) + 1} frames; unpack it again"
        )
    return poses


def _out_dir(config: PoseEvalConfig) -> Path | None:
    """Where trajectories go; with weights, beside them by default."""
    if config.out_dir is not None or config.weights_folder is None:
        return config.out_dir
    from engine.inference.pose_network import pose_folder

    return pose_folder(config.weights_folder)


def _write_trajectory(folder: Path, scores: PoseScores, gt_poses: Array, motions: Array, seconds: Array) -> None:
    """The predicted poses, scaled to metres, in both text forms, and the plot."""
    poses = absolute_poses(motions, scores.alignment.scale)
    stem = f"trajectory_{scores.sequence:02d}"
    contents = {
        f"{stem}_kitti.txt": kitti_rows(poses).encode(),
        f"{stem}_tum.txt": tum_rows(poses, seconds).encode(),
        f"{stem}.png": draw_trajectory(gt_poses, motions, scores),
    }
    with whole_files([folder / name for name in contents]) as paths:
        for path, content in zip(paths, contents.values(), strict=True):
            path.write_bytes(content)


def _write_report(folder: Path, config: PoseEvalConfig, scores: PoseScores, gt_poses: Array, motions: Array) -> None:
    plot = draw_trajectory(gt_poses, motions, scores)
    with whole_file(folder / f"trajectory_{scores.sequence:02d}.png") as path:
        path.write_bytes(plot)
    with whole_file(folder / SCORES_FILE) as path:
        path.write_text(_json(config, scores), encoding="utf-8")
    write_page(folder / PAGE_FILE, scores, plot, subject=_subject(config))
    console.info("Report in %s", folder / PAGE_FILE)


def _json(config: PoseEvalConfig, scores: PoseScores) -> str:
    circumstances = {"eval_split": f"odom_{config.sequence}", "evaluated": _subject(config)}
    return json_text(scores.as_json() | circumstances, 2) + "\n"


def _subject(config: PoseEvalConfig) -> str:
    return str(config.weights_folder or config.ext_poses)
