"""Household scenes: models of every format as their files say, on photographs, and what is wrong with foreign files."""

import io
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from train.data.manifest import StoreError
from train.data.store import Store
from train.data.store_writer import StoreWriter
from train.render import FURNITURE, main
from train.scenes.assets import Sources
from train.scenes.drawing import RenderJob
from train.scenes.film import Film
from train.scenes.foreign import find_files
from train.scenes.kinds import KINDS
from train.scenes.models import MOST_PARTS, ModelError, read_models
from train.scenes.photographs import photograph_textures

RED, GREEN = (255, 0, 0, 255), (0, 255, 0, 255)


def box(*size: float) -> trimesh.Trimesh:
    return trimesh.creation.box(size)


def painted(mesh: trimesh.Trimesh, colour: tuple[int, int, int, int]) -> trimesh.Trimesh:
    mesh.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.SimpleMaterial(diffuse=colour))
    return mesh


def tall_lamp_obj() -> bytes:
    """Y upwards, as Sweet Home 3D's: 1 wide, 4 high, 2 deep; a green body, and a pane that one can see through."""
    vertices = np.array([(x, y, z) for x in (0, 1) for y in (0, 4) for z in (0, 2)])
    faces = box(1, 1, 1).faces + 1
    lines = ["mtllib lamp.mtl", *(f"v {x} {y} {z}" for x, y, z in vertices), "usemtl body"]
    lines += [f"f {a} {b} {c}" for a, b, c in faces]
    lines += ["v 9 9 9", "v 9 8 9", "v 8 9 9", "usemtl pane", "f 9 10 11"]
    return "\n".join(lines).encode()


