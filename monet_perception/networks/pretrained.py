"""Transfer learning (section 4.2): encoder weights from torchvision, or what `train.pretrain` wrote."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from monet_perception.networks.monet import Monet
from monet_perception.networks.segmentation import SegmentationAttention

ATTENTION = "attention."


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
        return _load_encoder(monet, _torchvision_weights(monet, str(source)), str(source))
    return _load_file(monet, Path(source))


def load_network(monet: Monet, path: Path) -> None:
    """Puts the weights of another network of the same structure into the whole network.

    Args:
        monet: changed in place.
        path: safetensors file of a training, or one that `train.export` wrote.
    Raises:
        PretrainedError: the file does not exist or can't be read, holds an attention network only, or has other shapes.
    """
    _load(monet, _read(path), str(path))


def _torchvision_weights(monet: Monet, source: str) -> dict[str, Tensor]:
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
        return _load_encoder(monet, {key.removeprefix("encoder."): v for key, v in attention.items()}, str(path))
    _load(monet.attention, attention, str(path))
    return "attention"


def _load_encoder(monet: Monet, state: dict[str, Tensor], source: str) -> str:
    if not isinstance(monet.attention, SegmentationAttention):
        raise PretrainedError(f"{source}: MONet's recurrent attention has no encoder that could take these weights")
    wanted = monet.attention.encoder.state_dict()
    # A classifier, or a stage that the network leaves out, has no place here; anything else missing is an error.
    _load(monet.attention.encoder, {key: value for key, value in state.items() if key in wanted}, source)
    return "encoder"


def _load(module: torch.nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise PretrainedError(f"{source} does not fit the network: {error}") from error
