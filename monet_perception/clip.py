"""Where the shipped clip is, and the topics of recordings like it."""

from __future__ import annotations

from pathlib import Path

DEMO_CLIP = Path(__file__).parent / "data" / "demo.mcap"
IMAGE, DEPTH, LABELS = "/camera/image", "/camera/depth", "/camera/labels"
CAMERA_INFO, POSE, OBJECTS = "/camera/camera_info", "/camera/pose", "/camera/objects"
IMAGES = (IMAGE, f"{IMAGE}/compressed")
"""Where images may be; the first that a recording has is taken."""
DEPTHS = (DEPTH, f"{DEPTH}/compressedDepth")
"""Where depth images may be, likewise."""
