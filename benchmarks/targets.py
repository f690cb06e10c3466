"""What a benchmark ends in that misses what is due."""

from __future__ import annotations


class MissedError(Exception):
    """Figures are there, and not all of them are as good as is due; the text says which."""
