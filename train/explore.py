"""A local page to explore latents: drag a slot's latents, swap slots between scenes, read disentanglement scores.

The page is served to this machine alone (127.0.0.1), asks for nothing from the internet and reports to nobody.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monet_perception.decomposer import Decomposer
from train import figures
from train.composition import Composition, compose, kl_per_latent
from train.data.manifest import StoreError
from train.data.store import Store
from train.disentanglement import choose_factors, match_slots, summary
from train.inference import COMMAND_ERRORS, add_inference_options, open_decomposer
from train.metrics.disentanglement import Disentanglement, DisentanglementError, disentanglement_scores
from train.traverse import default_slot

if TYPE_CHECKING:
    import gradio as gr

EXAMPLES = """examples:
  python -m train.explore monet_perception/data/monet_rn18_star.safetensors --store data/rooms_test
  python -m train.explore a.safetensors --store data/rooms_test --port 8080 --open"""

MIN_EXTENT = 3.0  # standard deviations of the prior: where latents are to be looked for
CSS = """
.picture img { image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain; }
#latents .form, #latents { gap: 4px; }
footer { display: none !important; }
"""


@dataclass(frozen=True)
class Scene:
    """A scene under exploration: what the network saw, and the latents as they stand after dragging and swapping.

    Attributes:
        index: place in the store.
        image: [H, W, 3] uint8, the network's input.
        masks: [K, H, W] of the attention.
        encoded: [K, L] latent means of the input.
        latents: [K, L], those shown now.
        kl: [K, L] of the encoded posterior from the prior, nats.
        slot: the first slot to look at.
    """

    index: int
    image: NDArray[np.uint8]
    masks: NDArray[np.float32]
    encoded: NDArray[np.float32]
    latents: NDArray[np.float32]
    kl: NDArray[np.float32]
    slot: int

    def with_latents(self, latents: NDArray[np.float32]) -> Scene:
        """The same scene with other latents [K, L]."""
        return Scene(self.index, self.image, self.masks, self.encoded, latents, self.kl, self.slot)

    def with_slot(self, slot: int, values: NDArray[np.float32]) -> Scene:
        """The same scene with other latents [L] in one slot."""
        latents = self.latents.copy()
        latents[slot] = values
        return self.with_latents(latents)

    def order(self, slot: int) -> NDArray[np.int64]:
        """Latents of a slot, the most active first."""
        return np.argsort(-self.kl[slot], kind="stable")


class Explorer:
    """What the page asks for, without the page: scenes, compositions and scores."""

    def __init__(self, decomposer: Decomposer, store: Store) -> None:
        self.decomposer = decomposer
        self.store = store

    def scene(self, index: int) -> Scene:
        """Decompose an image of the store; places beyond its ends are taken as its ends."""
        index = int(np.clip(index, 0, len(self.store) - 1))
        seen = self.decomposer(np.ascontiguousarray(self.store.images[index]))
        kl = kl_per_latent(seen.latent_mean, seen.latent_log_sigma)
        return Scene(index, seen.image, seen.masks, seen.latent_mean, seen.latent_mean, kl, default_slot(seen))

    def compose(self, scene: Scene) -> Composition:
        """Decode a scene's latents as they stand."""
        return compose(self.decomposer, scene.latents)

    def scores(self, limit: int, min_iou: float = 0.5) -> tuple[NDArray[np.float32], Disentanglement]:
        """Mean KL of each latent [L] and disentanglement over the first `limit` images of the store.

        Args:
            min_iou: of a slot and the object that it is matched with.
        Raises:
            StoreError, DisentanglementError: the store has no labels, or too little is matched.
        """
        slots = match_slots(self.decomposer, self.store, limit=limit, min_iou=min_iou)
        return slots.kl, disentanglement_scores(slots.latent_mean, choose_factors(slots.factors))


def swap(scene: Scene, slot: int, other: Scene, other_slot: int) -> tuple[Scene, Scene]:
    """Both scenes after a slot of each has gone over to the other."""
    return scene.with_slot(slot, other.latents[other_slot]), other.with_slot(other_slot, scene.latents[slot])


