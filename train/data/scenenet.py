"""SceneNet RGB-D: random views of its trajectories, with instances as labels and depth along z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from monet_perception.region import Region, centre_square, resize_map
from train.data.crop import crop_text, cut, resize_published
from train.data.decode import read_image, read_map
from train.data.layout import StoreLayout
from train.data.source import BrokenRecord, Sample, SourceError

HEIGHT, WIDTH = 240, 320
HORIZONTAL_FIELD, VERTICAL_FIELD = np.deg2rad(60.0), np.deg2rad(45.0)
CROP = centre_square(HEIGHT, WIDTH, 192)
CAMERA_FIELDS = (
    *("fx", "fy", "cx", "cy"),  # pixels of the stored image, pixel centres at whole numbers
    *("camera_x", "camera_y", "camera_z", "lookat_x", "lookat_y", "lookat_z"),  # metres, y up, mid-exposure
)
FOREGROUND_TYPES = (3, 4)
"""LIGHT_OBJECT and RANDOM_OBJECT; BACKGROUND and LAYOUT_OBJECT are background."""

SceneNetSplit = Literal["train", "val"]


@dataclass(frozen=True)
class _Part:
    """A protobuf, and the trajectories in it."""

    protobuf: Path
    views: list[int]
    """How many each trajectory has."""


class SceneNet:
    """Views drawn at random from the trajectories of a split, in the order of the files.

    Labels: 0 background, objects from 1, an object having the same label all along its trajectory. Images of a
    trajectory are one group. `train` and `val` are the published parts: no trajectory is in both.

    Args:
        source: folder with `train`, `val` and the protobufs as published; of `train`'s 17 parts those that are there.
        split: which part.
        views: how many views to draw; None: all.
        seed: of the draw.
        crop: a square that is cut out of the 240x320 views.
        size: height and width of the stored images.
    Raises:
        SourceError: the layout is another one, or a protobuf is damaged.
    """

    def __init__(
        self,
        source: Path,
        split: SceneNetSplit = "train",
        views: int | None = 300_000,
        seed: int = 0,
        crop: Region = CROP,
        size: int = 192,
    ) -> None:
        if split not in get_args(SceneNetSplit):
            raise SourceError(f"SceneNet has no split {split}; it has {', '.join(get_args(SceneNetSplit))}")
        if crop.height != crop.width or not crop.inside(HEIGHT, WIDTH):
            raise SourceError(f"the crop {crop_text(crop)} is not a square inside SceneNet's {HEIGHT}x{WIDTH} views")
        self.crop, self.size = crop, size
        self._images = source / split
        self._parts = _find_parts(source, split)
        counts = [count for part in self._parts for count in part.views]
        self._drawn = _draw(counts, views, seed)
        self.layout = StoreLayout(
            dataset="scenenet",
            split=split,
            source=source.name,
            licence="Imperial College London, SceneNet RGB-D: see the publisher's terms; its tools are GPL",
            height=size,
            width=size,
            background_labels=1,
            seed=seed,
            labels=True,
            depth=True,
            camera_fields=CAMERA_FIELDS,
            groups=True,
            options={"views": views, "crop": crop_text(crop), "trajectories": len(counts)},
        )

    @property
    def records(self) -> int:
        """How many views were drawn."""
        return len(self._drawn)

    def read(self, start: int = 0) -> Iterator[Sample | BrokenRecord]:
        """Views from the `start`-th drawn on; one with a missing or broken file is a broken record."""
        ends = list(accumulate(len(part.views) for part in self._parts))
        for part, first, end in zip(self._parts, [0, *ends], ends, strict=False):
            inside = (self._drawn[start:, 0] >= first) & (self._drawn[start:, 0] < end)
            if not inside.any():
                continue
            trajectories = _parse(part.protobuf)  # one in memory at a time: all of them are gigabytes
            for record in (start + np.flatnonzero(inside)).tolist():
                number, view = self._drawn[record].tolist()
                try:
                    yield self._sample(record, number, trajectories[number - first], view)
                except (OSError, ValueError) as error:
                    yield BrokenRecord(record, str(error))

    def _sample(self, record: int, number: int, trajectory: Any, place: int) -> Sample:
        view = trajectory.views[place]
        paths = {
            kind: self._images / trajectory.render_path / kind / f"{view.frame_num}.{suffix}"
            for kind, suffix in (("photo", "jpg"), ("depth", "png"), ("instance", "png"))
        }
        photo = _checked(paths["photo"], read_image(paths["photo"]), np.uint8)
        ray = _checked(paths["depth"], read_map(paths["depth"]), np.uint16)
        instance = _checked(paths["instance"], read_map(paths["instance"]), np.uint16)
        maps = [cut(array, self.crop) for array in (_labels(instance, _foreground(trajectory)), _ray_to_z(ray))]
        labels, depth = (resize_map(array, self.size, self.size) for array in maps)
        camera = np.concatenate([self._intrinsics(), _pose(view)]).astype(np.float32)
        image = resize_published(cut(photo, self.crop), self.size)
        return Sample(record, image, labels, depth=depth, camera=camera, group=number)

    def _intrinsics(self) -> NDArray[np.float64]:
        scale = self.size / self.crop.width
        fx, fy, cx, cy = _INTRINSICS
        moved = ((cx - self.crop.x + 0.5) * scale - 0.5, (cy - self.crop.y + 0.5) * scale - 0.5)
        return np.array([fx * scale, fy * scale, *moved])


# Of the whole view; pixel centres at whole numbers put the optical axis at 159.5, 119.5.
_INTRINSICS = (
    WIDTH / 2 / np.tan(HORIZONTAL_FIELD / 2),
    HEIGHT / 2 / np.tan(VERTICAL_FIELD / 2),
    (WIDTH - 1) / 2,
    (HEIGHT - 1) / 2,
)


def _ray_lengths() -> NDArray[np.float64]:
    """[240, 320]: distance along the ray of a pixel per distance along z."""
    fx, fy, cx, cy = _INTRINSICS
    x = (np.arange(WIDTH) - cx) / fx
    y = (np.arange(HEIGHT) - cy) / fy
    return np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)


_RAY_LENGTHS = _ray_lengths()


def _ray_to_z(depth: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Millimetres along the ray to millimetres along z, which is what depth cameras and the store have."""
    return np.rint(depth / _RAY_LENGTHS).astype(np.uint16)


