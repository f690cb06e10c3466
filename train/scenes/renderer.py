"""Draws scenes off screen with MuJoCo: image, label image and depth.

Mesa, the OpenGL of machines without a GPU, brings LLVM along, and so does Triton, which torchvision imports. A process
that draws first and imports Triton later crashes; the other order is fine. So `drawing` draws in processes of its own.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Before mujoco and Mesa are imported or loaded: rendering without a screen, and one core for each process, because many
# processes that draw small pictures are faster than threads that share one.
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

try:
    import mujoco
except ImportError as error:
    raise ImportError("rendering needs MuJoCo: pip install 'monet_perception[render]'") from error
except RuntimeError as error:  # the name of a way to draw that it doesn't know
    raise ImportError(f"MuJoCo can't be loaded ({error}); MUJOCO_GL has to be egl or unset") from error
import cv2
import numpy as np
from numpy.typing import NDArray

from train.scenes.assets import Assets
from train.scenes.models import Part
from train.scenes.scene import Camera, Colour, Light, SimulatedScene, Thing
from train.scenes.shapes import MESHES, SOLIDS, model_number, normals_of

NEAR, FAR = 0.05, 60.0
"""Distances of the clipping planes, metres."""
MAX_SHAPES = 64
"""In a scene; each part of a model is one."""
MAX_MATERIALS = 1000
"""MuJoCo's own limit."""
SHADOWED_RADIUS = 6.0
"""Shadows of directional lights fall within this distance of the line through the light, metres."""
_TYPES = {name: getattr(mujoco.mjtGeom, f"mjGEOM_{name.upper()}") for name in SOLIDS}
_BACKGROUND_CODE = 255
"""Stands for label 0 while labels are drawn: things of label 0 have to hide what is behind them."""
_SUPERSAMPLING = 2
"""Drawn pixels to an image pixel, along each axis."""
_MESH = mujoco.mjtGeom.mjGEOM_MESH
_FLAG = mujoco.mjtRndFlag


class RenderError(RuntimeError):
    """Scenes can't be drawn on this machine."""


@dataclass(frozen=True)
class Rendering:
    """A drawn scene: image uint8 [H, W, 3], labels uint8 [H, W], depth float32 [H, W] in metres along z (0: none)."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    depth: NDArray[np.float32]


@dataclass(frozen=True)
class _Shape:
    """What is drawn: number of a mesh, or None for MuJoCo's own; colour; number of a material, or None."""

    mesh: int | None
    colour: Colour
    material: int | None

    def tinted(self, tint: Colour) -> _Shape:
        """With its colour multiplied by another, each channel at most 1."""
        red, green, blue = (min(own * other, 1.0) for own, other in zip(self.colour, tint, strict=True))
        return _Shape(self.mesh, (red, green, blue), self.material)


