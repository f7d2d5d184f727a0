"""Where a run stands when ``train`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a run stands after ``train``.

    Attributes:
        finished: whether it came to its end; False when it was interrupted (Ctrl-C, SIGTERM, SIGHUP) and can be resumed.
        stopped_by: the number of the signal that interrupted it; None where it is finished.
        run_folder: of the whole run: options, logs, weights.
        weights_folder: the last weights it has saved, ``models/weights_<epoch>``, or where it was interrupted ``models/step_<n>``.
        best_weights_folder: ``models/best``, those of the best validation; None where none was completed.
        epoch: how many epochs are complete. global_step: how many steps were made, of all epochs together.
        best_val_loss, best_val_abs_rel: the least so far; infinite where no validation was completed, abs_rel also where the validation
            list has no ground truth.
    """

    finished: bool
    stopped_by: int | None
    run_folder: Path
    weights_folder: Path
    best_weights_folder: Path | None
    epoch: int
    global_step: int
    best_val_loss: float
    best_val_abs_rel: float
