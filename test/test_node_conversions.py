"""Image messages to arrays and back, against images whose colours are known."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as PillowImage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from monet_perception.calibration import camera_intrinsics, check_size
from monet_perception.lens import Distortion
from monet_perception.nodes import bridge
from monet_perception.nodes.conversions import check_rgb, image_message, to_metres, to_rgb
from monet_perception.projection import Intrinsics
from monet_perception.raw_images import COLOUR_ENCODINGS, DEPTH_ENCODINGS, MessageError

COLOUR = np.array([200, 100, 30], np.uint8)
GREY = np.array([77, 77, 77], np.uint8)


def plain(encoding: str, height: int = 6, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """An image of one colour in an encoding, and that colour in RGB."""

    def full(values: list[int], dtype: type = np.uint8) -> np.ndarray:
        return np.full((height, width, len(values)), values, dtype).squeeze()

    r, g, b = COLOUR.tolist()
    simple = {
        "rgb8": full([r, g, b]), "bgr8": full([b, g, r]), "rgba8": full([r, g, b, 9]), "bgra8": full([b, g, r, 9]),
        "8UC3": full([b, g, r]), "8UC4": full([b, g, r, 9]),
        "rgb16": full([r << 8, g << 8, b << 8], np.uint16), "bgr16": full([b << 8, g << 8, r << 8], np.uint16),
    }  # fmt: skip
    if encoding in simple:
        return simple[encoding], COLOUR
    if encoding in ("mono8", "8UC1"):
        return full([77]), GREY
    if encoding == "mono16":
        return full([77 << 8], np.uint16), GREY
    if encoding.startswith("bayer_"):
        mosaic = np.zeros((height, width), np.uint8)
        for place, channel in enumerate(encoding[6:10]):
            mosaic[place // 2 :: 2, place % 2 :: 2] = COLOUR["rgb".index(channel)]
        return (mosaic.astype(np.uint16) << 8 if encoding.endswith("16") else mosaic), COLOUR
    # YUV 4:2:2, luma and one pair of chroma for two pixels, in the range of BT.601, as video cameras send it.
    y = round(16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255)
    cb = round(128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255)
    cr = round(128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255)
    pair = [cb, y, cr, y] if encoding in ("uyvy", "yuv422") else [y, cb, y, cr]
    return np.tile(np.array(pair, np.uint8).reshape(1, 2, 2), (height, width // 2, 1)), COLOUR


@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_encoding_comes_out_in_its_colours(encoding, padding, big_endian):
    pixels, colour = plain(encoding)
    message = image_message(Header(), pixels, encoding)
    if big_endian:
        message.is_bigendian = 1
        message.data = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    if padding:
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, -1)
        message.data = np.pad(rows, [(0, 0), (0, padding)], constant_values=255).tobytes()
        message.step += padding
    rgb = to_rgb(message)
    assert rgb.shape == (6, 8, 3)
    assert rgb.dtype == np.uint8
    tolerance = 3 if message.encoding[:3] in ("uyv", "yuv", "yuy") else 0
    assert np.abs(rgb.astype(int) - colour).max() <= tolerance


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_images_survive_the_round_trip(pixels):
    assert np.array_equal(to_rgb(image_message(Header(), pixels, "rgb8")), pixels)


@pytest.mark.parametrize("encoding", ["mono8", "rgb8", "bgr8", "bayer_rggb8"])
def test_pixels_are_not_transposed_or_shifted(encoding):
    channels = COLOUR_ENCODINGS[encoding].channels
    pixels = np.zeros((5, 9, channels), np.uint8)
    pixels[1, 7] = 255
    rgb = to_rgb(image_message(Header(), pixels.squeeze(), encoding))
    row, column = np.unravel_index(rgb.sum(axis=-1).argmax(), rgb.shape[:2])
    assert max(abs(row - 1), abs(column - 7)) <= encoding.startswith("bayer")  # whose colours are of neighbours


def test_depth_in_metres():
    millimetres = np.array([[0, 1500], [65535, 1]], np.uint16)
    expected = np.array([[0, 1.5], [65.535, 0.001]])
    assert to_metres(image_message(Header(), millimetres, "16UC1")) == pytest.approx(expected)
    metres = np.array([[np.nan, 1.5], [np.inf, 0]], np.float32)
    np.testing.assert_array_equal(to_metres(image_message(Header(), metres, "32FC1")), metres)


def packed(depth: np.ndarray, form: str, a: float = 0.0, b: float = 0.0) -> CompressedImage:
    """As `compressed_depth_image_transport` packs 16-bit values."""
    png = cv2.imencode(".png", depth)[1].tobytes()
    return CompressedImage(format=form, data=struct.pack("<iff", 0, a, b) + png)


@pytest.mark.parametrize(
    "form", ["16UC1; compressedDepth png", "16UC1; compressedDepth", "16UC1", "mono16; compressedDepth png"]
)
def test_compressed_depth_of_16_bits_is_in_millimetres(form):
    millimetres = np.array([[0, 1500, 7], [65535, 1, 0]], np.uint16)
    assert to_metres(packed(millimetres, form)) == pytest.approx(millimetres / 1000)


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(0.25, 9.5, width=32)), st.floats(50, 100))
def test_compressed_depth_of_floats_comes_back_as_near_as_its_quantisation(metres, quantisation):
    """Packed by the transport's own formula; its parameters are depth_max (10 m) and depth_quantization (100)."""
    a = quantisation * (quantisation + 1)
    b = 1 - a / 10
    holes = metres.copy()
    holes[0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        inverse = np.where(holes < 10, a / holes + b, 0).astype(np.uint16)
    found = to_metres(packed(inverse, "32FC1; compressedDepth png", a, b))
    assert found.dtype == np.float32
    assert np.isnan(found[0, 0])
    assert (np.abs(found - metres)[~np.isnan(holes)] <= 1.01 * metres[~np.isnan(holes)] ** 2 / (a - metres.max())).all()


GOOD_DEPTH = packed(np.full((4, 6), 1000, np.uint16), "16UC1; compressedDepth png")


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (CompressedImage(format=GOOD_DEPTH.format), "data is empty"),
        (CompressedImage(format=GOOD_DEPTH.format, data=GOOD_DEPTH.data[:30]), "no image that can be read"),
        (CompressedImage(format=GOOD_DEPTH.format, data=GOOD_DEPTH.data[:-25]), "can't be unpacked"),
        (CompressedImage(format="rgb8; jpeg compressed bgr8", data=GOOD_DEPTH.data), "format is 'rgb8; jpeg"),
        (CompressedImage(format="16UC1; compressedDepth rvl", data=GOOD_DEPTH.data), "RVL, which isn't read"),
        (packed(np.zeros((4, 6), np.uint8), "16UC1; compressedDepth png"), "not of 16 bits and one channel"),
        (packed(np.ones((4, 6), np.uint16), "32FC1; compressedDepth png", np.nan, 0.0), "scale no inverse depths"),
    ],
)
def test_broken_compressed_depth_is_named(message, named):
    with pytest.raises(MessageError, match=named):
        to_metres(message)


