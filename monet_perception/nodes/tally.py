"""What a run of the demo came to: which images were answered, how fast, and how well objects were separated."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

REMEMBERED = 2000
"""Stamps of images and of slots that are remembered to tell which belong together; a minute at 30 Hz."""


@dataclass
class Stamps:
    """The newest stamps of a stream of messages, which may come twice; `REMEMBERED` of them."""

    _known: OrderedDict[int, None] = field(default_factory=OrderedDict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, stamp: int) -> bool:
        return stamp in self._known

    def add(self, stamp: int) -> bool:
        """Takes a stamp; whether it is new."""
        new = stamp not in self._known
        self._known[stamp] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return new


@dataclass
class Tally:
    """What a run came to.

    Attributes:
        images: seen, of all topics.
        slots: messages of slots received.
        answered: images whose slots were received.
        labelled: frames with labels and at least one visible object.
        all_separated: those of them in which every visible object has a slot of its own.
        objects, objects_separated: visible objects over all frames, and those with a slot of their own.
        latencies: seconds from an image's stamp to the reception of its slots.
    """

    images: int = 0
    slots: int = 0
    answered: int = 0
    labelled: int = 0
    all_separated: int = 0
    objects: int = 0
    objects_separated: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _images: Stamps = field(default_factory=Stamps, init=False, repr=False)
    _slots: Stamps = field(default_factory=Stamps, init=False, repr=False)

    def add_image(self, stamp: int) -> None:
        """Counts an image, once where it comes in two forms; `stamp` in nanoseconds."""
        if self._images.add(stamp):
            self.images += 1
            self.answered += stamp in self._slots

    def add_slots(self, stamp: int, latency: float) -> None:
        """Counts a message of slots; `stamp` in nanoseconds, `latency` in seconds, unknown where no stamp is set."""
        if stamp:
            self.latencies.append(latency)
        if self._slots.add(stamp):
            self.slots += 1
            self.answered += stamp in self._images

    @property
    def remembered(self) -> int:
        """Stamps of images and of slots that are kept."""
        return len(self._images) + len(self._slots)

    @property
    def share_answered(self) -> float:
        """Share of the images whose slots came, 0 to 1."""
        return self.answered / self.images if self.images else 0.0

    def lines(self) -> list[str]:
        """The result as a human-readable table."""
        found = [f"{self.answered} of {self.images} frames answered ({self.share_answered:.1%})"]
        if self.latencies:
            median, high = np.percentile(self.latencies, [50, 99])
            found.append(f"latency, image stamp to slots: median {1e3 * median:.1f} ms, 99 % {1e3 * high:.1f} ms")
        if self.labelled:
            found.append(
                f"every visible object in a slot of its own: {self.all_separated / self.labelled:.1%} of "
                f"{self.labelled} frames; objects with a slot of their own: {self.objects_separated / self.objects:.1%}"
            )
        return found
