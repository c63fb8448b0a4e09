"""graftkit grafts dendrites onto trained PyTorch models and ships them as plain ONNX files."""
