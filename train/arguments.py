"""Argument types for argparse whose error messages name the permitted range."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")
LAST_PORT = 65535


def at_least(least: int) -> Callable[[str], int]:
    """A type of argument for argparse: whole numbers from `least` on."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"it has to be at least {least}, not {number}")
        return number

    parse.__name__ = "whole number"  # argparse names it where the text is none
    return parse


positive = at_least(1)
"""A type of argument for argparse: whole numbers from 1 on."""


def above_zero(text: str) -> float:
    """A type of argument for argparse: finite numbers above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"it has to be above 0 and finite, not {text}")
    return number


above_zero.__name__ = "number"


def fraction(text: str) -> float:
    """A type of argument for argparse: numbers from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"it has to be from 0 to 1, not {text}")
    return number


fraction.__name__ = "number"


def port(text: str) -> int:
    """A type of argument for argparse: numbers of TCP ports."""
    number = positive(text)
    if number > LAST_PORT:
        raise argparse.ArgumentTypeError(f"it has to be at most {LAST_PORT}, not {number}")
    return number


port.__name__ = "whole number"


def figure_path(text: str) -> Path:
    """A type of argument for argparse: files whose suffix is a format of figures."""
    path = Path(text)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} has to end in {', '.join(FIGURE_SUFFIXES)}: it decides the format")
    return path


def named_path(text: str) -> tuple[str | None, Path]:
    """`NAME=PATH` or `PATH`; a path that itself holds a `=` is taken as it is."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return name, Path(path)
