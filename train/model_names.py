"""Names of models in tables: the thesis's, and what tells networks of one name apart."""

from __future__ import annotations

from collections.abc import Sequence

from monet_perception.networks import MonetConfig
from train.runs import Training


def model_name(config: MonetConfig) -> str:
    """The thesis's name of a structure: MONet, MONet-RN50, MONet-RN50*, and alike for other encoders."""
    if config.attention == "unet":
        return "MONet"
    return f"MONet-RN{config.encoder.removeprefix('resnet')}{'*' if config.skip_connections else ''}"


def structure_name(config: MonetConfig, others: Sequence[MonetConfig]) -> str:
    """`model_name`, followed by the fields in which `others` of that name differ, as in `MONet, slots=7`."""
    name = model_name(config)
    namesakes = [other.to_dict() for other in others if model_name(other) == name]
    fields = config.to_dict().items()
    different = [f"{field}={value}" for field, value in fields if any(other[field] != value for other in namesakes)]
    return ", ".join([name, *different])


def name_by_run(name: str, training: Training | None, table: str) -> str:
    """A structure's name, told apart by pre-training and initialisation (in a column of its own in table 5.1)."""
    if training is None:
        return name
    if training.fine_tuned is not None:
        name += ", fine-tuned"
    elif training.pretrained is not None:
        name += ", pre-trained"
    if table == "5.1":
        return f"{name}/{training.initialisation.capitalize()}"
    return name if training.initialisation == "kaiming" else f"{name}, {training.initialisation} initialisation"
