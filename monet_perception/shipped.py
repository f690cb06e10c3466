"""The networks that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).parent / "data"
SHIPPED = {
    "rooms": _DATA / "monet_rn18_star.safetensors",
    "household": _DATA / "monet_rn18_star_household.safetensors",
}
"""`rooms`, the default, was trained on rendered rooms; `household`, for real cameras, on 3D models of household things
before photographed surfaces."""
DEFAULT_CHECKPOINT = SHIPPED["rooms"]


def checkpoint_path(given: str | Path) -> Path:
    """The file of a network that comes with the package, by its name, or else the path itself; `~` is one's home."""
    return SHIPPED.get(str(given)) or Path(given).expanduser()
