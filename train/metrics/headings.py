"""How scores are printed and drawn, the same in tables on the screen, in curves of runs and in figures."""

from __future__ import annotations

from typing import NamedTuple


class Heading(NamedTuple):
    """What stands above a score.

    Attributes:
        title: with the unit.
        scale: what a score is multiplied with to have that unit.
        digits: after the point.
    """

    title: str
    scale: float = 1.0
    digits: int = 3


SCORES = {
    "ari": Heading("ARI (%)", 100, 2),
    "ari_multi": Heading("ARI, 2+ objects (%)", 100, 2),
    "ari_all": Heading("ARI, all pixels (%)", 100, 2),
    "msc": Heading("MSC (%)", 100, 2),
    "covering": Heading("Covering (%)", 100, 2),
    "mbo": Heading("mBO (%)", 100, 2),
    "mse": Heading("MSE (1e-3)", 1000, 3),
    "mse_decoded": Heading("MSE, decoded masks (1e-3)", 1000, 3),
}
"""By the names that scores have in `train.evaluation` and in a run's `validation.jsonl`, in the order of tables."""

VALIDATED = SCORES | {
    "active_slots": Heading("Active slots"),
    "mask_entropy": Heading("Mask entropy (nats)"),
    "largest_slot": Heading("Pixels in the largest slot (%)", 100, 2),
}
"""The scores, and what else a run's `validation.jsonl` says of masks."""
