"""What happens around the training steps: files, pictures, monitors and stops, each a Lightning callback."""

from train.callbacks.checkpointing import AtomicCheckpointIO, DamagedCheckpoint, RunCheckpoint
from train.callbacks.export import Export, UnknownMonitor
from train.callbacks.finite import NonFiniteLoss, NonFiniteStop
from train.callbacks.monitors import CollapseMonitor
from train.callbacks.pictures import DecompositionPictures
from train.callbacks.progress import RunProgress
from train.callbacks.rates import LearningRates
from train.callbacks.reporting import ValidationReport
from train.callbacks.step_seed import StepSeed

__all__ = [
    "AtomicCheckpointIO",
    "CollapseMonitor",
    "DamagedCheckpoint",
    "DecompositionPictures",
    "Export",
    "LearningRates",
    "NonFiniteLoss",
    "NonFiniteStop",
    "RunCheckpoint",
    "RunProgress",
    "StepSeed",
    "UnknownMonitor",
    "ValidationReport",
]