def broken(**fields: object) -> Image:
    message = image_message(Header(), np.zeros((4, 6, 3), np.uint8), "rgb8")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (broken(width=0), "0x4 pixels is empty"),
        (broken(height=0), "6x0 pixels is empty"),
        (broken(step=17), "step is 17 bytes, but 6 pixels of rgb8 have 18"),
        (broken(data=bytes(71)), "data has 71 bytes, 4 rows of 18 need 72"),
        (broken(height=2**32 - 1), "too large"),
        (broken(height=5), "5 rows of 18 need 90"),
        (broken(encoding="rgb9"), "'rgb9' is not one of rgb8, bgr8"),
        (broken(encoding="x" * 10_000), "'x{40}' is not one of"),
        (broken(encoding="32FC1"), "for the topic `depth`"),
        (broken(encoding="yuv422", width=5), "5, an odd number"),
        (broken(encoding="bayer_rggb8", height=2), "6x2 pixels can't be turned into colours"),
    ],
)
def test_faults_are_named(message, fault):
    with pytest.raises(MessageError, match=fault):
        to_rgb(message)


def test_a_colour_image_is_no_depth():
    with pytest.raises(MessageError, match="for the topic `image`"):
        to_metres(broken())


def jpeg(height: int = 40, width: int = 60) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), COLOUR[::-1]))[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_compressed_images_come_out_in_their_colours(suffix):
    data = cv2.imencode(suffix, np.full((40, 60, 3), COLOUR[::-1]))[1].tobytes()
    rgb = to_rgb(CompressedImage(format="x", data=data))
    assert rgb.shape == (40, 60, 3)
    assert np.abs(rgb.astype(int) - COLOUR).max() <= 4


def test_a_compressed_image_is_not_turned_by_exif():
    buffer = io.BytesIO()
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    PillowImage.fromarray(np.zeros((40, 60, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    assert to_rgb(CompressedImage(data=buffer.getvalue())).shape == (40, 60, 3)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""
    data = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "data is empty"),
        (b"no image at all", "no image that can be read"),
        (jpeg()[:-20], "cut off"),
        (png_claiming(8_200, 8_200), "would have 8200x8200 pixels; at most"),
        (png_claiming(60_000, 60_000), "3600000000 pixels"),
    ],
)
def test_faults_of_compressed_images_are_named(data, fault):
    with pytest.raises(MessageError, match=fault):
        check_rgb(CompressedImage(format="jpeg", data=data))


@given(st.binary(max_size=300), st.integers(0, 600))
def test_damaged_compressed_images_never_raise_anything_else(noise, at):
    data = jpeg()
    with contextlib.suppress(MessageError):
        to_rgb(CompressedImage(data=data[:at] + noise + data[at + len(noise) :]))


def camera_info(**fields: object) -> CameraInfo:
    message = CameraInfo(width=640, height=480)
    message.k = [500.0, 0, 320, 0, 510, 240, 0, 0, 1]
    for name, value in fields.items():
        setattr(message, name, value)
    return message


P = [400.0, 0, 310, 0, 0, 410, 230, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("fields", "rectified", "expected"),
    [
        ({}, False, Intrinsics(500, 510, 320, 240, 640, 480)),
        ({"p": P}, False, Intrinsics(500, 510, 320, 240, 640, 480)),
        ({"p": P}, True, Intrinsics(400, 410, 310, 230, 640, 480)),
        ({}, True, Intrinsics(500, 510, 320, 240, 640, 480)),
        ({"binning_x": 2, "binning_y": 2}, False, Intrinsics(250, 255, 160, 120, 320, 240)),
        (
            {"roi": RegionOfInterest(x_offset=20, width=300, height=400)},
            False,
            Intrinsics(500, 510, 300, 240, 300, 400),
        ),
        (
            {
                "roi": RegionOfInterest(x_offset=100, y_offset=40, width=320, height=200),
                "binning_x": 2,
                "binning_y": 4,
            },
            False,
            Intrinsics(250, 127.5, 110, 50, 160, 50),
        ),
        ({"d": [0.0] * 5, "distortion_model": "plumb_bob"}, False, Intrinsics(500, 510, 320, 240, 640, 480)),
        (
            {"p": P, "d": [0.1, 0.0, 0.0, 0.0], "distortion_model": "equidistant"},
            False,
            Intrinsics(500, 510, 320, 240, 640, 480, Distortion("equidistant", (0.1, 0.0, 0.0, 0.0))),
        ),
        ({"p": P, "d": [0.1], "distortion_model": "plumb_bob"}, True, Intrinsics(400, 410, 310, 230, 640, 480)),
    ],
)
def test_intrinsics(fields, rectified, expected):
    found = camera_intrinsics(camera_info(**fields), rectified=rectified)
    assert found == expected
    check_size(found, expected.width, expected.height)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (camera_info(k=[0.0] * 9), "not a calibration"),
        (camera_info(k=[float("nan")] * 9), "not a calibration"),
        (camera_info(d=[0.1], distortion_model="odd"), "'odd' is not one of plumb_bob"),
        (camera_info(width=641), "641x480 pixels, the image has 640x480"),
    ],
)
def test_faults_of_camera_info_are_named(message, fault):
    with pytest.raises(MessageError, match=fault):
        check_size(camera_intrinsics(message, rectified=False), 640, 480)


