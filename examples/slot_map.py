"""A map of the objects around a moving camera: takes slots in 3D, fuses them into landmarks, prints and draws the map.

Beside a running `decompose` node, until Ctrl-C or --duration:
    python examples/slot_map.py
    python examples/slot_map.py --pose /camera/pose --duration 20 --png map.png
On a recording, without ROS and without a node:
    python examples/slot_map.py --bag monet_perception/data/demo.mcap --png map.png
    python examples/slot_map.py --bag room.mcap --checkpoint mine.safetensors
    python examples/slot_map.py --bag room.mcap --masks truth      # the geometry alone: the recorded labels as slots

The camera's pose has to be known, from SLAM or odometry: a PoseStamped of the optical frame in a world whose z points
up. Where the true objects are known (`/camera/objects`), each landmark's error is printed.
Needs `pip install monet_perception[demo,train]` (rosbags, matplotlib).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from landmarks import LandmarkMap, Observation, View, to_world
from map_report import draw_map, match_landmarks, table
from numpy.typing import NDArray

from monet_perception.calibration import camera_intrinsics
from monet_perception.clip import CAMERA_INFO, OBJECTS, POSE
from monet_perception.geometry import Intrinsics, SlotGeometry, slot_geometry
from monet_perception.labels import FIRST_OBJECT_LABEL, label_masks
from monet_perception.recording import (
    POSE_WITHIN,
    Frame,
    TrueObject,
    pose_matrix,
    read_frames,
    true_objects,
)
from monet_perception.region import Region
from monet_perception.slots import mask_area
from monet_perception.stamps import NANOSECONDS, stamp_nanoseconds
from monet_perception.tracking import Tracker, TrackerSettings

if TYPE_CHECKING:
    from rclpy.node import Node

Array = NDArray[np.float64]

MASK_SIZE = 64
"""Side of the masks made from recorded labels."""
MIN_OBSERVATIONS = 10
"""Frames from which on a landmark is printed and drawn; what was seen less often is mostly an error of segmentation."""
MAX_SIGMA = 0.25
"""Metres to which a landmark's position has to have been known at least once to be printed and drawn."""


@dataclass
class Survey:
    """What a walk through a scene gave: the map, the camera's path, and the true objects seen, where they are known."""

    map: LandmarkMap = field(default_factory=LandmarkMap)
    path: list[Array] = field(default_factory=list)
    objects: dict[int, TrueObject] = field(default_factory=dict)


# From a recording ----------------------------------------------------------------------------------


Observer = Callable[[Frame], tuple[list[Observation], Region]]
"""Slots of a frame in the world, and the pixels of the image that they come from."""