def _labels(instance: NDArray[np.uint16], foreground: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Instance ids to 0 for background and 1, 2, ... for the trajectory's objects in the order of their ids."""
    if len(foreground) > 255:
        raise ValueError(f"the trajectory has {len(foreground)} objects, and labels reach to 255")
    table = np.zeros(1 << 16, np.uint8)
    table[foreground] = np.arange(1, len(foreground) + 1)
    return table[instance]


def _checked(path: Path, array: NDArray[Any], dtype: type) -> NDArray[Any]:
    if array.shape[:2] != (HEIGHT, WIDTH) or array.dtype != dtype:
        raise ValueError(f"{path} is {array.dtype} {array.shape} instead of {np.dtype(dtype)} {HEIGHT}x{WIDTH}")
    return array


def _draw(views: list[int], count: int | None, seed: int) -> NDArray[np.int64]:
    """[n, 2]: trajectory and view of `count` different ones (fewer where there are fewer), sorted."""
    ends = np.cumsum(views)
    total = int(ends[-1])
    if count is None or count >= total:
        drawn = np.arange(total)
    else:
        drawn = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    trajectory = np.searchsorted(ends, drawn, side="right")
    return np.stack([trajectory, drawn - (ends - views)[trajectory]], axis=1)


def _find_parts(source: Path, split: SceneNetSplit) -> list[_Part]:
    images = source / split
    if not images.is_dir():
        raise SourceError(f"{images} doesn't exist; --source is the folder that holds {split}/ and the protobufs")
    if split == "val":
        protobufs = [source / "scenenet_rgbd_val.pb"]
    else:
        numbers = sorted(int(path.name) for path in images.iterdir() if path.name.isdigit())
        protobufs = [source / "train_protobufs" / f"scenenet_rgbd_train_{number}.pb" for number in numbers]
    if not protobufs:
        raise SourceError(f"{images} holds none of the parts 0 to 16")
    parts = [_Part(path, [len(trajectory.views) for trajectory in _parse(path)]) for path in protobufs]
    if not any(count for part in parts for count in part.views):
        raise SourceError(f"the protobufs of {split} name no view")
    return parts


def _parse(protobuf: Path) -> Any:
    """Trajectories of a protobuf."""
    trajectories_class, decode_error = _protobuf()
    message = trajectories_class()
    try:
        message.ParseFromString(protobuf.read_bytes())
    except FileNotFoundError:
        raise SourceError(f"{protobuf} is missing; it is published beside the images, in a file of its own") from None
    except decode_error as error:
        raise SourceError(f"{protobuf} is truncated or no SceneNet protobuf ({error})") from error
    return message.trajectories


def _foreground(trajectory: Any) -> NDArray[np.int32]:
    """Instance ids of the objects, ascending."""
    ids = {i.instance_id for i in trajectory.instances if i.instance_type in FOREGROUND_TYPES}
    return np.array(sorted(ids), np.int32)


def _pose(view: Any) -> NDArray[np.float64]:
    """[6]: camera and look-at point halfway through the exposure."""
    ends = [
        [getattr(point, axis) for point in (pose.camera, pose.lookat) for axis in "xyz"]
        for pose in (view.shutter_open, view.shutter_close)
    ]
    return np.mean(ends, axis=0)


# Message, field, number, type, repeated: what this reader uses of SceneNet's protobuf; the rest is passed over.
_SCHEMA = (
    ("Trajectories", "trajectories", 1, "Trajectory", True),
    ("Trajectory", "instances", 2, "Instance", True),
    ("Trajectory", "views", 3, "View", True),
    ("Trajectory", "render_path", 4, "string", False),
    ("Instance", "instance_id", 1, "int32", False),
    ("Instance", "instance_type", 4, "int32", False),
    ("View", "frame_num", 1, "int32", False),
    ("View", "shutter_open", 2, "Pose", False),
    ("View", "shutter_close", 3, "Pose", False),
    ("Pose", "camera", 1, "Position", False),
    ("Pose", "lookat", 2, "Position", False),
    ("Position", "x", 1, "float", False),
    ("Position", "y", 2, "float", False),
    ("Position", "z", 3, "float", False),
)


def _protobuf() -> tuple[Any, type[Exception]]:
    """The class of the message Trajectories, and what it raises where there is none.

    Described here and not taken from the published tools, which are under the GPL.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise SourceError("reading SceneNet needs protobuf: pip install 'monet_perception[train]'") from error
    types = {"string": 9, "int32": 5, "float": 2}
    package = "monet_perception.scenenet"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    messages: dict[str, Any] = {}
    for message, field, number, kind, repeated in _SCHEMA:
        if message not in messages:
            messages[message] = file.message_type.add(name=message)
        description = messages[message].field.add(name=field, number=number, label=3 if repeated else 1)
        if kind in types:
            description.type = types[kind]
        else:
            description.type, description.type_name = 11, f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Trajectories")), DecodeError
