"""What runs a network for the Decomposer: PyTorch (the reference, and GPUs) or ONNX Runtime (CPUs)."""
