"""Pictures of a few decompositions after every validation, in TensorBoard and as files."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchvision.utils import make_grid, save_image

from monet_perception.files import replacing
from monet_perception.networks import MonetOutput
from monet_perception.palette import track_colours

SHOWN = 8
"""Images in a picture."""


def decomposition_grid(images: Tensor, log_masks: Tensor, reconstructions: Tensor | None = None) -> Tensor:
    """A row for each image: the image, its reconstruction, its segments in colour, and each slot on white.

    Args:
        images: [B, 3, H, W] in [0, 1].
        log_masks: [B, K, H, W].
        reconstructions: [B, K, 3, H, W]; left out, slots show the image behind their masks.
    Returns:
        [3, rows, columns] float32 in [0, 1].
    """
    masks = log_masks.float().exp().unsqueeze(2)
    slots = images.unsqueeze(1).expand(-1, masks.shape[1], -1, -1, -1) if reconstructions is None else reconstructions
    colours = torch.from_numpy(track_colours(range(masks.shape[1]))).to(images) / 255
    segments = colours[log_masks.argmax(dim=1)].permute(0, 3, 1, 2)
    mixture = (masks * slots).sum(dim=1)
    tiles = torch.stack([images, mixture, segments], dim=1)
    tiles = torch.cat([tiles, masks * slots + (1 - masks)], dim=1).clamp(0, 1)
    return make_grid(tiles.flatten(0, 1), nrow=tiles.shape[1], pad_value=1.0)


class DecompositionPictures(Callback):
    """Shows the first `SHOWN` validation images as the network sees them.

    Args:
        folder: Where `step_<step>.png` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        shown = batch_idx == 0 and trainer.is_global_zero and trainer.state.fn == "fit" and not trainer.sanity_checking
        if not shown or "log_masks" not in outputs:
            return
        output = outputs.get("output")
        grid = decomposition_grid(
            outputs["images"][:SHOWN],
            outputs["log_masks"][:SHOWN],
            output.reconstructions[:SHOWN] if isinstance(output, MonetOutput) else None,
        )
        path = self.folder / f"step_{trainer.global_step:07d}.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_image(grid, temporary, format="png")
        except OSError as error:
            rank_zero_warn(f"{path} was not written: {error}; training goes on")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("decomposition", grid.cpu().numpy(), trainer.global_step)
