"""Descriptions and errors that every room shares: plain Python, no torch, no onnx."""
