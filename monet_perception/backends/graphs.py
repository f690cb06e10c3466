"""ONNX graphs of networks, without their weights.

A graph depends on the configuration only. The weights stay where they are, in the checkpoint, and are given to ONNX
Runtime beside the graph: nothing is stored twice, no graph can go stale when a network is trained further, and a graph
weighs 50 kB, so those of the presets come with the package. Others are exported on first use, which needs the packages
`onnx` and `onnxscript`, and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any, get_args

import torch

from monet_perception.backends.stages import FrameEncoder, LatentDecoder, Part
from monet_perception.checkpoint import read_info
from monet_perception.files import write_bytes
from monet_perception.networks import PRESETS, Monet, MonetConfig
from monet_perception.networks.config import ATTENTION_FIELDS, COMPONENT_FIELDS
from monet_perception.shipped import SHIPPED

GRAPH_VERSION = 2  # raised when the exported graphs change, so that older ones in caches are left alone
SHIPPED_GRAPHS = Path(__file__).parents[1] / "data" / "graphs"
# Where a graph says its weights are. No such file exists: ONNX Runtime is given the checkpoint's tensors by name.
WEIGHTS_ELSEWHERE = "checkpoint"
# Larger than any constant of a graph, smaller than what would be worth keeping out of it.
FOLDING_LIMIT = 1 << 20
NAMES = {
    "encoder": (["frames"], ["masks", "latent_mean", "latent_log_sigma"]),
    "decoder": (["latents"], ["reconstructions", "mask_logits"]),
}

log = logging.getLogger(__name__)


class GraphError(RuntimeError):
    """A graph that can't be had; the message names the remedy."""


def cache_folders() -> list[Path]:
    """Where exported graphs and quantised networks are kept: `$XDG_CACHE_HOME` or `~/.cache`, `/monet_perception`.

    Empty where neither is known, as for a service without a home.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return []
    return [cache / "monet_perception"]


def graph_name(config: MonetConfig, part: Part) -> str:
    """File name of a graph, the same for all configurations that have the same graph."""
    fields = {*ATTENTION_FIELDS[config.attention], "slots", "head", "image_size", "latent_size"}
    if part == "decoder":
        fields = set(COMPONENT_FIELDS)
    structure = {key: value for key, value in config.to_dict().items() if key in fields}
    digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).hexdigest()
    return f"{digest[:12]}.{part}.v{GRAPH_VERSION}.onnx"


def weight_names(names: list[str], part: Part) -> list[str]:
    """Which of a checkpoint's tensors a graph takes: all of its modules' except the batch counters of training."""
    modules = ("attention.", "component.encoder.") if part == "encoder" else ("component.decoder.",)
    return [name for name in names if name.startswith(modules) and not name.endswith(".num_batches_tracked")]


def obtain_graph(config: MonetConfig, part: Part) -> bytes:
    """The graph from the package, from the cache, or exported into it.

    Raises:
        GraphError: it has to be exported and `onnx` or `onnxscript` is not installed.
    """
    name = graph_name(config, part)
    for folder in (SHIPPED_GRAPHS, *cache_folders()):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    log.info("exporting the %s of this configuration to ONNX, once; it takes some ten seconds", part)
    graph = export_graph(config, part)
    if keep(graph, [folder / name for folder in cache_folders()]) is None:
        log.warning("the exported graph can't be kept: the next start exports it again")
    return graph


def keep(content: bytes, paths: list[Path]) -> Path | None:
    """Writes to the first path that can be written to, and returns it."""
    for path in paths:
        try:
            write_bytes(path, content)
        except OSError as error:
            log.warning("%s can't be written: %s", path, error)
        else:
            return path
    return None


def export_graph(config: MonetConfig, part: Part) -> bytes:
    """Exports one half of a network; its initialisers have the checkpoint's names, and no values.

    Raises:
        GraphError: `onnx` or `onnxscript` is not installed.
    """
    check_export_packages()
    import onnx_ir
    import onnxscript.optimizer

    monet = Monet(config, initialisation=None)
    model = export_program(_part_of(monet, part), part, config, optimise=False).model
    expected = weight_names(list(monet.state_dict()), part)
    # Weights are inputs while the graph is simplified: a constant folded from them would belong to one checkpoint.
    weights = [model.graph.initializers.pop(name) for name in expected]
    for value in weights:
        value.const_value = None
        model.graph.inputs.append(value)
    onnxscript.optimizer.optimize_ir(model, input_size_limit=FOLDING_LIMIT, output_size_limit=FOLDING_LIMIT)
    return _without_weights(onnx_ir.to_proto(model), set(expected))


def export_program(
    module: torch.nn.Module, part: Part, config: MonetConfig, *, optimise: bool = True
) -> torch.onnx.ONNXProgram:
    """One half of a network as an ONNX program that takes batches of any size.

    Args:
        module: takes uint8 frames [B, H, W, 3] (`encoder`) or latents [B, L] (`decoder`).
        part: which half it is.
        config: of the network.
        optimise: whether constants are folded.
    """
    # Two, because an example of one makes a graph for batches of one.
    example = torch.zeros(2, config.image_size, config.image_size, 3, dtype=torch.uint8)
    if part == "decoder":
        example = torch.zeros(2, config.latent_size)
    with torch.no_grad():  # the component decoder computes the same in another way where gradients are asked for
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, optimize=optimise, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=NAMES[part][0], output_names=NAMES[part][1],
        )  # fmt: skip
    assert program is not None
    return program


def check_export_packages() -> None:
    """Raises GraphError with the remedy where the packages that export needs are not installed."""
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        names = " ".join(missing)
        raise GraphError(
            f"ONNX export needs packages that are not installed: `pip install {names}`, or use backend torch"
        )


def _part_of(monet: Monet, part: Part) -> torch.nn.Module:
    return FrameEncoder(monet) if part == "encoder" else LatentDecoder(monet)


def _without_weights(model: Any, weights: set[str]) -> bytes:
    """Turns inputs that are weights into initialisers whose values are elsewhere; drops what only people read."""
    from onnx import TensorProto

    inputs = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(value for value in inputs if value.name not in weights)
    for value in inputs:
        if value.name in weights:
            shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            tensor = model.graph.initializer.add(name=value.name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=WEIGHTS_ELSEWHERE)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    return bytes(model.SerializeToString(deterministic=True))


def ship(configs: list[MonetConfig]) -> None:
    """Has `SHIPPED_GRAPHS` hold the graphs of these configurations, and no others."""
    wanted = {graph_name(config, part): (config, part) for config in configs for part in get_args(Part)}
    for path in SHIPPED_GRAPHS.glob("*.onnx"):
        if path.name not in wanted:
            path.unlink()
    for name, (config, part) in wanted.items():
        if not (SHIPPED_GRAPHS / name).is_file():
            write_bytes(SHIPPED_GRAPHS / name, export_graph(config, part))


def shipped_configs() -> list[MonetConfig]:
    """Configurations whose graphs come with the package: those of the presets and of the networks that come with it."""
    return [*PRESETS.values(), *(read_info(path).config for path in SHIPPED.values())]


if __name__ == "__main__":  # for maintainers, after a change to the networks, the presets or the shipped checkpoint
    ship(shipped_configs())
