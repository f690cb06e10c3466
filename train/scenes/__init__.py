"""Simulated scenes with exact ground truth: what is in rooms, tabletop, clutter and household, and how it is drawn."""
