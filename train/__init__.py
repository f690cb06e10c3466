"""Offline work on MONet: data, training, evaluation, profiling and figures. Each a `python -m train.NAME`."""
