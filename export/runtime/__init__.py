"""An ONNX file and what runs it; neither torch nor onnx is imported here."""
