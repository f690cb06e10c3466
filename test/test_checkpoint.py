"""Checkpoints: what is written comes back bit by bit, and nothing else ever does."""

import contextlib
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import safe_open

from monet_perception.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from monet_perception.files import write_text
from monet_perception.networks import Monet, MonetConfig
from monet_perception.shipped import DEFAULT_CHECKPOINT, SHIPPED, checkpoint_path

CONFIG = MonetConfig(attention="unet", slots=3, image_size=16, unet_channels=(4, 4), latent_size=2)


@pytest.fixture(scope="module")
def monet() -> Monet:
    torch.manual_seed(0)
    return Monet(CONFIG)


@pytest.fixture(scope="module")
def saved(monet: Monet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CheckpointInfo]:
    path = tmp_path_factory.mktemp("checkpoint") / "monet.safetensors"
    info = save_checkpoint(path, monet, dataset="rooms", steps=123, metrics={"ari": 0.875}, half=True)
    return path, info


def assert_same_weights(left: Monet, right: Monet) -> None:
    assert left.state_dict().keys() == right.state_dict().keys()
    for name, value in left.state_dict().items():
        other = right.state_dict()[name]
        assert value.dtype == other.dtype
        assert torch.equal(value, other), name


def rewrite(source: Path, target: Path, tensors=None, **metadata: str | None) -> Path:
    """A copy with other tensors or metadata."""
    with safe_open(source, framework="pt") as file:
        described = file.metadata() | metadata
    kept = {key: value for key, value in described.items() if value is not None}
    safetensors.torch.save_file(tensors or safetensors.torch.load_file(source), target, metadata=kept)
    return target


def test_round_trip_is_bit_exact(monet: Monet, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "monet.safetensors"
    info = save_checkpoint(path, monet, dataset="rooms", steps=123, metrics={"ari": 0.1 + 0.2})
    loaded, loaded_info = load_checkpoint(path)
    assert_same_weights(monet, loaded)
    assert info == loaded_info == read_info(path)
    assert info.config == CONFIG
    assert (info.dataset, info.steps, info.metrics) == ("rooms", 123, {"ari": 0.1 + 0.2})
    assert len(info.model_id) == 12
    assert not loaded.training
    assert list(path.parent.iterdir()) == [path]


def test_half_precision_halves_the_file_and_loads_as_float32(monet: Monet, saved, tmp_path: Path) -> None:
    half, info = saved
    whole = tmp_path / "whole.safetensors"
    save_checkpoint(whole, monet, dataset="rooms", steps=123)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    loaded, _ = load_checkpoint(half)
    for name, value in loaded.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(value, monet.state_dict()[name], rtol=1e-3, atol=1e-6)
    # The id is that of the values: the same network stored in full has the same one.
    assert save_checkpoint(whole, loaded, dataset="other", steps=1).model_id == info.model_id


def test_the_model_id_changes_with_any_weight(monet: Monet, saved, tmp_path: Path) -> None:
    other, info = load_checkpoint(saved[0])
    with torch.no_grad():
        other.component.decoder.convolutions[-1].bias[0] += 1e-6
    assert save_checkpoint(tmp_path / "other.safetensors", other, dataset="rooms", steps=123).model_id != info.model_id


def test_loaded_weights_do_not_change_with_the_file(saved, tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    path.write_bytes(saved[0].read_bytes())
    loaded, _ = load_checkpoint(path)
    expected = {name: value.clone() for name, value in loaded.state_dict().items()}
    with path.open("r+b") as file:  # in place, as a careless copy does
        file.write(b"\xff" * path.stat().st_size)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, expected[name])


CHANGES = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 2**20), st.just(0)),
    st.tuples(st.just("append"), st.integers(1, 64), st.integers(0, 255)),
    st.tuples(st.just("flip"), st.integers(0, 6000), st.integers(1, 255)),  # the header
    st.tuples(st.just("flip"), st.integers(0, 2**20), st.integers(1, 255)),
)


@given(changes=st.lists(CHANGES, min_size=1, max_size=4))
@example(changes=[("cut", 0, 0)])
@example(changes=[("cut", 4, 0)])
@example(changes=[("flip", 0, 1)])
def test_damage_is_noticed(saved, tmp_path_factory: pytest.TempPathFactory, changes) -> None:
    path, info = saved
    content = bytearray(path.read_bytes())
    for kind, position, value in changes:
        if kind == "cut":
            del content[position % (len(content) + 1) :]
        elif kind == "append":
            content += bytes([value]) * position
        elif content:
            content[position % len(content)] ^= value
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    damaged.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        assert read_info(damaged) == info
    with contextlib.suppress(CheckpointError):
        loaded, loaded_info = load_checkpoint(damaged)
        assert loaded_info == info
        assert_same_weights(loaded, load_checkpoint(path)[0])


class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [None, 2, 3, 4, 5])
def test_pickles_are_named_and_never_run(protocol: int | None, tmp_path: Path) -> None:
    bomb, path = Bomb(), tmp_path / "bomb.safetensors"
    bomb.target = tmp_path / "exploded"
    with path.open("wb") as file:
        torch.save(bomb, file) if protocol is None else pickle.dump(bomb, file, protocol)
    for read in (read_info, load_checkpoint):
        with pytest.raises(CheckpointError, match="may run code"):
            read(path)
    assert not bomb.target.exists()