def write_catalogue(path: Path) -> Path:
    entries = {
        1: {"name": "Lamp", "model": "/lamps/lamp.obj"},
        2: {"name": "Door", "model": "/lamps/lamp.obj", "doorOrWindow": "true"},
        3: {"name": "Lying lamp", "model": "/lamps/lamp.obj", "modelRotation": "0 1 0 1 0 0 0 0 -1"},
        4: {"name": "Gone", "model": "/lamps/gone.obj"},
        10: {"name": "Picture", "model": "/picture.obj"},
    }
    index = [f"{field}#{number}={value}" for number, entry in entries.items() for field, value in entry.items()]
    striped = Image.fromarray(np.repeat(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8), 2, axis=1))
    png = io.BytesIO()
    striped.resize((64, 64), Image.Resampling.NEAREST).save(png, "PNG")
    corners = [(x, y, z) for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
    sides = [(1, 2, 3, 4), (5, 8, 7, 6), (1, 5, 6, 2), (2, 6, 7, 3), (3, 7, 8, 4), (5, 1, 4, 8)]
    picture = ["mtllib picture.mtl", *(f"v {x} {y} {z}" for x, y, z in corners), "vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    picture += ["usemtl stripes", *("f " + " ".join(f"{v}/{n}" for n, v in enumerate(side, 1)) for side in sides)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "# a catalogue\n" + "\n".join(index))
        archive.writestr("lamps/lamp.obj", tall_lamp_obj())
        archive.writestr("lamps/lamp.mtl", "newmtl body\nKd 0 1 0\nnewmtl pane\nKd 1 1 1\nd 0.1\n")
        archive.writestr("picture.obj", "\n".join(picture))
        archive.writestr("picture.mtl", "newmtl stripes\nKd 1 1 1\nmap_Kd stripes.png\n")
        archive.writestr("stripes.png", png.getvalue())
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models in several formats, among other files."""
    folder = tmp_path_factory.mktemp("models")
    write_catalogue(folder / "a.sh3f")
    (folder / "b").mkdir()
    painted(box(0.5, 1, 2), RED).export(folder / "b" / "tall_box.obj")
    trimesh.creation.icosphere(2).export(folder / "b" / "ball.stl")
    box(1, 4, 2).export(folder / "c.glb")
    (folder / "readme.txt").write_text("no model")
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(3):
        (folder / str(number)).mkdir()
        picture = cv2.resize(random.integers(0, 256, (8, 12, 3), np.uint8), (480, 320))
        cv2.imwrite(str(folder / str(number) / "photo.jpg"), picture)
    (folder / "broken.jpg").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "icon.png"), np.zeros((16, 16, 3), np.uint8))
    return folder


def test_models_stand_upright_in_their_proportions_and_colours(models: Path) -> None:
    read = {model.name: model for model in read_models((models,))}
    assert list(read) == ["Lamp", "Lying lamp", "Picture", "ball", "tall_box", "c"]
    np.testing.assert_allclose(read["Lamp"].half, (0.25, 0.5, 1))
    np.testing.assert_allclose(read["Lying lamp"].half, (1, 0.5, 0.25))
    np.testing.assert_allclose(read["tall_box"].half, (0.25, 0.5, 1))
    np.testing.assert_allclose(read["ball"].half, (1, 1, 1), atol=0.01)
    np.testing.assert_allclose(read["c"].half, (0.25, 0.5, 1), err_msg="glTF points y upwards")
    (body,) = read["Lamp"].parts  # the pane can be seen through
    np.testing.assert_allclose(body.colour, (0, 1, 0))
    np.testing.assert_allclose(read["tall_box"].parts[0].colour, (1, 0, 0))
    (picture,) = read["Picture"].parts
    assert picture.texture is not None
    np.testing.assert_array_equal(picture.texture[[0, -1], 0], [(255, 0, 0), (0, 0, 255)])
    for model in read.values():
        corners = np.concatenate([part.vertices[part.triangles].reshape(-1, 3) for part in model.parts])
        np.testing.assert_allclose([corners.min(axis=0), corners.max(axis=0)], [(-1, -1, -1), (1, 1, 1)], atol=1e-6)
        for part in model.parts:
            np.testing.assert_allclose(np.linalg.norm(part.normals, axis=1), 1, atol=1e-5)


def test_models_that_cannot_be_drawn_are_left_out(models: Path, tmp_path: Path) -> None:
    shutil.copy(models / "b" / "ball.stl", tmp_path / "good.stl")
    trimesh.creation.icosphere(6).export(tmp_path / "too_fine.ply")
    (tmp_path / "broken.glb").write_bytes(b"glTF, but for its end")
    (tmp_path / "gone.stl").symlink_to(tmp_path / "nowhere.stl")
    (tmp_path / "folder.obj").mkdir()
    many = trimesh.Scene([painted(box(1, 1, 1).apply_translation((2 * n, 0, 0)), (n, 0, 0, 255)) for n in range(12)])
    many.export(tmp_path / "many.glb")
    alike = trimesh.Scene([painted(box(1, 1, 1).apply_translation((2 * n, 0, 0)), RED) for n in range(12)])
    alike.export(tmp_path / "alike.glb")
    (tmp_path / "thin.mtl").write_text("newmtl thin\nKd 1 0 0\n")
    sliver = "mtllib thin.mtl\nv 0 0 0\nv 1 0 0\nv 2 0 0\nv 3 0 0\nusemtl thin\nf 9 10 11\nf 10 11 12\n"
    solid = trimesh.exchange.obj.export_obj(box(1, 1, 1), include_normals=False, include_texture=False)
    (tmp_path / "thin.obj").write_text(f"{solid}\n{sliver}")
    with pytest.warns(
        UserWarning, match=r"2 models are left out: broken \(.*too_fine \(has 81,920 triangles, not 12 to 10,000\)"
    ):
        read = {model.name: model for model in read_models((tmp_path,))}
    assert sorted(read) == ["alike", "good", "many", "thin"]
    assert len(read["many"].parts) == MOST_PARTS
    (joined,) = read["alike"].parts
    assert len(joined.triangles) == 12 * 12
    assert [len(part.triangles) for part in read["thin"].parts] == [12], "a part without area can't be drawn"


def textured(material: Any) -> trimesh.Trimesh:
    mesh = box(1, 1, 1)
    corners = np.random.default_rng(0).random((len(mesh.vertices), 2))
    mesh.visual = trimesh.visual.TextureVisuals(corners, material=material)
    return mesh


def test_gltf_without_a_colour_is_white(tmp_path: Path) -> None:
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4), (200, 100, 50)))
    textured(material).export(tmp_path / "white.glb")
    ((part,),) = (model.parts for model in read_models([tmp_path]))
    assert part.colour == (1.0, 1.0, 1.0)


def test_what_a_picture_leaves_transparent_is_not_black(tmp_path: Path) -> None:
    """A net is left out; a picture with some holes has them in its own colour."""
    for name, holes in (("net", 90), ("leaf", 40)):
        pixels = np.zeros((10, 10, 4), np.uint8)
        pixels.reshape(-1, 4)[holes:] = (0, 200, 0, 255)
        material = trimesh.visual.material.SimpleMaterial(image=Image.fromarray(pixels))
        textured(material).export(tmp_path / f"{name}.obj", mtl_name=f"{name}.mtl")
        (tmp_path / "material_0.png").rename(tmp_path / f"{name}.png")
        library = tmp_path / f"{name}.mtl"
        library.write_text(library.read_text().replace("material_0.png", f"{name}.png"))
    (leaf,) = read_models([tmp_path / "leaf.obj"])
    assert leaf.parts[0].texture is not None
    np.testing.assert_allclose(leaf.parts[0].texture.reshape(-1, 3), np.tile((0, 200, 0), (128 * 128, 1)), atol=1)
    with pytest.raises(ModelError):
        read_models([tmp_path / "net.obj"])


def test_links_to_one_photograph_count_once_and_broken_ones_not_at_all(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        noise = generator.integers(0, 255, (400, 400, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.jpg")
        for size in range(5):
            (tmp_path / f"{name}_{size}.jpg").symlink_to(tmp_path / f"{name}.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:20_000])
    assert [file.name for file in find_files([tmp_path], [".jpg"])] == ["a.jpg", "b.jpg", "cut.jpg"]
    grey = (photograph_textures([tmp_path], 6) == 128).all(axis=-1)  # what is missing, by OpenCV
    assert grey.mean() < 0.01


def test_normals_and_colours_are_those_of_the_surface(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(3)
    ball.visual.vertex_colors = np.where(ball.vertices[:, :1] > 0, (255, 0, 0, 255), (0, 0, 255, 255))
    ball.apply_scale((1, 0.5, 0.1)).export(tmp_path / "flat.ply")
    (flat,) = read_models([tmp_path])
    np.testing.assert_allclose(flat.half, (1, 0.5, 0.1), atol=1e-3)
    (part,) = flat.parts
    # Stretched to a ball, an ellipsoid has a ball's normals.
    np.testing.assert_allclose((part.normals * part.vertices).sum(axis=1), 1, atol=0.01)
    np.testing.assert_allclose(part.colour, (0.5, 0, 0.5), atol=0.1)


def test_a_texture_hangs_as_its_model_says(models: Path) -> None:
    code = f"""
from pathlib import Path
from train.scenes.assets import Assets
from train.scenes.models import read_models
from train.scenes.renderer import SceneRenderer
from train.scenes.scene import Camera, Light, SimulatedScene, Thing
picture = [model for model in read_models((Path({str(models)!r}),)) if model.name == "Picture"]
thing = Thing("model 0", (1, 1, 1), (0, 0, 0), (1, 1, 1), 1)
camera, light = Camera.looking((-4, 0, 0), 0, 0, 50), Light((-4, 2, 4), ambient=0.6)
image = SceneRenderer(64, 64, assets=Assets(models=picture)).draw(SimulatedScene([thing], camera, [light])).image
above, below = image[20, 24:40].mean(axis=0), image[44, 24:40].mean(axis=0)
assert above[0] > 100 > above[2] and below[2] > 100 > below[0], (above, below)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scenes_show_models_and_say_where_they_are(models: Path, photographs: Path, tmp_path: Path) -> None:
    command = ["household", "--models", models, "--count", 40, "--depth"]
    options = {
        "one": ["--photographs", photographs, "--processes", 1],
        "two": ["--photographs", photographs, "--processes", 2],
        "plain": ["--processes", 1],
    }
    for name, more in options.items():
        assert main([str(part) for part in (*command, *more, "--store", tmp_path / name)]) == 0
    store, again, plain = (Store.open(tmp_path / name) for name in options)
    for name in ("images", "labels", "depth"):
        np.testing.assert_array_equal(getattr(store, name), getattr(again, name), err_msg=name)
    assert not np.array_equal(store.images, plain.images)
    assert store.manifest.dataset == "household"
    (described,) = store.manifest.options["models"]
    assert (described["name"], described["files"]) == (models.name, 4)
    assert "of others" in store.manifest.licence
    visible = 0
    for labels, x in zip(store.labels, store.factors["x"], strict=True):
        there = np.count_nonzero(~np.isnan(x))
        assert 1 <= there <= 6
        assert labels.max() <= there
        visible += len(np.unique(labels[labels > 0]))
    assert visible > 60


def test_a_model_is_where_its_label_is(tmp_path: Path) -> None:
    painted(box(1, 1, 1), GREEN).export(tmp_path / "green.obj")
    command = ["household", "--models", tmp_path / "green.obj", "--count", 40, "--processes", 1]
    assert main([str(part) for part in (*command, "--store", tmp_path / "store")]) == 0
    store = Store.open(tmp_path / "store")
    green = store.images[..., 1].astype(int) - store.images[..., [0, 2]].max(axis=-1)
    assert np.median(green[store.labels > 0]) > np.median(green[store.labels == 0]) + 20


def test_a_store_does_not_go_on_with_other_models(models: Path, tmp_path: Path) -> None:
    other = tmp_path / models.name
    shutil.copytree(models / "b", other)
    jobs = [RenderJob("household", 10, sources=Sources((folder,))) for folder in (models, other)]
    interrupted = StoreWriter(tmp_path / "store", jobs[0].layout, 10)
    blank = {name: np.zeros((5, 6), np.float32) for name in ("x", "y", "z", "size")}
    images, labels = np.zeros((5, 64, 64, 3), np.uint8), np.zeros((5, 64, 64), np.uint8)
    interrupted.write(0, images=images, labels=labels, cameras=np.zeros((5, 11), np.float32), factors=blank)
    interrupted.sync()
    interrupted.close()
    with pytest.raises(StoreError, match="other settings"):
        StoreWriter(tmp_path / "store", jobs[1].layout, 10)


def test_photographs_are_cut_into_square_pieces(photographs: Path, tmp_path: Path) -> None:
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"icon{number}.png"), np.zeros((16, 16, 3), np.uint8))
    pieces = photograph_textures([tmp_path, photographs], 12)
    assert pieces.shape == (12, 128, 128, 3)
    np.testing.assert_array_equal(pieces, photograph_textures([tmp_path, photographs], 12))
    assert len(np.unique(pieces.reshape(12, -1), axis=0)) == 12
    blue = tmp_path / "blue.png"
    cv2.imwrite(str(blue), np.full((300, 300, 3), (255, 0, 0), np.uint8))  # OpenCV's order
    np.testing.assert_array_equal(photograph_textures([tmp_path], 1)[0, 0, 0], (0, 0, 255))


