"""From batches to weights, and from weights to scores: ``train``, ``evaluate``, and the networks and losses by themselves."""

from typing import TYPE_CHECKING

from splits.lazy import lazy_names

if TYPE_CHECKING:
    from engine.evaluation.config import EvalConfig
    from engine.evaluation.evaluate import EvalResult, evaluate
    from engine.inference.depth_network import DepthNetwork, load_depth_network
    from engine.loss.objective import LossTerms, Objective, Predictions
    from engine.networks import Networks
    from engine.odometry.config import PoseEvalConfig
    from engine.odometry.run import evaluate_pose
    from engine.odometry.scores import PoseScores
    from engine.options import LossConfig, ModelConfig
    from engine.training.build import initial_networks, make_step
    from engine.training.config import TrainConfig
    from engine.training.result import TrainResult
    from engine.training.step import TrainStep
    from engine.training.train import train
    from engine.weights import InputSize, load_weights, save_weights

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "DepthNetwork": "engine.inference.depth_network",
            "EvalConfig": "engine.evaluation.config",
            "EvalResult": "engine.evaluation.evaluate",
            "InputSize": "engine.weights",
            "LossConfig": "engine.options",
            "LossTerms": "engine.loss.objective",
            "ModelConfig": "engine.options",
            "Networks": "engine.networks",
            "Objective": "engine.loss.objective",
            "PoseEvalConfig": "engine.odometry.config",
            "PoseScores": "engine.odometry.scores",
            "Predictions": "engine.loss.objective",
            "TrainConfig": "engine.training.config",
            "TrainResult": "engine.training.result",
            "TrainStep": "engine.training.step",
            "evaluate": "engine.evaluation.evaluate",
            "evaluate_pose": "engine.odometry.run",
            "initial_networks": "engine.training.build",
            "load_depth_network": "engine.inference.depth_network",
            "load_weights": "engine.weights",
            "make_step": "engine.training.build",
            "save_weights": "engine.weights",
            "train": "engine.training.train",
        },
    )

__all__ = [
    "DepthNetwork",
    "EvalConfig",
    "EvalResult",
    "InputSize",
    "LossConfig",
    "LossTerms",
    "ModelConfig",
    "Networks",
    "Objective",
    "PoseEvalConfig",
    "PoseScores",
    "Predictions",
    "TrainConfig",
    "TrainResult",
    "TrainStep",
    "__version__",
    "evaluate",
    "evaluate_pose",
    "initial_networks",
    "load_depth_network",
    "load_weights",
    "make_step",
    "save_weights",
    "train",
]
