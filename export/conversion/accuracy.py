"""The cost of an export in accuracy: its ONNX file and the weights it was made of, scored side by side on frames with ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.config import EvalConfig
from engine.evaluation.disp_files import save_blocks
from engine.evaluation.output import comparison_table
from engine.evaluation.report import Candidate
from engine.evaluation.run import Evaluation, prepare, score_subjects
from engine.evaluation.subjects import Subject
from engine.inference.depth_network import DepthNetwork
from export.config import ExportConfig
from export.prediction.inputs import read_image
from export.runtime.fitting import fit_to_model
from export.session import DepthSession


def prepare_evaluation(config: ExportConfig, network: DepthNetwork | None = None) -> Evaluation | None:
    """Frames and ground truth, checked before the minutes of work; None where no ``data_path`` asks for a comparison.

    ``network`` is that of the weights, where it is loaded already.

    Raises:
        InputError: whatever is missing, damaged or does not fit together.
    """
    return None if config.data_path is None else prepare(_eval_config(config), network)


def compare(evaluation: Evaluation, model: Path) -> str:
    """The table of md-eval for the weights in torch and for the ONNX file ``model`` in onnxruntime, and how far abs_rel moved.

    Depth is metric where the file knows the metric factor, else aligned by the median. The file gets images as md-predict prepares them,
    by Pillow, or whole ones where it resizes itself; the weights get them as md-eval's loader does, by torch, which alone moves abs_rel by
    less than 0.01 %. The weights are scored at the size of their training, the file at its own.

    Raises:
        InputError: a damaged image.
    """
    session = DepthSession(model, "cpu")
    if session.facts.metric_factor is not None:
        metric = replace(evaluation.config, alignment="none", scale_factor=session.facts.metric_factor)
        evaluation = evaluation._replace(config=metric)
    with TemporaryDirectory(prefix="md-accuracy-") as folder:
        path = Path(folder) / "inv_depths.npy"
        for _ in save_blocks(_inv_depths(session, evaluation), path, range(len(evaluation.refs)), len(evaluation.refs)):
            pass
        subjects = [evaluation.subjects[0]._replace(name="torch"), Subject("onnxruntime", ext_disp=path)]
        torch, onnx = score_subjects(evaluation._replace(subjects=subjects))
    return f"{comparison_table([torch, onnx])}\n{_describe_change(torch, onnx)}"


def _eval_config(config: ExportConfig) -> EvalConfig:
    assert config.data_path is not None
    return EvalConfig(
        data_path=config.data_path, dataset=config.dataset, eval_split=config.eval_split, image_ext=config.image_ext,
        depth_scale=config.depth_scale, intrinsics=config.intrinsics,
        weights_folders=(config.weights,), no_cuda=True,
    )  # fmt: skip


def _inv_depths(session: DepthSession, evaluation: Evaluation) -> Iterator[NDArray[np.float32]]:
    """Inverse depth (1,h,w) of each frame."""
    for ref in evaluation.refs:
        image = read_image(evaluation.dataset.image_path(ref))
        yield session.inv_depth(fit_to_model(image, session.facts)[None])


def _describe_change(torch: Candidate, onnx: Candidate) -> str:
    before, after = (candidate.scores.means["abs_rel"] for candidate in (torch, onnx))
    return f"abs_rel moved from {before:.4f} in torch to {after:.4f} in onnxruntime: {after / before - 1:+.2%}"
