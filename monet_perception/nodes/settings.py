"""The parameters of the node `decompose`: one table."""

from __future__ import annotations

from monet_perception.backends.selection import BACKENDS
from monet_perception.backends.torch_backend import DEVICE, PRECISIONS
from monet_perception.decomposer import CROPS
from monet_perception.nodes.depth import DepthMatcher
from monet_perception.nodes.inputs import DEPTH_TRANSPORTS, TRANSPORTS
from monet_perception.nodes.parameters import Spec
from monet_perception.nodes.slot_messages import MASK_ENCODINGS
from monet_perception.shipped import SHIPPED
from monet_perception.tracking import TrackerSettings


def _device_fault(value: str) -> str | None:
    if DEVICE.fullmatch(value):
        return None
    return f"device is {value!r}; it must be auto, cpu, cuda or cuda:N"


SPECS = (
    Spec(
        "checkpoint",
        "",
        f"The network: {' or '.join(SHIPPED)}, which come with the package, or the path of a .safetensors file; "
        "empty: rooms.",
    ),
    Spec(
        "device",
        "auto",
        "Where the network runs: auto (a GPU if there is one), cpu, cuda, cuda:N.",
        check=_device_fault,
    ),
    Spec(
        "precision",
        "auto",
        "Arithmetic of the network; auto: bf16 on GPUs, and on CPUs with openvino, that have it, else fp32.",
        choices=PRECISIONS,
    ),
    Spec(
        "backend",
        "auto",
        "What runs the network; auto: PyTorch on GPUs, ONNX Runtime on CPUs.",
        choices=BACKENDS,
    ),
    Spec("quantised", False, "Run in 8-bit integers, on CPUs, not with torch: faster, a little less exact."),
    Spec("threads", 0, "Threads of the network on a CPU; 0: as many as cores.", least=0, most=256),
    Spec(
        "transport",
        "raw",
        "Topic and type of the images: raw (`image`) or compressed (`image/compressed`).",
        choices=TRANSPORTS,
    ),
    Spec(
        "depth_transport",
        "raw",
        "Topic and type of the depth images: raw (`depth`) or compressedDepth (`depth/compressedDepth`).",
        choices=DEPTH_TRANSPORTS,
    ),
    Spec(
        "crop",
        "centre",
        "What the network sees: the largest square in the centre, or the whole image squashed.",
        choices=CROPS,
    ),
    Spec(
        "rectified",
        "auto",
        "Whether the images are rectified; auto: if a word of their topic's name begins with rect.",
        choices=("auto", "true", "false"),
    ),
    Spec("autostart", True, "Configure and activate by itself at start."),
    Spec(
        "publish_reconstructions", True, "Fill Slot.reconstruction; costs a run of the decoder per frame.", running=True
    ),
    Spec(
        "mask_encoding",
        "mono8",
        "Encoding of Slot.mask: 8 bit or 32-bit float.",
        running=True,
        choices=tuple(MASK_ENCODINGS),
    ),
    Spec(
        "min_area",
        TrackerSettings.min_area,
        "Area in the image, 0 to 1, below which a slot is empty and gets no track.",
        running=True,
        least=0.0,
        most=1.0,
    ),
    Spec(
        "max_absence",
        TrackerSettings.max_absence,
        "Seconds that a track may be missing before it is forgotten.",
        running=True,
        least=0.0,
        most=60.0,
    ),
    Spec(
        "overlay_size",
        640,
        "Longest side of /scene/overlay in pixels; larger images are drawn smaller.",
        running=True,
        least=64,
        most=4096,
    ),
    Spec(
        "depth_tolerance",
        DepthMatcher.tolerance,
        "Seconds that the stamps of image and depth may differ.",
        running=True,
        least=0.0,
        most=1.0,
    ),
    Spec(
        "depth_patience",
        DepthMatcher.patience,
        "Seconds that a frame waits for a depth image still under way.",
        running=True,
        least=0.0,
        most=1.0,
    ),
    Spec(
        "diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", running=True, least=0.1, most=60.0
    ),
    Spec(
        "camera_timeout",
        2.0,
        "Seconds without an image after which /diagnostics warns; five times that is an error.",
        running=True,
        least=0.1,
        most=600.0,
    ),
    Spec(
        "max_latency",
        0.2,
        "Seconds of median latency, reception to publication, above which /diagnostics warns.",
        running=True,
        least=0.001,
        most=60.0,
    ),
    Spec(
        "max_reconstruction_error",
        0.02,
        "Mean squared error, colours in [0, 1], above which /diagnostics warns.",
        running=True,
        least=0.0,
        most=1.0,
    ),
)