def test_what_is_no_checkpoint_is_named(saved, tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "text.safetensors").write_text("just some words, long enough for a header")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    for name, cause in [
        ("missing.safetensors", "no such file"),
        (".", "directory"),
        ("empty.safetensors", "truncated or damaged"),
        ("text.safetensors", "truncated or damaged"),
        ("pointer.safetensors", "git lfs pull"),
        ("foreign.safetensors", "does not describe its network"),
    ]:
        for read in (read_info, load_checkpoint):
            with pytest.raises(CheckpointError, match=cause) as caught:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)


def test_tensors_that_do_not_fit_are_named(saved, tmp_path: Path) -> None:
    path, _ = saved
    tensors = safetensors.torch.load_file(path)
    first, *_, last = tensors
    missing = {name: value for name, value in tensors.items() if name != first}
    for changed, cause in [
        (missing, f"missing: {first}"),
        (tensors | {"attention.extra": torch.zeros(2)}, "no place for: attention.extra"),
        (tensors | {last: torch.zeros(7, 5)}, f"wrong shape or kind: {last}"),
        (tensors | {last: tensors[last].to(torch.int32)}, rf"{last} is .* integers and not .* floats"),
        (tensors | {last: torch.full_like(tensors[last], 0.5)}, "altered"),
    ]:
        with pytest.raises(CheckpointError, match=cause):
            load_checkpoint(rewrite(path, tmp_path / "changed.safetensors", changed))


def test_metadata_that_can_not_be_used_is_named(saved, tmp_path: Path) -> None:
    path, _ = saved
    for change, cause in [
        ({"format_version": "99"}, "format version is 99"),
        ({"format_version": None}, "format version is None"),
        ({"dataset": "other"}, "description was altered"),
        ({"metadata_sha256": None}, "description was altered"),
        ({"config": json.dumps(CONFIG.to_dict() | {"slots": 4})}, "description was altered"),
    ]:
        for read in (read_info, load_checkpoint):
            with pytest.raises(CheckpointError, match=cause):
                read(rewrite(path, tmp_path / "changed.safetensors", **change))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_can_not_be_stored_are_refused_and_the_old_file_stays(
    value: float, monet: Monet, saved, tmp_path: Path
) -> None:
    path = tmp_path / "monet.safetensors"
    path.write_bytes(saved[0].read_bytes())
    broken, _ = load_checkpoint(path)
    with torch.no_grad():
        broken.attention.unet.head.weight.fill_(value)
    with pytest.raises(CheckpointError, match=r"attention\.unet\.head\.weight .* not finite"):
        save_checkpoint(path, broken, dataset="rooms", steps=1, half=True)
    assert path.read_bytes() == saved[0].read_bytes()
    assert list(tmp_path.iterdir()) == [path]


# A process of its own, because it forks: writers that save without end, each killed a little later than the one before.
KILL_WRITERS = """
import itertools, os, signal, sys, time
from monet_perception.checkpoint import load_checkpoint, save_checkpoint
from monet_perception.networks import Monet, MonetConfig
monet = Monet(MonetConfig(attention="unet", slots=3, image_size=16, unet_channels=(64, 64), latent_size=2))
save_checkpoint(sys.argv[1], monet, dataset="rooms", steps=-1)
newest = []
for attempt in range(20):
    if not (writer := os.fork()):
        for step in itertools.count(1000 * attempt):
            save_checkpoint(sys.argv[1], monet, dataset="rooms", steps=step)
    before = os.stat(sys.argv[1]).st_mtime_ns
    while os.stat(sys.argv[1]).st_mtime_ns == before:  # until it is at work
        time.sleep(0.001)
    time.sleep(0.002 * attempt)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    newest.append(load_checkpoint(sys.argv[1])[1].steps)
assert newest == sorted(newest) and newest[0] >= 0, newest
"""


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_is_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed, fsync = tmp_path / "notes.txt", [], os.fsync
    path.write_text("old")

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.read_text()))

    monkeypatch.setattr(os, "fsync", noted)
    write_text(path, "new")
    assert flushed == [(False, "old"), (True, "new")]


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILL_WRITERS, str(tmp_path / "monet.safetensors")], check=True, timeout=250)


def test_shipped_networks_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_info("rooms") == read_info(DEFAULT_CHECKPOINT)
    networks = {name: load_checkpoint(name)[1] for name in SHIPPED}
    assert len({info.model_id for info in networks.values()}) == len(SHIPPED)
    assert {info.config for info in networks.values()} == {read_info(DEFAULT_CHECKPOINT).config}, "one graph serves all"
    assert checkpoint_path("runs/rooms") == Path("runs/rooms")
    assert checkpoint_path("~/rooms") == Path.home() / "rooms"
    with pytest.raises(ValueError, match="nobody_of_this_name"):
        checkpoint_path("~nobody_of_this_name/rooms")
    (tmp_path / "rooms").write_bytes(b"")
    with pytest.raises(ValueError, match="rooms is a network that comes with the package, and a file here"):
        read_info("rooms")
