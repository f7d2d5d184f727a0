"""The places that an evaluation writes to: checked first, and held while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dataload.system.files import require_writable_file, require_writable_folder
from dataload.system.locks import hold
from engine.evaluation.config import EvalConfig
from engine.evaluation.report import PAGE
from engine.evaluation.subjects import Subject
from engine.parallel.ranks import Ranks
from engine.parallel.sameness import require_shared
from splits.errors import InputError


@contextmanager
def hold_outputs(config: EvalConfig, subjects: Sequence[Subject], ranks: Ranks) -> Iterator[None]:
    """Hold all that an evaluation of ``subjects`` will write; of several processes the first does it for all.

    Raises:
        InputError: something cannot be written or is being written by another process, two models would write to one place, or several
            processes would write to a folder that they do not share.
        FaultElsewhere: another process reports such a fault.
    """
    kept = _kept_predictions(config, subjects)
    with ExitStack() as stack:
        if ranks.is_first:
            _hold_all(config, kept, stack)
        for folder in dict.fromkeys(path.parent for path in kept):
            require_shared(ranks, folder, "put the predictions on one that they share (--eval_out_dir)")
        yield


def _hold_all(config: EvalConfig, kept: Sequence[Path], stack: ExitStack) -> None:
    # The report's folder first: the files may go there too.
    if config.report is not None:
        require_writable_folder(config.report, "give another one with --report")
        stack.enter_context(hold(config.report / PAGE, "wait until it has ended, or give another --report"))
    for option, path in (("json", config.json_path), ("csv", config.csv_path)):
        if path is not None:
            require_writable_file(path, option)
            stack.enter_context(hold(path, f"wait until it has ended, or give another --{option}"))
    for path in kept:
        require_writable_folder(path.parent, "give another one with --eval_out_dir")
        stack.enter_context(hold(path, "wait until it has ended, or give another --eval_out_dir"))


def disps_path(config: EvalConfig, subject: Subject) -> Path:
    """The file for the inverse depths of a subject."""
    return _out_folder(config, subject) / f"disps_{Path(config.eval_split).resolve().name}_split.npy"


def server_folder(config: EvalConfig, subject: Subject) -> Path:
    """The folder for a subject's depth images for the server."""
    return _out_folder(config, subject) / "benchmark_predictions"


def _out_folder(config: EvalConfig, subject: Subject) -> Path:
    """The folder for what is made of a subject: its weights folder or its file's folder, or one below ``eval_out_dir``."""
    made_of = Path(subject.weights or subject.ext_disp or "")
    own = made_of if made_of.is_dir() else made_of.parent
    if config.out_dir is None:
        return own
    several = config.all_weights or len(config.weights_folders) > 1
    return config.out_dir / "_".join(own.parts[-3:]) if several else config.out_dir


def _kept_predictions(config: EvalConfig, subjects: Sequence[Subject]) -> list[Path]:
    """``InputError`` where two models would keep theirs in one place."""
    of_networks = [subject for subject in subjects if subject.weights is not None]
    paths = [disps_path(config, subject) for subject in (of_networks if config.save_pred_disps else ())]
    paths += [server_folder(config, subject) for subject in (subjects if config.for_server else ())]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"two of the models would keep their inverse depths in {path.parent}; evaluate them one at a time")
    return paths