class SceneRenderer:
    """Draws one scene after the other.

    One model is compiled, which holds only meshes and textures; each scene fills MuJoCo's list of things to draw
    directly: 0.05 ms, where compiling a model takes 10. Images are drawn at twice their size and averaged, which on a
    CPU antialiases at 0.6 of the cost of OpenGL's multisampling.

    Args:
        height, width: of the pictures, pixels.
        shadow_size: side of the shadow map in pixels; 0: no shadows, much faster.
        assets: textures and models that things can name. With models, sides that face away are drawn as well, lit from
            the other side, since foreign models don't always tell the inside from the outside.
    Raises:
        RenderError: OpenGL without a screen is not available, or it can't draw pictures or shadow maps so large.
    """

    def __init__(self, height: int, width: int, *, shadow_size: int = 0, assets: Assets | None = None) -> None:
        assets = assets or Assets()
        self.height, self.width = height, width
        self._shadows = shadow_size > 0
        self._one_sided = not assets.models
        drawn = (_SUPERSAMPLING * height, _SUPERSAMPLING * width)
        builder = _Builder(drawn, shadow_size)
        builder.add_textures(() if assets.textures is None else assets.textures, assets.repeats)
        self._mesh_numbers = {name: builder.add_mesh(_triangle_mesh(name)) for name in MESHES}
        self._models = [[builder.add_part(part) for part in model.parts] for model in assets.models]
        self._model = builder.compile()
        self._mesh_frames = [_mesh_frame(self._model, number) for number in range(self._model.nmesh)]
        self._opengl, self._context = _context(self._model, drawn)
        self._finalise = weakref.finalize(self, _free, self._opengl, self._context)
        self._finalise.atexit = False  # MuJoCo has let go of the display by then
        self._scene = mujoco.MjvScene(self._model, MAX_SHAPES)
        self._large = mujoco.MjrRect(0, 0, drawn[1], drawn[0])
        self._small = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((*drawn, 3), np.uint8)
        self._codes = np.empty((height, width, 3), np.uint8)
        self._depth = np.empty((height, width), np.float32)

    def draw(self, scene: SimulatedScene) -> Rendering:
        """Draw `scene`.

        Raises:
            ValueError: it has more than `MAX_SHAPES` shapes.
        """
        self._opengl.make_current()  # another renderer may have been made since
        self._fill(scene)
        image = self._draw_image(scene)
        labels = self._draw_labels()
        return Rendering(scene.film.expose(image) if scene.film else image, labels, self._metres())

    def close(self) -> None:
        """Give back what OpenGL holds; also done when nobody holds the renderer any more."""
        self._finalise()

    def _fill(self, scene: SimulatedScene) -> None:
        shapes = [(thing, shape) for thing in scene.things for shape in self._shapes(thing)]
        if len(shapes) > MAX_SHAPES:
            raise ValueError(f"a scene can have at most {MAX_SHAPES} shapes, not {len(shapes)}")
        for place, (thing, shape) in enumerate(shapes):
            self._place(self._scene.geoms[place], thing, shape)
        self._scene.ngeom = len(shapes)
        for place, light in enumerate(scene.lights):
            _place_light(self._scene.lights[place], light)
        self._scene.nlight = len(scene.lights)
        for eye in self._scene.camera:  # MuJoCo draws what lies between two eyes
            _place_camera(eye, scene.camera)

    def _shapes(self, thing: Thing) -> list[_Shape]:
        """What a thing is drawn of; a mesh of None is one of MuJoCo's own shapes."""
        model = model_number(thing.shape)
        if model is None:
            return [_Shape(self._mesh_numbers.get(thing.shape), thing.colour, thing.texture)]
        return [shape.tinted(thing.colour) for shape in self._models[model]]

    def _place(self, geom: Any, thing: Thing, shape: _Shape) -> None:
        size, position, rotation, rgba = thing.size, thing.position, thing.rotation, (*shape.colour, 1.0)
        if shape.mesh is not None:
            frame, origin = self._mesh_frames[shape.mesh]
            stretched = np.array(rotation).reshape(3, 3) * size
            # A mesh has no size of its own, but whatever matrix it is given OpenGL applies, also one that stretches.
            mujoco.mjv_initGeom(geom, _MESH, _ONES, stretched @ origin + position, (stretched @ frame).ravel(), rgba)
            geom.dataid = 2 * shape.mesh  # even numbers are the meshes, odd ones their convex hulls
            geom.texcoord = shape.material is not None and self._model.mesh_texcoordadr[shape.mesh] >= 0
        else:
            if thing.shape == "capsule":  # MuJoCo's half length is that of the cylinder between the caps
                size = (size[0], size[1], max(size[2] - size[0], 1e-6))
            mujoco.mjv_initGeom(geom, _TYPES[thing.shape], size, position, rotation, rgba)
        geom.category = mujoco.mjtCatBit.mjCAT_STATIC
        geom.segid = (thing.label or _BACKGROUND_CODE) - 1  # drawn as the colour segid + 1, and -1 not at all
        geom.specular, geom.shininess, geom.reflectance = thing.specular, thing.shininess, thing.reflectance
        geom.matid = -1 if shape.material is None else shape.material

    def _draw_image(self, scene: SimulatedScene) -> NDArray[np.uint8]:
        flags = self._scene.flags
        flags[:] = 0
        flags[_FLAG.mjRND_CULL_FACE] = self._one_sided
        flags[_FLAG.mjRND_SKYBOX] = scene.sky
        flags[_FLAG.mjRND_SHADOW] = self._shadows
        flags[_FLAG.mjRND_REFLECTION] = any(thing.reflectance > 0 for thing in scene.things)
        mujoco.mjr_render(self._large, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._large, self._context)
        averaged = cv2.resize(self._pixels[::-1], (self.width, self.height), interpolation=cv2.INTER_AREA)
        return np.asarray(averaged, np.uint8)

    def _draw_labels(self) -> NDArray[np.uint8]:
        flags = self._scene.flags
        flags[:] = 0
        flags[_FLAG.mjRND_CULL_FACE] = self._one_sided
        flags[_FLAG.mjRND_SEGMENT] = flags[_FLAG.mjRND_IDCOLOR] = 1
        mujoco.mjr_render(self._small, self._scene, self._context)
        mujoco.mjr_readPixels(self._codes, self._depth, self._small, self._context)
        labels = self._codes[::-1, :, 0].copy()
        labels[labels == _BACKGROUND_CODE] = 0
        return labels

    def _metres(self) -> NDArray[np.float32]:
        """Depth along z from OpenGL's reversed one, which is 1 at the near plane and 0 where nothing is drawn."""
        code = self._depth[::-1].astype(np.float64)
        distance = NEAR * FAR / (NEAR + code * (FAR - NEAR))
        return np.where(code > 0, distance, 0).astype(np.float32)


