"""The data module: every epoch a permutation, the same one whenever, wherever and however often it is interrupted."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.cli import LightningArgumentParser

from train.data.layout import StoreLayout
from train.data.manifest import StoreError
from train.data.module import SceneData
from train.data.sampler import EpochSampler, epoch_order, split_indices
from train.data.store import Store
from train.data.store_writer import StoreWriter

COUNT = 103
COUNTS = st.integers(1, 300)
SEEDS = st.integers(0, 2**31)
EPOCHS = st.integers(0, 1000)


def make_store(path: Path, count: int = COUNT, *, groups: bool = False, size: int = 4, **described: Any) -> Path:
    described = {"source": "a test", **described}
    layout = StoreLayout(
        "numbers", "train", licence="none", height=size, width=size, labels=True, groups=groups, **described
    )
    number = np.arange(count)[:, None, None]
    with StoreWriter(path, layout, count) as writer:
        images = np.broadcast_to(number[..., None], (count, size, size, 3)) + np.arange(3)
        labels = np.broadcast_to(number % 7, (count, size, size))
        optional = {"groups": np.arange(count, dtype=np.int32) // 10} if groups else {}
        writer.write(0, images=images.astype(np.uint8), labels=labels.astype(np.uint8), **optional)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "store")


# The sampler


@given(COUNTS, SEEDS, EPOCHS)
def test_an_epoch_is_a_permutation_and_epochs_differ(count: int, seed: int, epoch: int) -> None:
    sampler = EpochSampler(count, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(count))
    assert len(sampler) == count
    assert order == list(sampler) == epoch_order(count, seed, epoch).tolist()
    if count > 20:
        assert order != epoch_order(count, seed, epoch + 1).tolist()
        assert order != epoch_order(count, seed + 1, epoch).tolist()


@given(COUNTS, SEEDS, EPOCHS, st.integers(1, 9), st.data())
def test_processes_share_an_epoch_out(count: int, seed: int, epoch: int, processes: int, data: st.DataObject) -> None:
    samplers = [EpochSampler(count, seed, rank=rank, processes=processes) for rank in range(processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    shards = [list(sampler) for sampler in samplers]
    assert {len(shard) for shard in shards} == {len(samplers[0])} == {count // processes}
    together = [index for turn in zip(*shards, strict=True) for index in turn]
    assert together == epoch_order(count, seed, epoch)[: count // processes * processes].tolist()
    assert len(set(together)) == len(together)


@given(COUNTS, SEEDS, EPOCHS, st.integers(1, 4), st.integers(1, 4), st.data())
def test_any_offset_is_where_it_goes_on(
    count: int, seed: int, epoch: int, before: int, after: int, data: st.DataObject
) -> None:
    """Also with another number of processes than before the interruption."""
    first = EpochSampler(count, seed, processes=before)
    first.set_epoch(epoch)
    consumed = data.draw(st.integers(0, len(first)), "consumed by each process")
    state = first.state_dict(consumed)
    shards = []
    for rank in range(after):
        sampler = EpochSampler(count, seed=0, rank=rank, processes=after)
        sampler.load_state_dict(state)
        sampler.set_epoch(epoch)  # as Lightning does
        shards.append(list(sampler))
    rest = epoch_order(count, seed, epoch)[consumed * before :]
    usable = max(0, count // after * after - consumed * before) // after * after
    together = [index for turn in zip(*shards, strict=True) for index in turn]
    assert together == rest[:usable].tolist()


# The split


@given(st.integers(2, 300), st.floats(0.01, 0.9), SEEDS)
def test_a_split_divides_everything(count: int, fraction: float, seed: int) -> None:
    try:
        train, val = split_indices(count, fraction, seed)
    except ValueError:
        assert round(count * fraction) == count
        return
    assert sorted([*train, *val]) == list(range(count))
    assert abs(len(val) - fraction * count) <= 1
    again = split_indices(count, fraction, seed)
    np.testing.assert_array_equal(val, again[1])


@given(st.lists(st.integers(0, 8), min_size=30, max_size=90), st.floats(0.05, 0.6), SEEDS)
def test_a_split_keeps_groups_whole(groups: list[int], fraction: float, seed: int) -> None:
    array = np.array([*groups, 9, 9, 9], np.int32)  # never all of one group
    try:
        train, val = split_indices(len(array), fraction, seed, array)
    except ValueError:  # the nearest to the share would be everything
        assert fraction * len(array) > len(array) / 4
        return
    assert not set(array[train]) & set(array[val])
    assert len(train)
    assert len(val)


@pytest.mark.parametrize("seed", range(5))
def test_a_split_takes_the_group_that_comes_closest(seed: int) -> None:
    groups = np.repeat([0, 1, 2, 3], [100, 100, 100, 20])
    _, val = split_indices(len(groups), 0.02, seed, groups)
    assert set(groups[val]) == {3}


@pytest.mark.parametrize("fraction", [-0.1, 1, 2])
def test_a_split_of_everything_or_more_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="validation fraction"):
        split_indices(10, fraction, 0)


# The batches


def test_batches_hold_what_the_store_holds(store: Path) -> None:
    data = SceneData(store, batch_size=10, val_fraction=0.2, seed=5)
    data.setup()
    whole = Store.open(store)
    parts = []
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            index = batch["index"].numpy()
            assert (batch["images"].dtype, batch["labels"].dtype) == (torch.uint8, torch.uint8)
            assert batch["images"].is_contiguous(memory_format=torch.channels_last)
            np.testing.assert_array_equal(batch["images"].numpy(), whole.images[index].transpose(0, 3, 1, 2))
            assert whole.labels is not None
            np.testing.assert_array_equal(batch["labels"].numpy(), whole.labels[index])
            parts.append(index)
    assert [len(part) for part in parts] == [10] * 8 + [10, 10, 1], "training drops the rest, validation doesn't"
    everything = np.concatenate(parts)
    assert len(np.unique(everything)) == len(everything)


def test_worker_processes_give_the_same_batches(store: Path) -> None:
    def indices(workers: int) -> list[list[int]]:
        data = SceneData(store, batch_size=10, seed=5, workers=workers)
        data.setup()
        return [batch["index"].tolist() for batch in data.train_dataloader()]

    assert indices(0) == indices(2)


def test_seeds_of_split_and_order_are_apart(store: Path) -> None:
    def parts(seed: int, order_seed: int) -> tuple[list[int], list[int]]:
        data = SceneData(store, batch_size=10, val_fraction=0.2, seed=seed, order_seed=order_seed)
        data.setup()
        assert data.val_set is not None
        order = torch.cat([batch["index"] for batch in data.train_dataloader()])
        return order.tolist(), list(data.val_set.indices)  # type: ignore[arg-type]

    order, val = parts(0, 0)
    other_order, same_val = parts(0, 1)
    assert val == same_val
    assert order != other_order
    assert parts(1, 0)[1] != val


def test_groups_and_a_store_for_validation(store: Path, tmp_path: Path) -> None:
    grouped = SceneData(make_store(tmp_path / "grouped", groups=True), batch_size=10, val_fraction=0.3)
    grouped.setup()
    assert grouped.train_set is not None
    assert grouped.val_set is not None
    groups = [{int(index) // 10 for index in part.indices} for part in (grouped.train_set, grouped.val_set)]  # type: ignore[union-attr]
    assert not groups[0] & groups[1]

    two = SceneData(store, batch_size=10, val_store=tmp_path / "grouped")
    two.setup()
    assert two.train_set is not None
    assert two.val_set is not None
    assert (len(two.train_set), len(two.val_set)) == (COUNT, COUNT)

    alone = SceneData(store, batch_size=10, val_fraction=0)
    alone.setup()
    assert alone.val_dataloader() == []


def test_validation_scenes_that_are_trained_on_are_told(tmp_path: Path) -> None:
    train = make_store(tmp_path / "train", source="train.render", seed=4)
    with pytest.warns(UserWarning, match=r"val was rendered with the seed of .*train and holds scenes"):
        SceneData(train, val_store=make_store(tmp_path / "val", 20, source="train.render", seed=4)).setup()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SceneData(train, val_store=make_store(tmp_path / "other", 20, source="train.render", seed=5)).setup()


def test_what_does_not_fit_says_so(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        SceneData(tmp_path / "nowhere").setup()
    grouped = make_store(tmp_path / "grouped", groups=True)
    with pytest.raises(StoreError, match=r"can't be divided.*--data.val_fraction 0"):
        SceneData(grouped, val_fraction=0.99).setup()
    with pytest.raises(StoreError, match=r"images of 4x4 and .* of 6x6"):
        SceneData(store, val_store=make_store(tmp_path / "larger", size=6)).setup()
    data = SceneData(store, batch_size=200)
    data.setup()
    with pytest.raises(StoreError, match="lower the batch size"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="batch_size"):
        SceneData(store, batch_size=0)


def test_the_command_line_knows_every_setting(store: Path) -> None:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(SceneData, "data")
    options = parser.parse_args([f"--data.store={store}", "--data.batch_size=7", "--data.val_fraction=0.25"])
    data = parser.instantiate_classes(options)["data"]
    assert (data.store, data.batch_size, data.val_fraction) == (store, 7, 0.25)
    assert data.manifest.count == COUNT


# Resuming under Lightning


class Recorder(lightning.LightningModule):
    """Trains on nothing and notes which images it was given; fails at step `fail`."""

    def __init__(self, fail: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.fail = fail
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        if self.global_step == self.fail:
            raise ZeroDivisionError
        self.seen.append(batch["index"].tolist())
        return self.weight.sum()

    def validation_step(self, *_: Any) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())


EPOCHS_TRAINED, STEPS = 3, 9


def train(
    store: Path,
    callbacks: list[lightning.Callback] | None = None,
    *,
    checkpoint: Path | None = None,
    fail: int | None = None,
    workers: int = 0,
    **options: Any,
) -> list[list[int]]:
    model = Recorder(fail)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS_TRAINED,
        accelerator="cpu",
        callbacks=callbacks,
        enable_checkpointing=bool(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    data = SceneData(store, batch_size=10, val_fraction=0.1, workers=workers)
    with contextlib.suppress(ZeroDivisionError):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
    return model.seen


@pytest.fixture(scope="module")
def uninterrupted(store: Path) -> list[list[int]]:
    seen = train(store)
    assert len(seen) == EPOCHS_TRAINED * STEPS
    epochs = [seen[start : start + STEPS] for start in range(0, len(seen), STEPS)]
    assert all(len({index for batch in epoch for index in batch}) == 90 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    return seen


@pytest.mark.parametrize("step", [2, 4, 9, 13, 18, 26])
def test_a_run_goes_on_with_the_next_batch(
    store: Path, uninterrupted: list[list[int]], tmp_path: Path, step: int
) -> None:
    """From a checkpoint in an epoch, after its last batch (9, 18), and before the very last."""
    saving = ModelCheckpoint(tmp_path, filename="step", every_n_train_steps=step, save_top_k=1)
    before = train(store, [saving], fail=min(step + 1, 26))
    assert before == uninterrupted[: min(step + 1, 26)]
    after = train(store, checkpoint=tmp_path / "step.ckpt", workers=1 if step == 4 else 0)
    assert after == uninterrupted[step:]


@pytest.mark.parametrize("step", [0, 5, 9, 17])
def test_a_batch_that_failed_is_given_again(
    store: Path, uninterrupted: list[list[int]], tmp_path: Path, step: int
) -> None:
    train(store, [OnExceptionCheckpoint(tmp_path, "failed")], fail=step)
    assert train(store, checkpoint=tmp_path / "failed.ckpt") == uninterrupted[step:]


def test_checkpoints_of_epochs_and_of_validations_go_on_exactly(
    store: Path, uninterrupted: list[list[int]], tmp_path: Path
) -> None:
    epochs = ModelCheckpoint(tmp_path / "epochs", filename="{step}", save_top_k=-1)
    validations = ModelCheckpoint(
        tmp_path / "validations",
        filename="{step}",
        save_top_k=-1,
        save_on_train_epoch_end=False,
        mode="max",  # Lightning tells the two apart by such settings alone
    )
    train(store, [epochs, validations], val_check_interval=3)
    paths = sorted(tmp_path.rglob("*.ckpt"))
    assert len(paths) >= 8
    for path in paths:
        step = int(path.stem.removeprefix("step="))
        after = train(store, checkpoint=path, val_check_interval=3)
        assert after == uninterrupted[step:], path
