"""From weights to an ONNX file that was compared with them."""