def test_film_changes_what_it_says() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(Film().expose(image), image)
    assert Film(gamma=0.5).expose(image).mean() > image.mean() + 20
    red = Film(gains=(0.5, 1, 1)).expose(image).astype(int) - image
    assert red[..., 0].mean() < -50
    assert abs(red[..., 1:]).max() == 0
    assert np.ptp(Film(grey=True).expose(image), axis=2).max() == 0
    assert Film(haze=0.3).expose(image).min() >= 76
    assert Film(blur=0.8).expose(image).std() < 0.8 * image.std()
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert math.isclose(Film(noise=0.04).expose(flat).std(), 0.04 * 255, rel_tol=0.05)
    assert np.array_equal(Film(noise=0.04, seed=1).expose(flat), Film(noise=0.04, seed=1).expose(flat))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no models in"),
        ({"a.sh3f": b"no archive"}, "not a catalogue of Sweet Home 3D, or a damaged one"),
        ({"a.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"}, "can be drawn: a (has 1 triangles, not 12 to 10,000)"),
        ({"a.glb": b"glTF, but for its end"}, "can be drawn: a ("),
    ],
)
def test_models_that_are_none_are_named(
    files: dict[str, bytes], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "folder").mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = ["household", "--models", folder, "--count", 1, "--processes", 1, "--store", tmp_path / "store"]
    assert main([str(part) for part in command]) == 1
    assert says in (error := capsys.readouterr().err)
    assert str(folder) in error
    assert not (tmp_path / "store").exists()


def test_what_is_not_there_is_named(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["household", "--count", "1", "--processes", "1", "--store", str(tmp_path / "store")]
    assert main([*command, "--models", str(tmp_path / "nothing")]) == 1
    assert "nothing: no such file or folder" in capsys.readouterr().err
    if not FURNITURE.exists():
        assert main(command) == 1
        assert "tools/household_sources.sh" in capsys.readouterr().err
    assert main([*command, "--models", str(models), "--photographs", str(tmp_path)]) == 1
    assert "no photograph of at least 256 pixels in" in capsys.readouterr().err
    assert main(["overview", "--output", str(tmp_path / "page.png"), "--photographs", str(tmp_path)]) == 1
    assert "need --models" in capsys.readouterr().err
    with pytest.raises(ModelError, match="Give --models"):
        KINDS["household"].assets(None)
    assert KINDS["household"].assets(Sources((models,))).textures is not None, "patterns in place of photographs"
