"""What happens around the training steps: files, pictures, monitors and stops, each a Lightning callback."""

from train.callbacks.checkpointing import AtomicCheckpointIO, RunCheckpoint
from train.callbacks.export import Export
from train.callbacks.finite import NonFiniteLoss, NonFiniteStop
from train.callbacks.monitors import CollapseMonitor
from train.callbacks.pictures import DecompositionPictures
from train.callbacks.progress import RunProgress
from train.callbacks.reporting import ValidationReport
from train.callbacks.step_seed import StepSeed

__all__ = [
    "AtomicCheckpointIO",
    "CollapseMonitor",
    "DecompositionPictures",
    "Export",
    "NonFiniteLoss",
    "NonFiniteStop",
    "RunCheckpoint",
    "RunProgress",
    "StepSeed",
    "ValidationReport",
]
