"""The slots of a message as a table for a terminal."""

from __future__ import annotations

import numpy as np
from monet_perception_msgs.msg import Slot, SlotArray
from rich.table import Table
from rich.text import Text

from monet_perception.palette import track_colours

_BARS = "▁▂▃▄▅▆▇█"


def slot_table(message: SlotArray) -> Table:
    """The slots of one message as a table for a terminal."""
    table = Table(expand=False, pad_edge=False)
    for name in ("slot", "track", "area", "", "latent mean", "position (m)"):
        table.add_column(name, justify="right" if name in ("slot", "track", "area") else "left", no_wrap=True)
    for slot in message.slots:
        colour = "rgb({},{},{})".format(*track_colours([slot.track_id])[0])
        track = "-" if slot.track_id < 0 else str(slot.track_id)
        position = " ".join(f"{value:+.2f}" for value in slot.centroid)
        bar = Text("█" * round(12 * slot.area), style=colour)
        table.add_row(str(slot.index), track, f"{slot.area:.1%}", bar, Text(_latent_bars(slot), style=colour), position)
    return table


def _latent_bars(slot: Slot) -> str:
    """One bar for each latent: -2.5 to 2.5, where 99 % of the prior lie."""
    values = np.clip((np.asarray(slot.latent_mean) + 2.5) / 5, 0, 0.999)
    return "".join(_BARS[int(value * len(_BARS))] for value in values)