_ONES = (1.0, 1.0, 1.0)


class _Builder:
    """Makes a model of MuJoCo's that holds meshes, the sky and textures, and nothing that moves."""

    def __init__(self, drawn: tuple[int, int], shadow_size: int) -> None:
        self._spec = spec = mujoco.MjSpec()
        spec.visual.global_.offheight, spec.visual.global_.offwidth = drawn
        spec.visual.quality.shadowsize = shadow_size
        spec.visual.quality.offsamples = 0
        spec.add_texture(
            name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
            rgb1=[0.4, 0.6, 0.9], rgb2=[0.12, 0.25, 0.6], width=64, height=384,
        )  # fmt: skip
        self._meshes = 0
        self._materials = 0

    def add_textures(self, textures: Iterable[NDArray[np.uint8]], repeats: Sequence[float]) -> None:
        """Materials 0, 1, ...: each texture as it is, or all of them with the first of the repeats, the second, ..."""
        names = [self._texture(texture) for texture in textures]
        for repeat in repeats or (None,):
            for name in names:
                self._material(name, repeat)

    def add_mesh(self, mesh: Mapping[str, NDArray[Any]]) -> int:
        """The number of a mesh of these fields of MuJoCo's."""
        name = f"mesh{self._meshes}"
        added = self._spec.add_mesh(name=name)
        for field, values in mesh.items():
            setattr(added, field, values.ravel())
        added.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        self._spec.worldbody.add_geom(type=_MESH, meshname=name, contype=0, conaffinity=0)
        self._meshes += 1
        return self._meshes - 1

    def add_part(self, part: Part) -> _Shape:
        """A part of a model; beyond MuJoCo's number of materials, a texture becomes its mean colour."""
        fields = {"uservert": part.vertices, "userface": part.triangles}
        fields |= {"usernormal": part.normals, "userfacenormal": part.triangles}
        if part.texture is None or part.coordinates is None:
            return _Shape(self.add_mesh(fields), part.colour, None)
        if self._materials == MAX_MATERIALS:
            red, green, blue = (part.texture.mean(axis=(0, 1)) / 255).tolist()
            return _Shape(self.add_mesh(fields), (red, green, blue), None)
        coordinates = np.column_stack([part.coordinates[:, 0], 1 - part.coordinates[:, 1]])  # v downwards, as rows go
        fields |= {"usertexcoord": coordinates, "userfacetexcoord": part.triangles}
        return _Shape(self.add_mesh(fields), part.colour, self._material(self._texture(part.texture), None))

    def compile(self) -> Any:
        """The model."""
        model = self._spec.compile()
        model.stat.extent = SHADOWED_RADIUS  # MuJoCo multiplies it with shadowclip
        model.vis.map.shadowclip = 1.0
        return model

    def _texture(self, texture: NDArray[np.uint8]) -> str:
        height, width, channels = texture.shape
        name = f"texture{len(self._spec.textures)}"
        self._spec.add_texture(
            name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=channels
        ).data = texture.tobytes()
        return name

    def _material(self, texture: str, repeat: float | None) -> int:
        material = self._spec.add_material(name=f"material{self._materials}")
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture
        if repeat is not None:
            material.texrepeat, material.texuniform = (repeat, repeat), True
        self._materials += 1
        return self._materials - 1


