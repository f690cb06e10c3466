"""Makes rviz.png: one frame of a recording of record.py in Debian's rviz, off screen.

    sudo apt-get install rviz xvfb imagemagick python3-rospy python3-rosmaster python3-{sensor,visualization}-msgs
    python docs/images/rviz.py scene.mcap --seconds 9

Debian has the rviz of ROS 1. It has the same displays as rviz2 under other names, so the shipped config/decompose.rviz
is translated: names of classes and how a topic is written. The messages are the recorded ones.
"""

import argparse
import contextlib
import os
import pickle
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[2] / "config" / "decompose.rviz"
TOPICS = "/camera/image", "/scene/overlay", "/scene/labels", "/scene/error", "/scene/markers", "/scene/cloud"
TOPIC_PROPERTY = {"rviz/Image": "Image Topic", "rviz/MarkerArray": "Marker Topic"}
SCREEN = "1460x1060"
WINDOW = "1400x1000+60+60"
SMALL = "-resize", "75%", "-dither", "None", "-colors", "256", "-depth", "8"
ROS_1 = {
    "ROS_MASTER_URI": "http://localhost:11399",
    "ROS_HOSTNAME": "localhost",
    "ROS_PACKAGE_PATH": "/usr/share",
    "DISPLAY": ":77",
    "LIBGL_ALWAYS_SOFTWARE": "1",
}


def frame(recording: Path, seconds: float) -> dict[str, tuple[str, Any]]:
    """The newest message on each topic at that moment: name of its type, and its fields as dictionaries."""
    from rosbags.highlevel import AnyReader

    found = {}
    with AnyReader([recording]) as reader:
        wanted = [connection for connection in reader.connections if connection.topic in TOPICS]
        for connection, stamp, raw in reader.messages(connections=wanted):
            if stamp - reader.start_time > 1e9 * seconds:
                break
            message = reader.deserialize(raw, connection.msgtype)
            found[connection.topic] = connection.msgtype.split("/")[-1], plain(message)
    return found


def plain(value: Any) -> Any:
    """A message as dictionaries, lists and bytes, which every Python can load."""
    if hasattr(value, "__msgtype__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__ if name != "__msgtype__"}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "tobytes"):
        return value.tobytes() if value.dtype == "uint8" else value.tolist()
    return value


def translated(config: Any) -> Any:
    """A configuration of rviz2 as rviz 1 reads it."""
    if isinstance(config, list):
        return [translated(item) for item in config]
    if not isinstance(config, dict):
        return config
    found = {key: translated(value) for key, value in config.items()}
    kind = str(found.get("Class", "")).replace("rviz_default_plugins/", "rviz/").replace("rviz_common/", "rviz/")
    if "Class" in found:
        found["Class"] = kind
    if isinstance(found.get("Topic"), dict):
        found[TOPIC_PROPERTY.get(kind, "Topic")] = found.pop("Topic")["Value"]
    return found


def publish(path: Path) -> None:
    """Runs in the system's Python: publishes the frame over and over, with stamps of now."""
    import rospy
    from roslib.message import get_message_class
    from sensor_msgs.msg import Image, PointCloud2
    from visualization_msgs.msg import MarkerArray

    def fill(message: Any, fields: dict[str, Any]) -> Any:
        for name, kind in zip(message.__slots__, message._slot_types, strict=True):
            value = fields.get(name)
            if kind in ("time", "duration"):
                value = rospy.Time.now() if kind == "time" else rospy.Duration(0)
            elif isinstance(value, dict):
                value = fill(getattr(message, name), value)
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                value = [fill(get_message_class(kind.rstrip("[]"))(), item) for item in value]
            if value is not None:
                setattr(message, name, value)
        return message

    rospy.init_node("replay")
    kinds = {kind.__name__: kind for kind in (Image, PointCloud2, MarkerArray)}
    messages = pickle.loads(path.read_bytes())
    publishers = {t: rospy.Publisher(t, kinds[kind], queue_size=1) for t, (kind, _) in messages.items()}
    while not rospy.is_shutdown():
        for topic, (kind, fields) in messages.items():
            publishers[topic].publish(fill(kinds[kind](), fields))
        time.sleep(0.5)


@contextlib.contextmanager
def running(*command: str) -> Iterator[None]:
    """A process of ROS 1."""
    process = subprocess.Popen(command, env={**os.environ, **ROS_1}, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--seconds", type=float, default=9.0, help="which moment of the recording (%(default)s)")
    parser.add_argument("--patience", type=float, default=40.0, help="seconds for drawing without a GPU (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("rviz.png"))
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(options.recording)
        return
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        config, messages = Path(folder) / "translated.rviz", Path(folder) / "messages"
        config.write_text(yaml.safe_dump(translated(yaml.safe_load(CONFIG.read_text())), sort_keys=False))
        messages.write_bytes(pickle.dumps(frame(options.recording, options.seconds)))
        with (
            running("Xvfb", ROS_1["DISPLAY"], "-screen", "0", f"{SCREEN}x24"),
            running("rosmaster", "--core", "-p", ROS_1["ROS_MASTER_URI"].split(":")[-1]),
        ):
            time.sleep(3)
            with running("/usr/bin/python3", __file__, str(messages), "--publish"), running("rviz", "-d", str(config)):
                time.sleep(options.patience)
                grab = ["import", "-window", "root", "-crop", WINDOW, "+repage", *SMALL, str(options.output)]
                subprocess.run(grab, env={**os.environ, **ROS_1}, check=True)


if __name__ == "__main__":
    main()
