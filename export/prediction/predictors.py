"""From what a model is called to what runs it: an ONNX file by onnxruntime, weights by torch."""

from __future__ import annotations

from importlib.util import find_spec

from dataload.system.installing import WITH_REQUIREMENTS
from export.choices import ModelOptions, is_onnx
from export.prediction.models import find_model
from export.prediction.predict import Predictor
from splits.errors import InputError


def open_predictor(options: ModelOptions) -> Predictor:
    """The predictor of a model.

    Raises:
        InputError: no such model, a damaged one, options that it cannot take, or a package missing that it needs.
    """
    model = options.model
    try:
        if is_onnx(model):
            from export.prediction.onnx_predictor import onnx_predictor

            provider = "cpu" if options.no_cuda else options.provider
            return onnx_predictor(find_model(model), provider=provider, assumed=options.assumed)
        if find_spec("torch") is None:  # asked before a released model is downloaded
            raise ModuleNotFoundError(name="torch")
        weights = find_model(model)
        from export.prediction.torch_predictor import torch_predictor

        return torch_predictor(weights, no_cuda=options.no_cuda, amp=options.amp, size_px=options.size_px)
    except ModuleNotFoundError as error:
        raise InputError(f"model {model} needs {error.name}: {WITH_REQUIREMENTS}, or give an ONNX file of md-export") from error
