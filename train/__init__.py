"""Offline work on MONet: data, training, evaluation, profiling and figures. One command each, `python -m train.NAME`."""