@pytest.mark.parametrize("encoding", sorted(COLOUR_ENCODINGS | DEPTH_ENCODINGS))
def test_the_installed_bridge_reads_right_or_not_at_all(encoding):
    specification = (COLOUR_ENCODINGS | DEPTH_ENCODINGS)[encoding]
    shape = (3, 4, specification.channels)
    pixels = np.arange(np.prod(shape)).astype(specification.dtype).reshape(shape)
    message = image_message(Header(), pixels, encoding)
    read = bridge.read_image(message, specification.dtype, specification.channels)
    if read is not None:
        np.testing.assert_array_equal(read, np.squeeze(pixels))


BRIDGE = """
import numpy as np

class CvBridge:
    def imgmsg_to_cv2(self, message):  # takes every image for 8 bit, as PyPI's port does 16UC1
        print("asked for", message.encoding)
        channels = {"rgb8": 3}.get(message.encoding, 1)
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, -1, channels)
        return pixels[..., 0] if channels == 1 else pixels
"""
READ_TWICE = """
import numpy as np
from std_msgs.msg import Header
from monet_perception.nodes.conversions import image_message, to_metres, to_rgb

print("imported")
colours, depths = np.arange(60, dtype=np.uint8).reshape(4, 5, 3), np.arange(20, dtype=np.uint16).reshape(4, 5) * 1000
for _ in range(2):
    assert (to_rgb(image_message(Header(), colours, "rgb8")) == colours).all()
    np.testing.assert_allclose(to_metres(image_message(Header(), depths, "16UC1")), depths / 1000)
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_a_bridge_is_tried_once_and_not_at_all_where_it_would_crash(tmp_path, compiled):
    (tmp_path / "cv_bridge" / "boost").mkdir(parents=True)
    (tmp_path / "cv_bridge" / "__init__.py").write_text(BRIDGE)
    if compiled:
        (tmp_path / "cv_bridge" / "boost" / "cv_bridge_boost.so").touch()
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", READ_TWICE]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    asked = [] if compiled and np.lib.NumpyVersion(np.__version__) >= "2.0.0" else ["rgb8", "rgb8", "16UC1", "rgb8"]
    assert run.stdout.splitlines() == ["imported", *(f"asked for {encoding}" for encoding in asked)]
