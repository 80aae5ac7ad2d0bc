"""The model file as the line reads it, without ONNX's library."""
