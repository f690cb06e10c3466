"""What a scene is made of, before anything draws it: things, lights, a camera."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from train.scenes.film import Film

Vector = tuple[float, float, float]
Colour = tuple[float, float, float]
"""Red, green and blue in [0, 1]."""

CAMERA_FIELDS = ("x", "y", "z", "qx", "qy", "qz", "qw", "fx", "fy", "cx", "cy")
"""Columns of a store's cameras.npy: position in metres and orientation of the optical frame (x right, y down, z along
the view) in the world, focal lengths and principal point in pixels, pixel centres at whole numbers."""

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Thing:
    """One shape of one colour somewhere in the world.

    Attributes:
        shape: a name from `shapes.SHAPES`, or `shapes.model_shape` of a model of the renderer's.
        size: half extents along the shape's own axes, metres.
        position: of its centre, metres.
        rotation: from its own axes to the world's, 3x3, row by row.
        colour: of its surface; a texture and a model's own colours are multiplied by it, a model's by more than 1 where
            it is to be brighter.
        label: what the label image shows where it is visible.
        texture: number of a texture of the renderer, or None.
        specular, shininess, reflectance: of the surface, [0, 1].
    """

    shape: str
    size: Vector
    position: Vector
    colour: Colour
    label: int
    rotation: tuple[float, ...] = IDENTITY
    texture: int | None = None
    specular: float = 0.2
    shininess: float = 0.3
    reflectance: float = 0.0


@dataclass(frozen=True)
class Light:
    """A lamp at a position, or the sun where `directional`; intensities in [0, 1] are those of each colour channel."""

    position: Vector
    direction: Vector = (0.0, 0.0, -1.0)
    ambient: float = 0.0
    diffuse: float = 0.6
    specular: float = 0.3
    directional: bool = False
    casts_shadow: bool = False


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels.

    Attributes:
        position: metres.
        forward, up: orthogonal unit vectors in the world.
        field_of_view: vertical, degrees.
    """

    position: Vector
    forward: Vector
    up: Vector
    field_of_view: float

    @classmethod
    def looking(cls, position: Vector, yaw: float, pitch: float, field_of_view: float, roll: float = 0.0) -> Camera:
        """A camera that looks to `yaw` (from the x to the y axis), lifted by `pitch`, tilted by `roll`; radians."""
        cos_yaw, sin_yaw, cos_pitch, sin_pitch = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
        right = (sin_yaw, -cos_yaw, 0.0)
        upright = (-cos_yaw * sin_pitch, -sin_yaw * sin_pitch, cos_pitch)
        cos_roll, sin_roll = math.cos(roll), math.sin(roll)
        up = tuple(cos_roll * u + sin_roll * r for u, r in zip(upright, right, strict=True))
        forward = (cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch)
        return cls(position, forward, (up[0], up[1], up[2]), field_of_view)

    @property
    def rotation(self) -> NDArray[np.float64]:
        """[3, 3]; its columns are the axes of the optical frame in the world."""
        forward, down = np.array(self.forward), -np.array(self.up)
        return np.stack([np.cross(down, forward), down, forward], axis=1)

    def intrinsics(self, height: int, width: int) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels of an image of this size."""
        focal = height / 2 / math.tan(math.radians(self.field_of_view) / 2)
        return focal, focal, (width - 1) / 2, (height - 1) / 2

    def row(self, height: int, width: int) -> NDArray[np.float32]:
        """Values of `CAMERA_FIELDS`."""
        quaternion = quaternion_of(self.rotation)
        return np.array([*self.position, *quaternion, *self.intrinsics(height, width)], np.float32)


@dataclass(frozen=True)
class SimulatedScene:
    """Everything that decides a picture and its ground truth.

    Attributes:
        things: objects and background.
        camera: where it is seen from.
        lights: at most 8.
        factors: by name, the values of the objects 0, 1, ...
        sky: whether the sky is drawn where nothing else is; black otherwise.
        film: how the camera shows it, or None: as it is.
    """

    things: Sequence[Thing]
    camera: Camera
    lights: Sequence[Light]
    factors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    sky: bool = True
    film: Film | None = None


def yaw_rotation(yaw: float) -> tuple[float, ...]:
    """3x3, row by row: a turn about the vertical axis by `yaw` radians."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0


def quaternion_of(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """x, y, z, w of a 3x3 rotation."""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return x, y, z, w
