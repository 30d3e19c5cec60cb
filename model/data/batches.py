"""Batches of crops on the training device: gathered from a set that lies there, or streamed from the host."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.crops import CropPlan
from model.data.luma_set import LumaSet

__all__ = ["Batches", "ResidentBatches", "StreamedBatches", "gather_crops"]

# Steps whose places travel to the device together.
CHUNK = 128
# Bytes of a set that travel to the device together.
PIECE = 64 << 20


class Batches(Protocol):
    """What the trainer knows of its data."""

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Sharp crops of a step and, of a paired set, the degraded ones: batch x 1 x size x size uint8."""
        ...


class _Share:
    """Which crops of a plan a process sees: of each step's, its own part.

    All processes together see in step s the crops s * batch * world, ..., (s + 1) * batch * world - 1, in
    their order: what one process with that larger batch would see.
    """

    def __init__(self, plan: CropPlan, batch: int, rank: int = 0, world: int = 1) -> None:
        self.plan, self.batch, self.rank, self.world = plan, batch, rank, world

    def first(self, step: int) -> int:
        """The number of the first crop of a step that belongs to this process."""
        return (step * self.world + self.rank) * self.batch


def gather_crops(flat: Tensor, places: Tensor, size: int) -> Tensor:
    """Take crops out of a flat image set: pixel (i, j) is flat[first + i * down + j * right].

    Args:
        flat: uint8, one-dimensional.
        places: 3 x N int64 on the same device: first, down, right; see `Places.strides`.
        size: side of the crops.

    Returns:
        N x 1 x size x size uint8.
    """
    first, down, right = places.unbind(0)
    steps = torch.arange(size, device=flat.device)
    rows = first[:, None] + down[:, None] * steps
    index = rows[:, :, None] + (right[:, None] * steps)[:, None, :]
    return torch.take(flat, index).unsqueeze(1)


class ResidentBatches(_Share):
    """The whole set lies on the device; a batch is one gather, and the host only sends places now and then.

    Args:
        plan: which crops.
        batch: crops of a step for this process.
        device: where the set is put and the crops are made.
        rank, world: which of how many processes this is.
        gather: `gather_crops`, or a compiled one.
    """

    def __init__(
        self,
        plan: CropPlan,
        batch: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        gather: Callable[[Tensor, Tensor, int], Tensor] = gather_crops,
    ) -> None:
        super().__init__(plan, batch, rank, world)
        self.device, self.gather = device, gather
        self.images = plan.images.compact()
        self.target = _to_device(self.images.target, device)
        self.input = None if self.images.input is None else _to_device(self.images.input, device)
        self._chunk: tuple[int, Tensor] = (-1, torch.empty(0))

    @staticmethod
    def bytes_needed(images: LumaSet) -> int:
        """Device memory that a set takes."""
        return images.pixels * (2 if images.paired else 1)

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """See `Batches.at`."""
        places = self._places(step)
        sharp = self.gather(self.target, places, self.plan.size)
        return sharp, None if self.input is None else self.gather(self.input, places, self.plan.size)

    def _places(self, step: int) -> Tensor:
        chunk, inside = divmod(step, CHUNK)
        if self._chunk[0] != chunk:
            strides = np.stack(
                [
                    self.plan.places(self.first(each), self.batch).strides(self.images, self.plan.size)
                    for each in range(chunk * CHUNK, (chunk + 1) * CHUNK)
                ]
            )
            host = torch.from_numpy(strides)
            # Pinned, the copy does not hold up the host, and the allocator keeps the memory until it is done.
            host = host.pin_memory() if self.device.type == "cuda" else host
            self._chunk = chunk, host.to(self.device, non_blocking=True)
        return self._chunk[1][inside]


class StreamedBatches(_Share):
    """Crops are cut on the host, some steps ahead in a thread where a device is fed, and sent.

    Args:
        plan: which crops; its set may be memory-mapped and larger than memory.
        batch: crops of a step for this process.
        device: where the crops are wanted.
        rank, world: which of how many processes this is.
        ahead: steps that are prepared beforehand; 0 cuts when asked, as suits a CPU that has other work.
    """

    def __init__(
        self,
        plan: CropPlan,
        batch: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        ahead: int | None = None,
    ) -> None:
        super().__init__(plan, batch, rank, world)
        self.device = device
        self.ahead = (0 if device.type == "cpu" else 8) if ahead is None else ahead
        # One thread: the plan's memory of its last draws is not made for two.
        self._worker = ThreadPoolExecutor(1, "crops") if self.ahead else None
        self._waiting: deque[tuple[int, Future[list[Tensor]]]] = deque()

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """See `Batches.at`. Steps asked for one after the other are the quick ones."""
        if self._worker is None:
            crops = self._cut(step)
        else:
            if not self._waiting or self._waiting[0][0] != step:
                self._waiting.clear()
            while len(self._waiting) <= self.ahead:
                coming = self._waiting[-1][0] + 1 if self._waiting else step
                self._waiting.append((coming, self._worker.submit(self._cut, coming)))
            crops = self._waiting.popleft()[1].result()
        sharp, *degraded = (one.to(self.device, non_blocking=True) for one in crops)
        return sharp, degraded[0] if degraded else None

    def _cut(self, step: int) -> list[Tensor]:
        places, size = self.plan.places(self.first(step), self.batch), self.plan.size
        crops = []
        for degraded in (False, True) if self.plan.images.paired else (False,):
            host = torch.empty(
                (self.batch, 1, size, size), dtype=torch.uint8, pin_memory=self.device.type == "cuda"
            )
            places.cut(self.plan.images, size, host[:, 0].numpy(), degraded)
            crops.append(host)
        return crops


def _to_device(flat: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Copy piece by piece, so that a large set needs no second copy in the host's memory."""
    result = torch.empty(flat.size, dtype=torch.uint8, device=device)
    for begin in range(0, flat.size, PIECE):
        # A copy of the piece: a memory map cannot be written to, and torch warns of that.
        result[begin : begin + PIECE] = torch.from_numpy(np.array(flat[begin : begin + PIECE]))
    return result
