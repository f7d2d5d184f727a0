"""From weights to depth: ``DepthModel`` predicts images, ``DepthSession`` runs an ONNX file, ``export_model`` makes one."""

import os
from typing import TYPE_CHECKING

from splits.lazy import lazy_names

# onnxruntime would report to its maker what it runs, under a number that it keeps in the user's cache folder. Who has set it decides.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from export.choices import AssumedFacts
    from export.config import ExportConfig
    from export.conversion.run import export_model
    from export.model import DepthModel
    from export.prediction.depth import Depth, PointCloud
    from export.runtime.model_facts import ModelFacts
    from export.session import DepthSession

    __version__: str
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "AssumedFacts": "export.choices",
            "Depth": "export.prediction.depth",
            "DepthModel": "export.model",
            "DepthSession": "export.session",
            "ExportConfig": "export.config",
            "ModelFacts": "export.runtime.model_facts",
            "PointCloud": "export.prediction.depth",
            "export_model": "export.conversion.run",
        },
    )

__all__ = [
    "AssumedFacts",
    "Depth",
    "DepthModel",
    "DepthSession",
    "ExportConfig",
    "ModelFacts",
    "PointCloud",
    "__version__",
    "export_model",
]
