"""Global and shared memory, watched: bounds, alignment, races; and how often each byte was touched."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

#: Bytes that the memory moves at the least, and the banks of shared memory, of 4 bytes each.
SECTOR = 32
BANKS = 32


class Fault(Exception):
    """What a kernel must not do; the machine adds where it was done."""


@dataclass
class Region:
    """Bytes a kernel may touch: a tensor's extent, or a buffer.

    ``reads`` and ``writes`` count for each byte how often it was touched, if they are kept. What is
    ``settled`` was written before the kernel before this one began, so that this one need not wait for it.
    """

    address: int
    size: int
    name: str
    writable: bool = True
    settled: bool = False
    reads: Array | None = None
    writes: Array | None = None

    def __post_init__(self) -> None:
        # From the 16 bytes it begins in, so that loads of all sizes index the same view.
        self.base = self.address & ~15
        self.end = self.address + self.size
        length = -(-(self.end - self.base) // 16) * 16
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * length).from_address(self.base))

    def watch(self) -> None:
        self.reads, self.writes = (np.zeros(self.end - self.base, np.uint32) for _ in range(2))


def _twice(places: Array) -> bool:
    """Whether any is there more than once."""
    in_order = np.sort(places)
    return bool((in_order[1:] == in_order[:-1]).any())


class GlobalMemory:
    """The regions of one launch. Every other address is a fault."""

    def __init__(self, regions: Iterable[Region]) -> None:
        self.regions: list[Region] = []
        for region in sorted((r for r in regions if r.size), key=lambda r: r.address):
            before = self.regions[-1] if self.regions else None
            if before and region.address < before.end:
                # Two views of the same memory.
                if region.writable or before.writable:
                    raise ValueError(f"{region.name} and {before.name} overlap")
                size = max(before.end, region.end) - before.address
                name = f"{before.name} and {region.name}"
                self.regions[-1] = Region(before.address, size, name, writable=False)
            else:
                self.regions.append(region)
        self.starts = np.array([r.address for r in self.regions], np.uint64)

    def _places(self, addresses: Array, size: int, ahead: Array | None):
        """(region, which of the accesses fall into it), for accesses of ``size`` bytes.

        ``ahead``: which of them are by threads that have not yet waited for the kernel before.
        """
        if (addresses % np.uint64(size)).any():
            wrong = int(addresses[(addresses % np.uint64(size)) != 0][0])
            raise Fault(f"address {wrong:#x} is not divisible by {size}")
        index = np.searchsorted(self.starts, addresses, side="right") - 1
        one = index[0] if index.min() == index.max() else None
        for i in np.unique(index) if one is None else [one]:
            mine = index == i
            region = self.regions[i] if i >= 0 else None
            last = int(addresses[mine].max()) + size
            if region is None or last > region.end:
                name = f"{last - region.end} bytes behind {region.name}" if region else "before everything"
                raise Fault(f"global memory out of bounds: {size} bytes at {last - size:#x}, {name}")
            if ahead is not None and ahead[mine].any() and not region.settled:
                raise Fault(f"{region.name} is touched without waiting for the kernel before")
            yield region, (slice(None) if mine.all() else mine)

    def load(self, addresses: Array, unit: int, count: int, ahead: Array | None = None) -> Array:
        """``count`` values of ``unit`` bytes for each address: (accesses, count), unsigned."""
        out = np.empty((len(addresses), count), f"u{unit}")
        for region, mine in self._places(addresses, unit * count, ahead):
            at = (addresses[mine] - np.uint64(region.base)).astype(np.int64)
            out[mine] = region.bytes.view(f"u{unit}")[at[:, None] // unit + np.arange(count)]
            if region.reads is not None:
                touched = (at[:, None] + np.arange(unit * count)).ravel()
                region.reads += np.bincount(touched, minlength=len(region.reads)).astype(np.uint32)
        return out

    def store(self, addresses: Array, values: Array, ahead: Array | None = None) -> None:
        """``values`` is (accesses, count)."""
        unit, count = values.dtype.itemsize, values.shape[1]
        if _twice(addresses):
            raise Fault("two threads store to the same address of global memory")
        for region, mine in self._places(addresses, unit * count, ahead):
            if not region.writable:
                raise Fault(f"{region.name} is written to")
            at = (addresses[mine] - np.uint64(region.base)).astype(np.int64)
            region.bytes.view(f"u{unit}")[at[:, None] // unit + np.arange(count)] = values[mine]
            if region.writes is not None:
                region.writes[at[:, None] + np.arange(unit * count)] += 1


def sectors(addresses: Array, warps: Array, size: int) -> int:
    """Sectors that the accesses of one instruction touch, counted for each warp."""
    first = addresses // np.uint64(SECTOR)
    last = (addresses + np.uint64(size - 1)) // np.uint64(SECTOR)
    keys = np.concatenate([first, last]) + (np.concatenate([warps, warps]).astype(np.uint64) << np.uint64(45))
    return len(np.unique(keys))


def bank_cycles(offsets: Array, warps: Array, size: int) -> tuple[int, int]:
    """Cycles that shared memory is busy with one instruction, over all warps; and without conflicts.

    Each cycle serves as many threads as fill the banks (of accesses of 16 bytes a quarter of a warp), and as
    many more as words of one bank differ.
    """
    words = offsets.astype(np.int64)[:, None] // 4 + np.arange(max(1, size // 4))
    lanes_at_once = BANKS // words.shape[1]
    _, first, count = np.unique(warps, return_index=True, return_counts=True)
    cycles = least = 0
    for start, length in zip(first, count, strict=True):
        for begin in range(start, start + length, lanes_at_once):
            distinct = np.unique(words[begin : min(begin + lanes_at_once, start + length)])
            cycles += int(np.bincount(distinct % BANKS).max())
            least += 1
    return cycles, least


#: Who touched a byte, if it was not a single thread, whose number is below 1024: nobody, threads of several
#: warps, or several of one warp (plus 32 times its number).
NOBODY, MANY_WARPS, WHOLE_WARP = -1, -2, 1024


def _warp(who: Array) -> Array:
    return np.where(who < 0, -1, who % WHOLE_WARP // 32)


class SharedMemory:
    """Shared memory of many blocks, which looks for races.

    Two threads may only touch the same byte, one of them writing, with a barrier between that both have
    passed: the block's, or within a warp the warp's. Blocks and warps count the barriers they have passed.
    """

    def __init__(self, blocks: int, size: int, warps: int) -> None:
        self.size, self.warps = size, warps
        shape = (blocks, -(-size // 16) * 16)
        self.bytes = np.zeros(shape, np.uint8)
        self.written_by, self.read_by = (np.full(shape, NOBODY, np.int32) for _ in range(2))
        # When, by the counts of the block's and the warp's barriers.
        self.written_at, self.read_at = (np.zeros((*shape, 2), np.int32) for _ in range(2))
        self.block_barriers = np.zeros(blocks, np.int32)
        self.warp_barriers = np.zeros((blocks, warps), np.int32)

    def _index(self, blocks: Array, offsets: Array, length: int) -> tuple[Array, Array]:
        if not self.size or (offsets.max() + length > self.size):
            raise Fault(f"shared memory out of bounds: {int(offsets.max())} + {length} of {self.size} bytes")
        if (offsets % length).any():
            raise Fault(f"an offset in shared memory is not divisible by {length}")
        return blocks[:, None], offsets.astype(np.int64)[:, None] + np.arange(length)

    def _check(self, what: str, index, threads: Array, by: Array, at: Array) -> None:
        other, when = by[index], at[index]
        blocks, own = index[0], threads[:, None]
        same_block_phase = when[..., 0] == self.block_barriers[blocks]
        passed = (_warp(other) == own // 32) & (when[..., 1] < self.warp_barriers[blocks, own // 32])
        race = (other != NOBODY) & (other != own) & same_block_phase & ~passed
        if race.any():
            i, j = np.argwhere(race)[0]
            before = f"thread {other[i, j]}" if 0 <= other[i, j] < WHOLE_WARP else "several threads"
            place = f"byte {index[1][i, j]}"
            raise Fault(f"race in shared memory: {what} by thread {threads[i]} at {place}, after {before}")

    def load(self, blocks: Array, threads: Array, offsets: Array, unit: int, count: int) -> Array:
        index = self._index(blocks, offsets, unit * count)
        if (self.written_by[index] == NOBODY).any():
            raise Fault("shared memory is read that nothing has written")
        self._check("read", index, threads, self.written_by, self.written_at)
        self._note(index, blocks, threads, self.read_by, self.read_at, several=True)
        return np.ascontiguousarray(self.bytes[index]).view(f"u{unit}")

    def store(self, blocks: Array, threads: Array, offsets: Array, values: Array) -> None:
        index = self._index(blocks, offsets, values.itemsize * values.shape[1])
        touched = index[0] * self.bytes.shape[1] + index[1]
        if _twice(touched.ravel()):
            raise Fault("race in shared memory: two threads store to the same byte")
        self._check("write", index, threads, self.written_by, self.written_at)
        self._check("write", index, threads, self.read_by, self.read_at)
        self._note(index, blocks, threads, self.written_by, self.written_at, several=False)
        self.bytes[index] = np.ascontiguousarray(values).view(np.uint8).reshape(len(threads), -1)

    def _note(self, index, blocks: Array, threads: Array, by: Array, at: Array, several: bool) -> None:
        now = np.stack([self.block_barriers[blocks], self.warp_barriers[blocks, threads // 32]], axis=1)
        value = np.broadcast_to(threads[:, None], index[1].shape)
        if several:
            value = self._readers(index, value, by[index], at[index], now)
        by[index] = value
        at[index] = now[:, None, :]

    def _readers(self, index, own: Array, before: Array, when: Array, now: Array) -> Array:
        """Who has read each byte since the last barrier, with those who now do."""
        warp = own // 32
        forgotten = (before == NOBODY) | (when[..., 0] != now[:, :1])
        forgotten |= (_warp(before) == warp) & (when[..., 1] != now[:, 1:])
        _, byte = np.unique((index[0] * self.bytes.shape[1] + index[1]).ravel(), return_inverse=True)
        first, last = np.full(byte.max() + 1, WHOLE_WARP), np.full(byte.max() + 1, NOBODY)
        np.minimum.at(first, byte, own.ravel())
        np.maximum.at(last, byte, own.ravel())
        first, last = (x[byte].reshape(own.shape) for x in (first, last))
        alone = (first == last) & (forgotten | (before == own))
        one_warp = (first // 32 == last // 32) & (forgotten | (_warp(before) == warp))
        return np.where(alone, own, np.where(one_warp, WHOLE_WARP + 32 * warp, MANY_WARPS))
