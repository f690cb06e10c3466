"""Images of a store that show what a network does: chosen, decomposed, put on pages (figures 5.3, 5.9, B.1 to B.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monet_perception.decomposer import Decomposer
from train import figures
from train.data.manifest import StoreError
from train.data.store import Store
from train.inference import decompose_images, one_of


def visible_objects(store: Store, index: int) -> int:
    """How many objects image `index` of a store shows, by its labels at the store's own size.

    Raises:
        StoreError: the store has no labels.
    """
    if store.labels is None:
        raise StoreError(f"{store.path} has no labels to count objects by")
    return int(np.count_nonzero(np.unique(store.labels[index]) >= store.manifest.background_labels))


def example_indices(store: Store, count: int, objects: int | None) -> NDArray[np.int64]:
    """The first `count` images, or the first with so many visible objects (figures B.1 to B.4).

    Raises:
        StoreError: the store has no labels to count objects by, or no such image.
    """
    if objects is None:
        return np.arange(min(count, len(store)))
    found: list[int] = []
    for index in range(len(store)):
        if visible_objects(store, index) == objects:
            found.append(index)
            if len(found) == count:
                break
    if not found:
        raise StoreError(f"no image of the store shows {objects} objects")
    return np.array(found)


def decompose_examples(
    decomposer: Decomposer, name: str, store: Store, indices: NDArray[np.int64]
) -> list[figures.Example]:
    """Images of a store as a network sees them.

    Args:
        name: of the network, the first lines of each title.
        indices: [E] places in the store.
    Raises:
        NonFiniteError: as `decompose_images`.
    """
    batch = decompose_images(decomposer, store, indices)
    labels = [None] * len(indices) if batch.labels is None else list(batch.labels)
    return [
        figures.Example(f"{name}\nimage {index}", one_of(batch.decomposition, i), labels[i])
        for i, index in enumerate(indices)
    ]


def example_pages(
    by_network: Sequence[Sequence[figures.Example]], networks: Sequence[str], indices: NDArray[np.int64]
) -> dict[str, list[figures.Example]]:
    """Which examples share a figure, by what tells the figure apart from others of the store.

    One network: all its examples. Several: a figure for each image, the networks side by side.

    Args:
        by_network: the examples of each network, in the order of `indices`.
        networks: names that tell the networks apart.
        indices: [E] places in the store.
    """
    if len(by_network) == 1:
        return {networks[0]: list(by_network[0])}
    by_image = zip(*by_network, strict=True)
    return {f"image{index}": list(one) for index, one in zip(indices, by_image, strict=True)}
