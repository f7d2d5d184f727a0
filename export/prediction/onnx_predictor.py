"""An ONNX file as a predictor, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

from export.choices import AssumedFacts
from export.prediction.predict import Predictor
from export.session import DepthSession


def onnx_predictor(model: Path, *, provider: str, assumed: AssumedFacts | None) -> Predictor:
    """The predictor of an ONNX file; raises ``InputError`` as ``DepthSession`` does."""
    session = DepthSession(model, provider, assumed)
    return Predictor(session.inv_depth, session.size_px, session.facts.metric_factor)
