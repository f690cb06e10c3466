"""The networks of the thesis: attention, component VAE, their union, the loss and the initialisation. Torch only."""

from monet_perception.networks.config import PRESETS, ConfigError, MonetConfig, network_config
from monet_perception.networks.initialisation import initialise
from monet_perception.networks.loss import MonetLoss, monet_loss
from monet_perception.networks.monet import Decoding, Encoding, Monet, MonetOutput
from monet_perception.networks.pretrained import PretrainedError, load_network, load_pretrained

__all__ = [
    "PRESETS",
    "ConfigError",
    "Decoding",
    "Encoding",
    "Monet",
    "MonetConfig",
    "MonetLoss",
    "MonetOutput",
    "PretrainedError",
    "initialise",
    "load_network",
    "load_pretrained",
    "monet_loss",
    "network_config",
]
