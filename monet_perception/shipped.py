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
    """The file of a network that comes with the package, by its name, or else the path itself; `~` is one's home.

    Raises:
        ValueError: a file has the name of such a network, or there is no such home.
    """
    if str(given) in SHIPPED:
        if Path(given).is_file():
            raise ValueError(f"{given} is a network that comes with the package, and a file here: give its whole path")
        return SHIPPED[str(given)]
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{given}: {error}") from error