def survey_recording(path: Path, observe: Observer, *, rectified: bool = False) -> Survey:
    """Fuses a recording frame by frame.

    Args:
        path: MCAP file or bag folder.
        observe: from `network_observer` or `label_observer`.
        rectified: whether its images are.
    Raises:
        ValueError: the recording lacks camera_info, depth or poses, or has none for any image.
    """
    survey = Survey()
    for number, frame in enumerate(read_frames(path, rectified=rectified)):
        if frame.depth is None or frame.camera is None:
            raise ValueError(f"{path} has no depth or no camera poses: landmarks need both")
        observations, roi = observe(frame)
        survey.map.update(observations, frame.stamp, View(frame.camera, frame.intrinsics, roi))
        survey.path.append(frame.camera[:3, 3])
        survey.objects.update(_objects_in_view(frame))
        if sys.stderr.isatty() and number % 10 == 0:
            print(f"\r{number} frames", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    return survey


def network_observer(checkpoint: Path | None) -> Observer:
    """Slots by the network (None: the shipped one), tracked over the frames."""
    from monet_perception.decomposer import Decomposer  # only here: torch takes seconds to import

    decomposer = Decomposer() if checkpoint is None else Decomposer(checkpoint)
    tracker = Tracker()

    def observe(frame: Frame) -> tuple[list[Observation], Region]:
        scene = decomposer(frame.image)
        tracks = tracker.update(scene.masks, scene.latent_mean, scene.latent_log_sigma, frame.stamp)
        geometries = slot_geometry(scene.masks, scene.roi, frame.depth, frame.intrinsics)
        observations = [
            to_world(frame.camera, track, geometry, scene.latent_mean[slot], scene.latent_log_sigma[slot])
            for slot, (track, geometry) in enumerate(zip(tracks.tolist(), geometries, strict=True))
            if track >= 0 and geometry is not None and not geometry.background
        ]
        return observations, scene.roi

    return observe


def label_observer() -> Observer:
    """Slots by the recorded labels; their latents are the prior, which says nothing, so that position alone decides."""

    def observe(frame: Frame) -> tuple[list[Observation], Region]:
        if frame.labels is None:
            raise ValueError("the recording has no labels: use --masks network")
        masks, roi = label_masks(frame.labels, MASK_SIZE)
        geometries = slot_geometry(masks, roi, frame.depth, frame.intrinsics)
        large_enough = mask_area(masks) >= TrackerSettings.min_area
        prior = np.zeros(1)
        observations = [
            to_world(frame.camera, label, geometry, prior, prior)
            for label, geometry in enumerate(geometries)
            if label >= FIRST_OBJECT_LABEL and geometry is not None and large_enough[label]
        ]
        return observations, roi

    return observe


def _objects_in_view(frame: Frame) -> dict[int, TrueObject]:
    """True objects of which at least a share of `min_area` of the image shows; all, where there are no labels."""
    if frame.labels is None:
        return frame.objects
    share = np.bincount(frame.labels.ravel(), minlength=256) / frame.labels.size
    return {label: truth for label, truth in frame.objects.items() if share[label] >= TrackerSettings.min_area}


# From a running node -------------------------------------------------------------------------------


def survey_topics(slots: str, pose: str, camera_info: str, duration: float, *, rectified: bool = False) -> Survey:
    """Fuses what a running `decompose` node publishes, until Ctrl-C or `duration` seconds (infinite: no end).

    Args:
        slots: topic of monet_perception_msgs/SlotArray.
        pose: topic of geometry_msgs/PoseStamped, the camera's optical frame in the world.
        camera_info: topic of sensor_msgs/CameraInfo; without it landmarks that are no longer seen stay on the map.
        duration: seconds.
        rectified: whether the node's images are.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException

    rclpy.init()
    node = rclpy.create_node("slot_map")
    survey = Survey()
    listener = _Listener(node, survey, slots, pose, camera_info, rectified)
    end = time.monotonic() + duration
    try:
        while rclpy.ok() and time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    listener.explain_silence()
    return survey


class _Listener:
    """Subscriptions of the live map: joins each SlotArray with the camera's pose of the same stamp."""

    POSES_KEPT = 500
    FRAMES_WAITING = 50

    def __init__(self, node: Node, survey: Survey, slots: str, pose: str, camera_info: str, rectified: bool) -> None:
        from geometry_msgs.msg import PoseStamped
        from monet_perception_msgs.msg import SlotArray
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo
        from visualization_msgs.msg import MarkerArray

        self._survey = survey
        self._poses: dict[float, Array] = {}
        self._topics = {slots: 0, pose: 0}
        self._slots, self._pose, self._rectified = slots, pose, rectified
        self._waiting: deque[Any] = deque(maxlen=self.FRAMES_WAITING)
        self._unplaced = 0
        self._intrinsics: Intrinsics | None = None
        node.create_subscription(SlotArray, slots, self._on_slots, QoSProfile(depth=5))
        # Best effort takes both kinds of publishers, a reliable subscription only reliable ones.
        node.create_subscription(PoseStamped, pose, self._on_pose, qos_profile_sensor_data)
        node.create_subscription(CameraInfo, camera_info, self._on_info, qos_profile_sensor_data)
        node.create_subscription(MarkerArray, OBJECTS, self._on_objects, qos_profile_sensor_data)

    def _on_pose(self, message: Any) -> None:
        self._topics[self._pose] += 1
        self._poses[_seconds(message.header)] = pose_matrix(message.pose)
        if len(self._poses) > self.POSES_KEPT:
            del self._poses[next(iter(self._poses))]
        self._place()

    def _on_info(self, message: Any) -> None:
        if message.k[0] > 0:  # zero: a camera that isn't calibrated
            self._intrinsics = camera_intrinsics(message, rectified=self._rectified)

    def _on_objects(self, message: Any) -> None:
        self._survey.objects.update(true_objects(message))

    def _on_slots(self, message: Any) -> None:
        self._topics[self._slots] += 1
        self._waiting.append(message)
        self._place()

    def _place(self) -> None:
        """Fuses the frames whose pose has come; one without a pose is given up when later poses are there."""
        from monet_perception.nodes.slot_messages import read_region

        while self._waiting and self._poses:
            stamp = _seconds(self._waiting[0].header)
            nearest = min(self._poses, key=lambda other: abs(other - stamp))
            placed = abs(nearest - stamp) <= POSE_WITHIN
            if not placed and max(self._poses) <= stamp:
                return
            message = self._waiting.popleft()
            self._unplaced += not placed
            if placed:
                camera = self._poses[nearest]
                roi = read_region(message)
                view = View(camera, self._intrinsics, roi) if self._intrinsics and roi.width else None
                self._survey.map.update(message_observations(message, camera), stamp, view)
                self._survey.path.append(camera[:3, 3])

    def explain_silence(self) -> None:
        """Says on stderr why the map may be empty."""
        for topic, count in self._topics.items():
            if not count:
                print(f"nothing came on {topic}", file=sys.stderr)
        if self._unplaced:
            print(f"left out {self._unplaced} frames without a pose within {POSE_WITHIN} s", file=sys.stderr)


def message_observations(message: Any, camera: Array) -> list[Observation]:
    """Slots of a SlotArray in the world: those that have a track and a centroid and are no piece of a background."""
    from monet_perception.nodes.slot_messages import object_slots  # only here: a recording needs no ROS

    observations = []
    for slot, is_object in zip(message.slots, object_slots(message), strict=True):
        if is_object:
            covariance = np.array(slot.covariance).reshape(3, 3)
            geometry = SlotGeometry(np.array(slot.centroid), covariance, np.array(slot.extent))
            observations.append(to_world(camera, slot.track_id, geometry, slot.latent_mean, slot.latent_log_sigma))
    return observations


def _seconds(header: Any) -> float:
    return stamp_nanoseconds(header) / NANOSECONDS


# ---------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line; see the module's docstring for examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bag", type=Path, help="MCAP file or bag folder to read instead of topics")
    parser.add_argument("--masks", choices=("network", "truth"), default="network", help="with --bag: whose masks")
    parser.add_argument("--checkpoint", type=Path, help="with --bag: network (default: the shipped one)")
    parser.add_argument("--slots", default="/scene/slots", help="SlotArray topic (default: %(default)s)")
    parser.add_argument("--pose", default=POSE, help="PoseStamped topic of the camera (default: %(default)s)")
    parser.add_argument(
        "--camera-info", default=CAMERA_INFO, help="CameraInfo topic: what is in view (default: %(default)s)"
    )
    parser.add_argument("--rectified", action="store_true", help="the images are: camera_info's P counts, not K and D")
    parser.add_argument(
        "--duration", type=float, default=float("inf"), help="seconds to listen (default: until Ctrl-C)"
    )
    parser.add_argument(
        "--png", type=Path, default=Path("slot_map.png"), help="where the map is drawn (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Surveys, prints the landmarks and draws the map; returns the exit status."""
    options = parse_arguments(arguments)
    try:
        if options.bag:
            observer = label_observer() if options.masks == "truth" else network_observer(options.checkpoint)
            survey = survey_recording(options.bag, observer, rectified=options.rectified)
        else:
            topics = options.slots, options.pose, options.camera_info
            survey = survey_topics(*topics, options.duration, rectified=options.rectified)
    except (OSError, ValueError) as error:
        print(f"slot_map: {error}", file=sys.stderr)
        return 1
    landmarks = survey.map.landmarks(MIN_OBSERVATIONS, MAX_SIGMA)
    matches = match_landmarks(landmarks, survey.objects)
    print(table(landmarks, matches))
    draw_map(options.png, landmarks, survey.objects, survey.path)
    print(f"map: {options.png}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
