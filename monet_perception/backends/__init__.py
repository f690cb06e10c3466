"""What runs a network for the Decomposer: PyTorch (the reference, and GPUs), ONNX Runtime or OpenVINO (CPUs)."""
