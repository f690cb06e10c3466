"""Transfer learning (section 4.2): encoder weights from torchvision, or what `train.pretrain` wrote."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from monet_perception.networks.config import ATTENTION_FIELDS, COMPONENT_FIELDS
from monet_perception.networks.monet import Monet
from monet_perception.networks.segmentation import SegmentationAttention

ATTENTION = "attention."
FOREIGN_TEXT = 200
"""Characters of torch's own text that are told of a file which doesn't describe its network."""

Part = Literal["encoder", "attention", "network"]
Differences = Mapping[str, tuple[Any, Any]]
"""By field of MonetConfig: its value in a file and in the network."""


class PretrainedError(ValueError):
    """Weights that don't fit the network or can't be had; the message names the source and the remedy."""


def load_pretrained(monet: Monet, source: str | Path) -> str:
    """Puts pre-trained weights into the attention network.

    Args:
        monet: changed in place.
        source: `imagenet` (classification), `coco` (semantic segmentation, COCO_WITH_VOC_LABELS: its backbone;
            ResNet-50 only), both downloaded by torchvision, or a safetensors file with the network's own tensor names:
            all of `attention.encoder.`, all of `attention.`, or a whole network, of which the attention is taken.
    Returns:
        What was loaded: `encoder` or `attention`.
    Raises:
        PretrainedError: the source does not exist, can't be downloaded, or has other shapes.
    """
    if str(source) in ("imagenet", "coco"):
        _segmentation_attention(monet, str(source))  # before hundreds of megabytes are downloaded
        return _load_encoder(monet, _torchvision_weights(monet, str(source)), str(source), {})
    return _load_file(monet, Path(source))


def load_network(monet: Monet, path: Path) -> None:
    """Puts the weights of another network of the same structure into the whole network.

    Args:
        monet: changed in place.
        path: safetensors file of a training, or one that `train.export` wrote.
    Raises:
        PretrainedError: the file does not exist or can't be read, holds an attention network only, or has other shapes.
    """
    _load(monet, _read(path), str(path), _differences(monet, path, "network"))


def _torchvision_weights(monet: Monet, source: str) -> dict[str, Tensor]:
    import torchvision  # here: it takes two seconds, and a node has no use for it

    name = monet.config.encoder
    try:
        if source == "imagenet":
            return torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=True)
        if name != "resnet50":
            raise PretrainedError(f"torchvision has COCO weights for resnet50, not for {name}; use imagenet or a file")
        weights = torchvision.models.segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1
        state = weights.get_state_dict(progress=True)
    except OSError as error:
        raise PretrainedError(
            f"can't download the {source} weights of {name} ({error}). Without internet: put torchvision's file into "
            f"{torch.hub.get_dir()}/checkpoints, or make weights with `python -m train.pretrain` and name that file"
        ) from error
    return {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}


def _read(path: Path, remedy: str = "") -> dict[str, Tensor]:
    if not path.is_file():
        raise PretrainedError(f"{path}: no such file{remedy}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise PretrainedError(f"{path}: not a safetensors file ({error})") from error


def _load_file(monet: Monet, path: Path) -> str:
    state = _read(path, "; use imagenet, coco or what `python -m train.pretrain` wrote")
    attention = {key.removeprefix(ATTENTION): value for key, value in state.items() if key.startswith(ATTENTION)}
    if attention and all(key.startswith("encoder.") for key in attention):
        encoder = {key.removeprefix("encoder."): v for key, v in attention.items()}
        return _load_encoder(monet, encoder, str(path), _differences(monet, path, "encoder"))
    _load(monet.attention, attention, str(path), _differences(monet, path, "attention"))
    return "attention"


def _load_encoder(monet: Monet, state: dict[str, Tensor], source: str, differences: Differences) -> str:
    encoder = _segmentation_attention(monet, source).encoder
    wanted = encoder.state_dict()
    # A classifier, or a stage that the network leaves out, has no place here; anything else missing is an error.
    _load(encoder, {key: value for key, value in state.items() if key in wanted}, source, differences)
    return "encoder"


def _segmentation_attention(monet: Monet, source: str) -> SegmentationAttention:
    """The attention that has an encoder to load; raises PretrainedError where it has none."""
    if not isinstance(monet.attention, SegmentationAttention):
        raise PretrainedError(f"{source}: MONet's recurrent attention has no encoder that could take these weights")
    return monet.attention


def _differences(monet: Monet, path: Path, part: Part) -> Differences:
    """What shapes the weights of a part and has another value in a file's own description than in the network."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    try:
        theirs = json.loads(metadata["config"]) if "config" in metadata else {"encoder": metadata["encoder"]}
        fields = _shaping_fields(part, theirs.get("attention", ""))
        ours = json.loads(json.dumps(monet.config.to_dict()))  # with lists in place of tuples, as theirs
        return {field: (theirs[field], ours[field]) for field in fields if theirs[field] != ours[field]}
    except (KeyError, ValueError, TypeError, AttributeError):  # a foreign file, which doesn't describe its network
        return {}


def _shaping_fields(part: Part, attention: str) -> tuple[str, ...]:
    """The fields of a MonetConfig that shape the weights of a part."""
    if part == "encoder":
        return ("encoder",)
    own = ATTENTION_FIELDS[attention]
    return (*own, *(field for field in COMPONENT_FIELDS if field not in own)) if part == "network" else own


def _load(module: torch.nn.Module, state: dict[str, Tensor], source: str, differences: Differences) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise PretrainedError(f"{source} does not fit the network: {_reason(error, differences)}") from error


def _reason(error: RuntimeError, differences: Differences) -> str:
    """What differs in structure, and how to mend it; the beginning of torch's list where nothing is known to differ."""
    if not differences:
        text = " ".join(str(error).split())
        return text if len(text) <= FOREIGN_TEXT else f"{text[:FOREIGN_TEXT]} ..."
    theirs, ours = (
        ", ".join(f"{field} {_spelt(values[side])}" for field, values in differences.items()) for side in (0, 1)
    )
    options = " ".join(f"--model.network.{field} {shlex.quote(_spelt(v))}" for field, (v, _) in differences.items())
    return f"it was trained with {theirs}, this network has {ours}: set {options}, or use another file"


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
