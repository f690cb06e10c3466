"""The explorer's page in Gradio: what stands where, and what happens when it is touched."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train import figures
from train.data.manifest import StoreError
from train.disentanglement import summary
from train.exploration import DIGITS, ExploredScene, Explorer, drag_latents, swap
from train.inference import NonFiniteError
from train.metrics.disentanglement import DisentanglementError

Picture = NDArray[np.uint8]

MIN_EXTENT = 3.0  # standard deviations of the prior: where latents are to be looked for
CSS = """
.picture img { image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain; }
#latents .form, #latents { gap: 4px; }
footer { display: none !important; }
"""
# While one request is under way the last of those that follow is kept: a drag never lags behind, none is lost.
QUICK: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}


class ExplorerPage:
    """The page: components are made by `_lay_out`, tied to the handlers below them by `_connect`.

    Args:
        explorer: what it shows.
        title: printed on top.
        score_images: how many images disentanglement is scored on.
        min_iou: of a slot and its object in those scores.
    """

    def __init__(self, explorer: Explorer, title: str, score_images: int, min_iou: float) -> None:
        config = explorer.decomposer.config
        self.explorer = explorer
        self.score_images = score_images
        self.min_iou = min_iou
        self.slots = [f"S{k + 1}" for k in range(config.slots)]
        with gr.Blocks(title="Latent explorer", analytics_enabled=False, fill_width=True) as self.blocks:
            gr.Markdown(f"### Latent explorer: {title}")
            self._lay_out(len(explorer.store) - 1, config.latent_size)
            self._connect()

    def serve(self, port: int | None, *, open_browser: bool = False) -> None:
        """Serve the page on 127.0.0.1 until it is stopped.

        Args:
            port: which one; None: the first free from 7860.
            open_browser: open a browser window.
        Raises:
            OSError: the port is taken.
        """
        # The default theme loads its fonts from the internet.
        theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        self.blocks.launch(
            server_name="127.0.0.1",
            server_port=port,
            inbrowser=open_browser,
            share=False,
            ssr_mode=False,
            footer_links=[],
            theme=theme,
            css=CSS,
        )

    def _lay_out(self, last: int, latents: int) -> None:
        # Scenes from the first moment on: who drags before the page has asked for one finds it there.
        self.scene, self.other = gr.State(self.explorer.scene(0)), gr.State(self.explorer.scene(1))
        with gr.Row():
            with gr.Column(scale=2):
                self._lay_out_scene(last)
                self._lay_out_other(last)
            with gr.Column(scale=1, elem_id="latents"):
                with gr.Row():
                    self.reset_slot = gr.Button("Reset slot", size="sm", elem_id="reset-slot")
                    self.reset = gr.Button("Reset scene", size="sm", elem_id="reset")
                self.sliders = [
                    gr.Slider(-MIN_EXTENT, MIN_EXTENT, 0, step=10**-DIGITS, label=f"z{i + 1}", elem_id=f"latent-{i}")
                    for i in range(latents)
                ]
        with gr.Accordion("Disentanglement", open=False, elem_id="disentanglement"):
            self.score = gr.Button(f"Score the first {self.score_images:,} images", elem_id="score")
            self.table = gr.Dataframe(headers=["Score", "Value"], elem_id="scores", interactive=False)
            self.plot = gr.Plot(elem_id="importance")

    def _lay_out_scene(self, last: int) -> None:
        with gr.Row():
            self.index = _place("scene", f"Scene (0 to {last})", 0, last)
            self.slot = gr.Radio(self.slots, value="S1", label="Slot (or click on it)", elem_id="slot")
        with gr.Row():
            self.seen = [_picture("input", "Input"), _picture("segmentation", "Segmentation")]
            composed = _picture("composed", "Recomposed scene")
        with gr.Row():
            alone = [_picture("unmasked", "Slot"), _picture("masked", "Slot under its mask")]
            self.pictures = [composed, *alone, _picture("mask", "Its mask")]

    def _lay_out_other(self, last: int) -> None:
        with gr.Row():
            self.other_index = _place("other", f"Other scene (0 to {last})", min(1, last), last)
            self.other_slot = gr.Radio(self.slots, value="S1", label="Its slot", elem_id="other-slot")
            self.swap = gr.Button("Swap the two slots", elem_id="swap")
        with gr.Row():
            self.other_seen = [_picture("other-input", "Input"), _picture("other-segmentation", "Segmentation")]
            self.other_composed = _picture("other-composed", "Recomposed")

    def _connect(self) -> None:
        shown = [*self.pictures, *self.sliders]
        opened = [self.scene, self.slot, *self.seen, *shown]
        gr.on([self.blocks.load, self.index.change], self.open_scene, self.index, opened, **QUICK)
        other = [self.other, self.other_slot, *self.other_seen, self.other_composed]
        gr.on([self.blocks.load, self.other_index.change], self.open_other, self.other_index, other, **QUICK)
        current = [self.scene, self.slot]
        self.slot.input(self.show_slot, current, shown, **QUICK)
        for picture in self.seen:
            picture.select(self.point, self.scene, [self.slot, *shown], **QUICK)
        for slider in self.sliders:  # `input`, not `change`: only a hand moves the scene
            slider.input(self.drag, [*current, *self.sliders], [self.scene, *self.pictures], **QUICK)
        self.reset.click(self.put_scene_back, current, [self.scene, *shown], **QUICK)
        self.reset_slot.click(self.put_slot_back, current, [self.scene, *shown], **QUICK)
        both = [self.scene, self.other, self.other_composed, *shown]
        self.swap.click(self.exchange, [*current, self.other, self.other_slot], both, **QUICK)
        self.score.click(self.show_scores, None, [self.table, self.plot], api_visibility="private")

    def open_scene(self, index: float | None) -> list[Any]:
        """Another scene on the left: its state, slot, input pictures, slot pictures and sliders."""
        scene = self.explorer.scene(int(index or 0))
        slot = self.slots[scene.slot]
        return [scene, slot, *_inputs(scene), *self.show_slot(scene, slot)]

    def open_other(self, index: float | None) -> list[Any]:
        """Another scene to swap slots with."""
        scene = self.explorer.scene(int(index or 0))
        return [scene, self.slots[scene.slot], *_inputs(scene), self._composed(scene)]

    def show_slot(self, scene: ExploredScene, slot: str) -> list[Any]:
        """Pictures and sliders of a slot."""
        return [*self._pictures(scene, slot), *_sliders(scene, self.slots.index(slot))]

    def point(self, scene: ExploredScene, event: gr.SelectData) -> list[Any]:
        """A click on a picture: the slot that owns the pixel."""
        column, row = event.index
        slot = self.slots[int(scene.masks[:, row, column].argmax())]
        return [slot, *self.show_slot(scene, slot)]

    def drag(self, scene: ExploredScene, slot: str, *values: float) -> list[Any]:
        """Sliders were moved."""
        moved = drag_latents(scene, self.slots.index(slot), values)
        return [moved, *self._pictures(moved, slot)]

    def put_scene_back(self, scene: ExploredScene, slot: str) -> list[Any]:
        """Every slot as it was encoded."""
        restored = scene.with_latents(scene.encoded)
        return [restored, *self.show_slot(restored, slot)]

    def put_slot_back(self, scene: ExploredScene, slot: str) -> list[Any]:
        """One slot as it was encoded."""
        k = self.slots.index(slot)
        restored = scene.with_slot(k, scene.encoded[k])
        return [restored, *self.show_slot(restored, slot)]

    def exchange(self, scene: ExploredScene, slot: str, other: ExploredScene, other_slot: str) -> list[Any]:
        """A slot of each scene goes over to the other."""
        scene, other = swap(scene, self.slots.index(slot), other, self.slots.index(other_slot))
        return [scene, other, self._composed(other), *self.show_slot(scene, slot)]

    def show_scores(self) -> tuple[list[list[str]], Figure]:
        """Disentanglement of the store's first images."""
        try:
            kl, scores = self.explorer.scores(self.score_images, self.min_iou)
        except (StoreError, DisentanglementError, NonFiniteError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        rows = [[name, f"{value:.3f}"] for name, value in summary(scores).items()]
        title = f"{scores.samples:,} slots that hold an object"
        return rows, figures.importance_figure(scores.dci.importance, scores.factors, kl, title)

    def _composed(self, scene: ExploredScene) -> Picture:
        return to_bytes(self.explorer.compose(scene).image)

    def _pictures(self, scene: ExploredScene, slot: str) -> list[Picture]:
        composition = self.explorer.compose(scene)
        k = self.slots.index(slot)
        own, mask = composition.reconstructions[k], composition.masks[k][..., None]
        return [to_bytes(picture) for picture in (composition.image, own, own * mask, np.repeat(mask, 3, axis=2))]


def to_bytes(picture: NDArray[np.float32]) -> Picture:
    """A picture in [0, 1] as uint8, values outside clipped."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _place(name: str, label: str, value: int, last: int) -> gr.Number:
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=last, elem_id=name)


def _picture(name: str, label: str) -> gr.Image:
    # PNG, so that the page shows exactly what was decoded.
    return gr.Image(
        label=label, elem_id=name, elem_classes="picture", format="png", height=230, buttons=[], interactive=False
    )


def _inputs(scene: ExploredScene) -> list[Picture]:
    return [scene.image, to_bytes(figures.colour_masks(scene.masks))]


def _sliders(scene: ExploredScene, slot: int) -> list[gr.Slider]:
    """Every slider with the latent it moves now: the most active of the slot on top."""
    values = scene.latents[slot]
    extent = max(MIN_EXTENT, math.ceil(float(np.abs(values).max())))
    return [
        gr.Slider(-extent, extent, round(float(values[z]), DIGITS), label=f"z{z + 1} ({scene.kl[slot, z]:.2f} nats)")
        for z in scene.order(slot)
    ]
