"""Records what `decompose` says about the demo's clip as MCAP, without ROS; with ROS, take `ros2 bag record`.

    python docs/images/record.py scene.mcap

Foxglove and Lichtblick open the file with config/foxglove.json; viewer.py takes their picture.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, Image

from monet_perception.nodes.outputs import TOPICS
from monet_perception.nodes.process import ros, spin

ROOT = Path(__file__).parents[2]
CAMERA = {"image": "/camera/image", "depth": "/camera/depth", "camera_info": "/camera/camera_info"}
RECORDED: dict[str, type] = {
    "/camera/image": Image,
    "/camera/camera_info": CameraInfo,
    **{f"/scene/{name}": kind for name, kind in TOPICS.items()},
    "/diagnostics": DiagnosticArray,
}


class Recorder(Node):
    """Writes each message as it came, still serialised.

    Args:
        writer: of an open bag.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__("recorder")
        self._writer = writer
        types = get_typestore(Stores.ROS2_JAZZY)
        for path in sorted((ROOT / "monet_perception_msgs" / "msg").glob("*.msg")):
            types.register(get_types_from_msg(path.read_text(), f"monet_perception_msgs/msg/{path.stem}"))
        for topic, kind in RECORDED.items():
            name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            connection = writer.add_connection(topic, name, typestore=types)
            self.create_subscription(kind, topic, self._write_to(connection), QoSProfile(depth=100), raw=True)

    def _write_to(self, connection: Any) -> Callable[[bytes], None]:
        return lambda data: self._writer.write(connection, time.time_ns(), data)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="of the recording, ending in .mcap")
    options = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds.xml"))
    command = sys.executable, "-m"
    remappings = [text for name, topic in CAMERA.items() for text in ("-r", f"{name}:={topic}")]
    with tempfile.TemporaryDirectory(dir=options.path.resolve().parent) as folder:
        writer = Writer(Path(folder) / "scene", version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer, ros([]) as stop:
            recorder = Recorder(writer)
            decompose = subprocess.Popen([*command, "monet_perception.nodes.decompose", "--ros-args", *remappings])
            camera = subprocess.Popen([*command, "monet_perception.nodes.camera", "--wait-for", "2"])
            spin(recorder, lambda: stop.is_set() or camera.poll() is not None)
            for process in (camera, decompose):
                process.terminate()
                process.wait()
            recorder.destroy_node()
        (Path(folder) / "scene" / "scene.mcap").replace(options.path)


if __name__ == "__main__":
    main()
