"""Argument types for argparse whose error messages name the permitted range."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


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


def named_path(text: str) -> tuple[str | None, Path]:
    """`NAME=PATH` or `PATH`; a path that itself holds a `=` is taken as it is."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return name, Path(path)
