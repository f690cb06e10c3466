"""What the viewer writes: an overlay video, a still picture, and a small animation for documents."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as PillowImage

from monet_perception.decomposition import mixture
from monet_perception.files import replacing
from monet_perception.overlay import draw_overlay, draw_text
from monet_perception.region import Region

SIDE = 360
"""Height of each panel of a picture in pixels."""
GAP = 6
ANIMATION_FRAMES = 60
ANIMATION_BYTES = 3_000_000


def draw_panels(
    image: NDArray[np.uint8],
    masks: NDArray[np.floating],
    track_ids: ArrayLike,
    roi: Region,
    reconstructions: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Camera, slots and reconstruction side by side, over the part of the image that the masks cover.

    Args:
        image: [h, w, 3] uint8 RGB, the source image.
        masks: [K, H, W] in [0, 1].
        track_ids: [K].
        roi: source pixels that the masks cover.
        reconstructions: [K, H, W, 3] uint8, mixed by the masks; None leaves the panel out.
    Returns:
        uint8 [h', w', 3] RGB, even sides, as video encoders want them.
    """
    camera = _panel(roi.cut(image))
    slots = draw_overlay(camera, masks, track_ids, Region(0, 0, SIDE, SIDE), longest_side=SIDE)
    panels = {"camera": camera, "slots": slots}
    if reconstructions is not None:
        mixed = mixture(masks, reconstructions.astype(np.float32))
        panels["reconstruction"] = _panel(np.rint(mixed).clip(0, 255).astype(np.uint8))
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    row: list[NDArray[np.uint8]] = []
    for caption, panel in panels.items():
        draw_text(panel, caption, 8, 20, 0.55)
        row += [panel, gap]
    return np.concatenate(row[:-1], axis=1)


@dataclass
class Pictures:
    """Collects the panels of a run and writes them; files of an earlier run stay until `close`.

    Every frame gets the size of the first: what is wider or higher is cut off at the right and below, what is smaller
    is filled up with white. Panels come and go at the right, so that those that both frames have stay where they are.

    Attributes:
        folder: is made if it doesn't exist; files in it are replaced.
        animation: also keep frames for an animation.
    """

    folder: Path
    animation: bool = False
    _shape: tuple[int, ...] = field(default=(), init=False, repr=False)
    _video: Any = field(default=None, init=False, repr=False)
    _temporary: Path = field(default=Path(), init=False, repr=False)
    _written: int = field(default=0, init=False, repr=False)
    _unfinished: ExitStack = field(default_factory=ExitStack, init=False, repr=False)
    _waiting: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list, init=False, repr=False)
    _best: tuple[tuple[float, ...], NDArray[np.uint8]] | None = field(default=None, init=False, repr=False)
    _frames: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list, init=False, repr=False)
    _every: int = field(default=1, init=False, repr=False)
    _added: int = field(default=0, init=False, repr=False)

    @property
    def video(self) -> Path:
        """Where the video is."""
        return self.folder / "overlay.mp4"

    @property
    def still(self) -> Path:
        """Where the still picture is."""
        return self.folder / "overlay.png"

    @property
    def gif(self) -> Path:
        """Where the animation is."""
        return self.folder / "overlay.gif"

    def add(self, stamp: float, panels: NDArray[np.uint8], merit: tuple[float, ...]) -> None:
        """Adds a frame.

        Args:
            stamp: seconds; the first few set the video's rate.
            panels: uint8 [h, w, 3] RGB, even sides.
            merit: the frame with the largest becomes the still picture.
        Raises:
            OSError: the video can't be written.
        """
        self._shape = self._shape or panels.shape
        panels = _fitted(panels, self._shape)
        self._write_video(stamp, panels)
        if self._best is None or merit > self._best[0]:
            self._best = merit, panels
        if self.animation:
            self._keep(stamp, panels)

    def close(self) -> list[Path]:
        """Finishes the files.

        Returns:
            What was written.
        Raises:
            OSError: a file can't be written.
        """
        if self._best is None:
            return []
        if self._video is None:
            self._open_video()
        with self._unfinished:
            self._video.release()
            self._check_video()
        with replacing(self.still) as temporary:
            PillowImage.fromarray(self._best[1]).save(temporary)
        written = [self.video, self.still]
        if self.animation:
            write_gif(self.gif, self._frames)
            written.append(self.gif)
        return written

    def _write_video(self, stamp: float, panels: NDArray[np.uint8]) -> None:
        if self._video is not None:
            self._write_frame(panels)
            return
        self._waiting.append((stamp, panels))
        if len(self._waiting) == 12:
            self._open_video()

    def _open_video(self) -> None:
        intervals = np.diff([stamp for stamp, _ in self._waiting])
        interval = float(np.median(intervals[intervals > 0])) if (intervals > 0).any() else 0.1
        height, width = self._shape[:2]
        codec = cv2.VideoWriter.fourcc(*"mp4v")  # the one that OpenCV's wheels can write everywhere
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.video))
            video = cv2.VideoWriter(str(temporary), codec, min(60.0, 1 / interval), (width, height))
            if not video.isOpened():
                raise OSError(f"{self.video} can't be written: is there space on the disk, and may one write there?")
            self._video, self._temporary, self._unfinished = video, temporary, stack.pop_all()
        for _, panels in self._waiting:
            self._write_frame(panels)
        self._waiting = []

    def _write_frame(self, panels: NDArray[np.uint8]) -> None:
        self._video.write(cv2.cvtColor(panels, cv2.COLOR_RGB2BGR))
        self._written += 1

    def _check_video(self) -> None:
        """Reads the video's header: OpenCV tells of no frame that it couldn't write, as where the disk is full."""
        video = cv2.VideoCapture(str(self._temporary))
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        video.release()
        if frames < self._written:
            raise OSError(f"{self.video} can't be written whole: is there space on the disk?")

    def _keep(self, stamp: float, panels: NDArray[np.uint8]) -> None:
        """Keeps at most `ANIMATION_FRAMES` frames spread evenly: when full, every other one is let go."""
        if self._added % self._every == 0:
            self._frames.append((stamp, panels))
        self._added += 1
        if len(self._frames) > ANIMATION_FRAMES:
            self._frames = self._frames[::2]
            self._every *= 2


