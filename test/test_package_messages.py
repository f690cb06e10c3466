"""The interface package: its fields, their comments, and how its build treats wrong values."""

import subprocess
import sys
from pathlib import Path

import pytest
from monet_perception_msgs.msg import Slot, SlotArray
from monet_perception_msgs.srv import DecodeSlots

MSGS = Path(__file__).parents[1] / "monet_perception_msgs"


@pytest.mark.parametrize(
    ("interface", "fields"),
    [
        (
            SlotArray,
            {
                "header": "std_msgs/Header",
                "model_id": "string",
                "source_height": "uint32",
                "source_width": "uint32",
                "roi": "sensor_msgs/RegionOfInterest",
                "slots": "sequence<monet_perception_msgs/Slot>",
            },
        ),
        (
            Slot,
            {
                "index": "uint16",
                "track_id": "int32",
                "area": "float",
                "latent_mean": "sequence<float>",
                "latent_log_sigma": "sequence<float>",
                "mask": "sensor_msgs/Image",
                "reconstruction": "sensor_msgs/Image",
                "centroid": "sequence<double>",
                "covariance": "sequence<double>",
                "extent": "sequence<double>",
                "background": "boolean",
                "occluding_share": "float",
            },
        ),
        (DecodeSlots.Request, {"model_id": "string", "latents": "sequence<float>", "count": "uint32"}),
        (
            DecodeSlots.Response,
            {
                "success": "boolean",
                "message": "string",
                "reconstructions": "sequence<sensor_msgs/Image>",
                "masks": "sequence<sensor_msgs/Image>",
            },
        ),
    ],
)
def test_fields_are_the_published_ones(interface: type, fields: dict[str, str]):
    """Other packages, and bags, depend on them: a change here is a new version of the interface."""
    assert interface.get_fields_and_field_types() == fields


@pytest.mark.parametrize("path", sorted([*MSGS.glob("msg/*"), *MSGS.glob("srv/*")]), ids=lambda path: path.name)
def test_every_field_is_described(path: Path):
    described = False
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            described = True
        elif not line or line == "---":
            described = False
        else:
            assert described, f"no comment above {line!r}"


def test_a_wrong_value_raises_and_does_not_abort():
    """In a build without NDEBUG the process would end by SIGABRT: a node that publishes would be gone."""
    code = (
        "from rclpy.serialization import serialize_message\n"
        "from monet_perception_msgs.msg import Slot\n"
        "slot = Slot(); slot._mask = None\n"
        "try:\n    serialize_message(slot)\n"
        "except Exception as error:\n    print('raised', type(error).__name__)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("raised")
