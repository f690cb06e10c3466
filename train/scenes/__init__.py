"""Simulated scenes with exact ground truth: what is in them (rooms, tabletop, clutter) and how they are drawn."""