def _panel(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _fitted(panels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Panels cut or filled up with white at the right and below."""
    if panels.shape == shape:
        return panels
    height, width = min(panels.shape[0], shape[0]), min(panels.shape[1], shape[1])
    canvas = np.full(shape, 255, np.uint8)
    canvas[:height, :width] = panels[:height, :width]
    return canvas


def write_gif(path: Path, frames: list[tuple[float, NDArray[np.uint8]]], largest: int = ANIMATION_BYTES) -> None:
    """Writes an animation at the speed of the stamps, smaller than the frames where it would grow too large.

    Args:
        path: where to.
        frames: (stamp in seconds, uint8 [h, w, 3] RGB), at least one, all of one size.
        largest: bytes.
    Raises:
        OSError: the file can't be written.
    """
    stamps = np.array([stamp for stamp, _ in frames])
    duration = max(20, int(1000 * np.median(np.diff(stamps)))) if len(frames) > 1 else 1000
    width = min(800, frames[0][1].shape[1])
    with replacing(path) as temporary:
        while True:
            pictures = [_quantised(panels, width) for _, panels in frames]
            pictures[0].save(
                temporary, save_all=True, append_images=pictures[1:], duration=duration, loop=0, optimize=True
            )
            size = temporary.stat().st_size
            if size <= largest or width <= 64:
                return
            width = int(0.95 * width * np.sqrt(largest / size))  # bytes go with the area


def _quantised(panels: NDArray[np.uint8], width: int) -> PillowImage.Image:
    picture = PillowImage.fromarray(panels)
    picture = picture.resize((width, round(width * picture.height / picture.width)), PillowImage.Resampling.LANCZOS)
    # Without dithering: its noise is what GIF compresses worst.
    return picture.quantize(96, dither=PillowImage.Dither.NONE)
