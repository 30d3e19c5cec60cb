"""`python -m model prepare`: photographs are decoded once and packed into a store."""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from model.data.pairs import match_names, pair_folders, read_pair
from model.data.photographs import UnreadablePhotograph, find_photographs, read_luma
from model.data.store import StoreWriter, is_store, verify_store
from model.errors import UserError
from model.progress import ProgressBar, say

__all__ = ["PrepareConfig", "prepare"]


@dataclass(kw_only=True)
class PrepareConfig:
    """Pack photographs, or pairs, into a store that training maps into memory.

    What an interrupted run has packed is kept: the same command goes on.
    """

    photographs: list[Path] = field(default_factory=list)
    """Folders of photographs or single files; or folders of pairs, with input/target, blur/sharp,
    inputC/target, lq/gt, source/target, blur/gt or input/gt inside."""
    out: Path = Path("runs/store")
    """Folder of the store."""
    smallest: int = 128
    """Pictures with a side below this many pixels are left out."""
    overwrite: bool = False
    """Replace a store in --out."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option.
        """
        if not self.photographs:
            raise UserError("no photographs given; name a folder: python -m model prepare FOLDER -o STORE")
        if self.smallest < 1:
            raise UserError(f"--smallest must be positive, got {self.smallest}")


def prepare(config: PrepareConfig) -> None:
    """Pack as configured, show how far it is, and list what could not be read.

    Raises:
        UserError: if something in the configuration is wrong, pairs do not match, or the disk is full.
    """
    config.check()
    jobs = _jobs(config)
    if config.overwrite and config.out.exists():
        if not is_store(config.out) and any(config.out.iterdir()):
            raise UserError(f"{config.out} is not a store and is not replaced; give another --out")
        shutil.rmtree(config.out)
    paired = isinstance(jobs[0][1], tuple)
    with (
        StoreWriter(config.out, paired) as store,
        ProgressBar(
            "packing", len(jobs), "pictures", done=sum(name in store.done for name, _ in jobs)
        ) as bar,
    ):
        waiting = [job for job in jobs if job[0] not in store.done]
        if len(waiting) < len(jobs):
            say(f"{len(jobs) - len(waiting)} of {len(jobs)} pictures are there already")
        for (name, _), read in _in_order(waiting, lambda job: _read(job[1], config.smallest)):
            try:
                store.add(name, *read())
            except UnreadablePhotograph as reason:
                say(f"left out {name}: {reason}")
                store.leave_out(name, str(reason))
            bar.advance()
        store.finish()
        broken = sum("broken" in entry for entry in store.done.values())
        pixels = sum(entry.get("height", 0) * entry.get("width", 0) for entry in store.done.values())
    with ProgressBar("checking", len(jobs) - broken, "pictures") as bar:
        for damaged in verify_store(config.out):
            if damaged is not None:
                raise UserError(f"{damaged} reads back differently from {config.out}; check the disk")
            bar.advance()
    left_out = f", {broken} left out (listed in {config.out / 'journal.jsonl'})" if broken else ""
    kind = "pairs" if paired else "photographs"
    say(f"{config.out}: {len(jobs) - broken} {kind}, {pixels / 1e6:.1f} megapixels{left_out}")


Job = tuple[str, Path | tuple[Path, Path]]


def _jobs(config: PrepareConfig) -> list[Job]:
    pairs = [folders for path in config.photographs if (folders := pair_folders(path))]
    if pairs and len(pairs) < len(config.photographs):
        raise UserError(f"{pairs[0][0].parent} holds pairs, other sources do not; give only one kind")
    if pairs:
        return [(str(pair[1]), pair) for folders in pairs for pair in match_names(*folders)]
    return [(str(path), path) for path in find_photographs(config.photographs)]


def _read(source: Path | tuple[Path, Path], smallest: int):
    if isinstance(source, tuple):
        degraded, sharp = read_pair(source)
        images = sharp, degraded
    else:
        images = (read_luma(source),)
    if min(images[0].shape) < smallest:
        height, width = images[0].shape
        raise UnreadablePhotograph(f"{width} x {height} is smaller than {smallest} pixels")
    return images


def _in_order(jobs: Iterable[Job], work: Callable[[Job], tuple]) -> Iterator[tuple[Job, Callable[[], tuple]]]:
    """Work on some jobs side by side, a few ahead of the one that is taken, and give them out in order."""
    # Decoding leaves Python's lock to others; a few pictures ahead bound the memory.
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[Job, Future]] = deque()
        try:
            for job in jobs:
                ahead.append((job, pool.submit(work, job)))
                if len(ahead) > 2 * threads:
                    done, future = ahead.popleft()
                    yield done, future.result
            while ahead:
                done, future = ahead.popleft()
                yield done, future.result
        finally:
            for _, future in ahead:
                future.cancel()