def build_page(explorer: Explorer, title: str, score_images: int, min_iou: float) -> gr.Blocks:
    """The page, not yet served."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    import gradio as gr

    config = explorer.decomposer.config
    slots = [f"S{k + 1}" for k in range(config.slots)]
    last = len(explorer.store) - 1
    with gr.Blocks(title="Latent explorer", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(f"### Latent explorer: {title}")
        scene, other = gr.State(), gr.State()
        with gr.Row():
            with gr.Column(scale=2):
                with gr.Row():
                    index = gr.Number(
                        0, label=f"Scene (0 to {last})", precision=0, minimum=0, maximum=last, elem_id="scene"
                    )
                    slot = gr.Radio(slots, value=slots[0], label="Slot", elem_id="slot")
                with gr.Row():
                    seen = [_picture(gr, "input", "Input"), _picture(gr, "segmentation", "Segmentation")]
                    composed = _picture(gr, "composed", "Recomposed scene")
                with gr.Row():
                    unmasked = _picture(gr, "unmasked", "Slot")
                    masked = _picture(gr, "masked", "Slot under its mask")
                    mask = _picture(gr, "mask", "Its mask")
            with gr.Column(scale=1, elem_id="latents"):
                with gr.Row():
                    reset_slot = gr.Button("Reset slot", size="sm", elem_id="reset-slot")
                    reset = gr.Button("Reset scene", size="sm", elem_id="reset")
                sliders = [
                    gr.Slider(-MIN_EXTENT, MIN_EXTENT, 0, step=0.01, label=f"z{i + 1}", elem_id=f"latent-{i}")
                    for i in range(config.latent_size)
                ]
        with gr.Row():
            other_index = gr.Number(
                min(1, last), label=f"Other scene (0 to {last})", precision=0, minimum=0, maximum=last, elem_id="other"
            )
            other_slot = gr.Radio(slots, value=slots[0], label="Its slot", elem_id="other-slot")
            swapping = gr.Button("Swap the two slots", elem_id="swap")
            other_seen = [_picture(gr, "other-input", "Input"), _picture(gr, "other-segmentation", "Segmentation")]
            other_composed = _picture(gr, "other-composed", "Recomposed")
        with gr.Accordion("Disentanglement", open=False, elem_id="disentanglement"):
            scoring = gr.Button(f"Score the first {score_images:,} images", elem_id="score")
            table = gr.Dataframe(headers=["Score", "Value"], elem_id="scores", interactive=False)
            plot = gr.Plot(elem_id="importance")

        pictures = [composed, unmasked, masked, mask]
        look = lambda s, k: _pictures(explorer, s, slots.index(k))  # noqa: E731
        handles = lambda s, k: _sliders(gr, s, slots.index(k))  # noqa: E731

        def open_scene(place: float | None) -> list[Any]:
            found = explorer.scene(int(place or 0))
            name = slots[found.slot]
            return [found, name, *_inputs(found), *look(found, name), *handles(found, name)]

        def open_other(place: float | None) -> list[Any]:
            found = explorer.scene(int(place or 0))
            return [found, slots[found.slot], *_inputs(found), _pictures(explorer, found, found.slot)[0]]

        def drag(current: Scene, name: str, *values: float) -> list[Any]:
            k = slots.index(name)
            latents = current.latents[k].copy()
            latents[current.order(k)] = values
            moved = current.with_slot(k, latents)
            return [moved, *look(moved, name)]

        def choose(current: Scene, name: str) -> list[Any]:
            return [*look(current, name), *handles(current, name)]

        def put_back(current: Scene, name: str) -> list[Any]:
            restored = current.with_latents(current.encoded)
            return [restored, *choose(restored, name)]

        def put_slot_back(current: Scene, name: str) -> list[Any]:
            k = slots.index(name)
            restored = current.with_slot(k, current.encoded[k])
            return [restored, *choose(restored, name)]

        def exchange(current: Scene, name: str, second: Scene, second_name: str) -> list[Any]:
            first, second = swap(current, slots.index(name), second, slots.index(second_name))
            composed_other = _pictures(explorer, second, slots.index(second_name))[0]
            return [first, second, composed_other, *choose(first, name)]

        def score() -> tuple[list[list[str]], Any]:
            try:
                kl, scores = explorer.scores(score_images, min_iou)
            except (StoreError, DisentanglementError) as error:
                raise gr.Error(str(error), print_exception=False) from error
            rows = [[name, f"{value:.3f}"] for name, value in summary(scores).items()]
            title = f"{scores.samples:,} slots that hold an object"
            return rows, figures.importance_figure(scores.dci.importance, scores.factors, kl, title)

        # While one request is under way the last of those that follow is kept: a drag never lags behind, none is lost.
        quick: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "trigger_mode": "always_last",
        }
        opened = [scene, slot, *seen, *pictures, *sliders]
        opened_other = [other, other_slot, *other_seen, other_composed]
        gr.on([page.load, index.change], open_scene, index, opened, **quick)
        gr.on([page.load, other_index.change], open_other, other_index, opened_other, **quick)
        slot.input(choose, [scene, slot], [*pictures, *sliders], **quick)
        for slider in sliders:  # `input`, not `change`: only a hand moves the scene
            slider.input(drag, [scene, slot, *sliders], [scene, *pictures], **quick)
        reset.click(put_back, [scene, slot], [scene, *pictures, *sliders], **quick)
        reset_slot.click(put_slot_back, [scene, slot], [scene, *pictures, *sliders], **quick)
        swapped = [scene, other, other_composed, *pictures, *sliders]
        swapping.click(exchange, [scene, slot, other, other_slot], swapped, **quick)
        scoring.click(score, None, [table, plot], api_visibility="private")
    return page


def serve(page: gr.Blocks, *, port: int | None, open_browser: bool, block: bool = True) -> str:
    """Serve a page on 127.0.0.1 and return its address.

    Args:
        port: which one; None: the first free from 7860.
        open_browser: open a browser window.
        block: return only when the server is stopped.
    """
    import gradio as gr

    # The default theme loads its fonts from the internet.
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, address, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        inbrowser=open_browser,
        prevent_thread_lock=not block,
        share=False,
        ssr_mode=False,
        footer_links=[],
        theme=theme,
        css=CSS,
    )
    return str(address)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        import gradio  # noqa: F401
    except ImportError:
        print("error: the explorer needs gradio: pip install 'monet_perception[explore]'", file=sys.stderr)
        return 1
    try:
        store = Store.open(options.store)
        decomposer = open_decomposer(str(options.checkpoint), options)
    except COMMAND_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    title = f"{options.checkpoint.name} on {options.store.name}"
    page = build_page(Explorer(decomposer, store), title, min(options.score_images, len(store)), options.min_iou)
    try:
        serve(page, port=options.port, open_browser=options.open)
    except OSError as error:  # the port is taken
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        decomposer.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.explore",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--store", required=True, type=Path, help="where the scenes come from")
    parser.add_argument("--port", type=int, help="(default: the first free one from 7860)")
    parser.add_argument("--open", action="store_true", help="open a browser window")
    parser.add_argument(
        "--score-images", type=int, default=1000, help="images that disentanglement is scored on (default: %(default)s)"
    )
    parser.add_argument(
        "--min-iou", type=float, default=0.5, help="of a slot and its object in those scores (default: %(default)s)"
    )
    add_inference_options(parser)
    return parser


def _picture(gr: Any, name: str, label: str) -> Any:
    # PNG, so that the page shows exactly what was decoded.
    return gr.Image(label=label, elem_id=name, elem_classes="picture", format="png", height=230, buttons=[])


def _inputs(scene: Scene) -> list[NDArray[np.uint8]]:
    return [scene.image, to_bytes(figures.colour_masks(scene.masks))]


def _pictures(explorer: Explorer, scene: Scene, slot: int) -> list[NDArray[np.uint8]]:
    """Recomposed scene, slot, slot under its mask, mask."""
    composition = explorer.compose(scene)
    own, mask = composition.reconstructions[slot], composition.masks[slot]
    shown = (composition.image, own, own * mask[..., None], np.repeat(mask[..., None], 3, axis=2))
    return [to_bytes(picture) for picture in shown]


def _sliders(gr: Any, scene: Scene, slot: int) -> list[Any]:
    """Every slider with the latent it moves now: the most active of the slot on top."""
    values = scene.latents[slot]
    extent = max(MIN_EXTENT, math.ceil(float(np.abs(values).max())))
    return [
        gr.Slider(-extent, extent, float(values[z]), label=f"z{z + 1}   ({scene.kl[slot, z]:.2f} nats)")
        for z in scene.order(slot)
    ]


def to_bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture in [0, 1] as uint8, values outside clipped."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
