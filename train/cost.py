"""What the networks cost: parameters, FLOP, time and memory of one preset at one number of slots."""

import contextlib
import multiprocessing
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from monet_perception.networks import PRESETS, Monet, MonetConfig, monet_loss
from train.allocation import use_huge_pages

WARM_UP_STEPS = 1


@dataclass
class Profile:
    """One preset at one number of slots. FLOP are per image, times per batch, memory in bytes; None: not measured."""

    preset: str
    slots: int
    attention_parameters: int
    component_parameters: int
    attention_forward_flop: int
    attention_training_flop: int
    component_forward_flop: int
    component_training_flop: int
    training_seconds: float | None = None
    inference_seconds: float | None = None
    images_per_second: float | None = None
    training_memory: int | None = None
    inference_memory: int | None = None


@dataclass(frozen=True)
class Setting:
    """Where and how everything is measured."""

    device: str
    precision: str
    batch_size: int
    image_size: int
    repeats: int
    threads: int


def preset_config(preset: str, slots: int, image_size: int) -> MonetConfig:
    """The preset at another size; above 64 pixels the U-Net takes the sixth block that the thesis gives it there."""
    config = PRESETS[preset]
    channels = config.unet_channels
    if config.attention == "unet" and image_size > config.image_size:
        channels = (*channels, channels[-1])
    return replace(config, slots=slots, image_size=image_size, unet_channels=channels)


def count(preset: str, slots: int, image_size: int) -> Profile:
    """Parameters and FLOP of one image; needs no time and, on the meta device, no memory."""
    config = preset_config(preset, slots, image_size)
    with torch.device("meta"):
        monet = Monet(config, initialisation=None).train()
        images = torch.zeros(2, 3, image_size, image_size)  # batch norm in training wants more than one value
        # Masks and latents come from a network, and gradients go back to it.
        masks = torch.zeros(2, slots, image_size, image_size, requires_grad=True)
        latents = torch.zeros(2, slots, config.latent_size, requires_grad=True)
    attention = _flop(lambda: monet.attention(images).sum())
    component = [
        a + b
        for a, b in zip(
            _flop(lambda: monet.component.encode(images, masks)[0].sum()),
            _flop(lambda: torch.stack([t.sum() for t in monet.decode(latents)]).sum()),
            strict=True,
        )
    ]
    return Profile(
        preset, slots, _parameters(monet.attention), _parameters(monet.component),
        attention[0] // 2, attention[1] // 2, component[0] // 2, component[1] // 2,
    )  # fmt: skip


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flop(forward: Callable[[], Tensor]) -> tuple[int, int]:
    """FLOP of the forward pass, and of forward and backward together."""
    with FlopCounterMode(display=False) as counter:
        output = forward()
        forward_flop = counter.get_total_flops()
        output.backward()
    return forward_flop, counter.get_total_flops()


class Timer:
    """Training steps and inferences of one network, as train.fit and the node run them.

    Args:
        config: Of the network.
        setting: Device, precision, batch size.
    """

    def __init__(self, config: MonetConfig, setting: Setting) -> None:
        use_huge_pages()  # as train.fit does
        self.config = config
        self.setting = setting
        self.monet = Monet(config).to(memory_format=torch.channels_last).to(setting.device)
        self.optimiser = torch.optim.RMSprop(self.monet.parameters(), lr=1e-4)
        shape = (setting.batch_size, 3, config.image_size, config.image_size)
        self.images = torch.rand(shape, device=setting.device).contiguous(memory_format=torch.channels_last)

    def training_step(self) -> None:
        self.monet.train()
        with self._autocast():
            output = self.monet(self.images)
        monet_loss(output, self.images, self.config).total.mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    @torch.inference_mode()
    def inference(self) -> None:
        self.monet.eval()
        with self._autocast():
            self.monet.encode(self.images)

    def seconds(self, work: Callable[[], None]) -> float:
        self._synchronise()
        start = time.perf_counter()
        work()
        self._synchronise()
        return time.perf_counter() - start

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.setting.precision == "bf16")

    def _synchronise(self) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize(self.images.device)


def time_all(profiles: Sequence[Profile], setting: Setting) -> None:
    """Fills in times; presets of one number of slots are measured turn by turn."""
    for slots in sorted({profile.slots for profile in profiles}):
        group = [profile for profile in profiles if profile.slots == slots]
        timers = [Timer(preset_config(p.preset, slots, setting.image_size), setting) for p in group]
        training: list[list[float]] = [[] for _ in group]
        inference: list[list[float]] = [[] for _ in group]
        rounds = range(-WARM_UP_STEPS, setting.repeats)
        for turn in tqdm(rounds, desc=f"K = {slots}", file=sys.stderr):
            for index, timer in enumerate(timers):
                seconds = timer.seconds(timer.training_step), timer.seconds(timer.inference)
                if turn >= 0:
                    training[index].append(seconds[0])
                    inference[index].append(seconds[1])
        for profile, steps, passes in zip(group, training, inference, strict=True):
            profile.training_seconds = statistics.median(steps)
            profile.inference_seconds = statistics.median(passes)
            profile.images_per_second = setting.batch_size / profile.training_seconds


def peak_memory(preset: str, slots: int, setting: Setting, training: bool) -> int:
    """Peak memory in bytes at batch 1, as in table 5.5, measured in a process of its own.

    On a GPU what PyTorch's allocator held; on a CPU the peak of the process's resident memory, less what it had before
    the network was built.

    Raises:
        BrokenProcessPool: the process was killed, most likely for want of memory.
        torch.OutOfMemoryError: the GPU has too little.
    """
    # Spawned: a forked process would share this one's memory, and CUDA doesn't survive a fork.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with _interrupts_blocked():
            job = pool.submit(_measure_memory, preset, slots, replace(setting, batch_size=1), training)
        return job.result()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that start inside don't get Ctrl-C, which a terminal sends to all: they would print a traceback each.
    This one gets it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _measure_memory(preset: str, slots: int, setting: Setting, training: bool) -> int:
    torch.set_num_threads(setting.threads)
    if setting.device.startswith("cuda"):
        _run_twice(preset, slots, setting, training)
        return torch.cuda.max_memory_allocated(setting.device)
    before = _resident_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: imports had theirs
    _run_twice(preset, slots, setting, training)
    return _resident_memory("VmHWM") - before


def _run_twice(preset: str, slots: int, setting: Setting, training: bool) -> None:
    timer = Timer(preset_config(preset, slots, setting.image_size), setting)
    for _ in range(2):
        timer.training_step() if training else timer.inference()


def _resident_memory(field: str) -> int:
    """Bytes that this process has (VmRSS) or had at most (VmHWM) in memory; Linux alone tells both."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