def _triangle_mesh(name: str) -> dict[str, NDArray[Any]]:
    """A mesh that is made here, as MuJoCo's fields."""
    triangles = MESHES[name]()
    return {
        "uservert": triangles,
        "usernormal": normals_of(name, triangles),
        "userface": np.arange(3 * len(triangles)),
    }


def _mesh_frame(model: Any, mesh: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation [3, 3] and origin [3] of the axes into which MuJoCo moved the mesh, in those it was made in."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.mesh_quat[mesh])
    return rotation.reshape(3, 3), model.mesh_pos[mesh].copy()


def _context(model: Any, drawn: tuple[int, int]) -> tuple[Any, Any]:
    try:
        opengl = mujoco.GLContext(drawn[1], drawn[0])
        opengl.make_current()
    except Exception as error:  # PyOpenGL, EGL and MuJoCo each raise their own kinds
        raise RenderError(
            f"OpenGL without a screen is not available ({error}). On Debian and Ubuntu: "
            "apt install libegl1 libgl1-mesa-dri libgles2; also check that MUJOCO_GL is egl or unset "
            f"(it is {os.environ['MUJOCO_GL']})"
        ) from error
    try:
        context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    except mujoco.FatalError as error:
        opengl.free()
        shadow_size = model.vis.quality.shadowsize
        raise RenderError(
            f"OpenGL can't draw {drawn[1]}x{drawn[0]} pixels ({_SUPERSAMPLING} for each of an image along both axes) "
            f"with a shadow map of {shadow_size}x{shadow_size} ({error}); "
            "take a smaller --size, --frame or --shadow-size"
        ) from error
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
    return opengl, context


def _free(opengl: Any, context: Any) -> None:
    # In the wrong context, the numbers of its meshes and textures would be those of another renderer's.
    opengl.make_current()
    context.free()
    opengl.free()


def _place_light(target: Any, light: Light) -> None:
    target.pos, target.dir = light.position, light.direction
    target.ambient = target.diffuse = target.specular = 0
    for name in ("ambient", "diffuse", "specular"):
        setattr(target, name, (getattr(light, name),) * 3)
    target.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL if light.directional else mujoco.mjtLightType.mjLIGHT_SPOT
    target.attenuation = (1.0, 0.0, 0.0)
    target.cutoff, target.exponent = 180.0, 0.0
    target.headlight, target.castshadow = 0, light.casts_shadow
    target.texid = -1


def _place_camera(target: Any, camera: Camera) -> None:
    target.pos, target.forward, target.up = camera.position, camera.forward, camera.up
    top = NEAR * math.tan(math.radians(camera.field_of_view) / 2)
    target.frustum_top, target.frustum_bottom = top, -top
    target.frustum_center, target.frustum_width = 0.0, 0.0  # a width of zero: square pixels
    target.frustum_near, target.frustum_far = NEAR, FAR
    target.orthographic = 0
