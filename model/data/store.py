"""The store: many photographs' luma in one file that is mapped into memory, written once, resumable.

A folder with
    target.u8     luma of all photographs, row by row, one after the other
    input.u8      for a set of pairs, the degraded luma at the same places
    journal.jsonl one line for each picture dealt with: its name and size, or why it was left out
    store.json    written last: version, counts, and the checksum of the journal
A line of the journal is written after its pixels: whatever ends the writing, what the journal names is there.
"""

import json
import os
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from model.data.luma_set import LumaSet
from model.errors import UserError
from model.weights import replace_file

__all__ = ["StoreWriter", "is_store", "open_store", "verify_store"]

FORMAT = "qkernel-luma-store/1"
_INDEX, _JOURNAL = "store.json", "journal.jsonl"


def is_store(path: Path) -> bool:
    """Whether a folder is a store, finished or not."""
    return (path / _INDEX).is_file() or (path / _JOURNAL).is_file()


class StoreWriter:
    """Writes a store; a context manager. What an interrupted writer has left is continued.

    Args:
        path: the folder.
        paired: whether each entry is a degraded and a sharp picture.

    Raises:
        UserError: if the folder cannot be written to, holds a finished store, or an unfinished one of the
            other kind.
    """

    def __init__(self, path: Path, paired: bool = False) -> None:
        self.path, self.paired = path, paired
        if (path / _INDEX).is_file():
            raise UserError(f"{path} holds a finished store; give another --out, or --overwrite")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._planes: list[BinaryIO] = [
                (path / name).open("ab") for name in (("target.u8", "input.u8") if paired else ("target.u8",))
            ]
            self._journal = (path / _JOURNAL).open("a+", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror or error}") from error
        self.done: dict[str, dict[str, Any]] = {}
        self._continue()

    def _continue(self) -> None:
        """Read the journal as far as its pixels are there, and drop what was written after."""
        self._journal.seek(0)
        size, kept, sizes = 0, 0, [plane.seek(0, os.SEEK_END) for plane in self._planes]
        for line in self._journal:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            pixels = entry.get("height", 0) * entry.get("width", 0)
            if not line.endswith("\n") or size + pixels > min(sizes):
                break
            if ("input_crc32" in entry) != self.paired and pixels:
                raise UserError(
                    f"{self.path} holds an unfinished store of another kind; "
                    "give another --out, or --overwrite"
                )
            size, kept = size + pixels, kept + len(line.encode())
            self.done[entry["name"]] = entry
        self._journal.seek(0)
        self._journal.truncate(kept)
        for plane in self._planes:
            plane.truncate(size)
            plane.seek(size)
        self._journal.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._planes, self._journal):
            file.close()

    def add(self, name: str, *images: NDArray[np.uint8]) -> None:
        """Append a picture: its sharp luma H x W uint8 and, of a pair, the degraded one.

        Raises:
            UserError: if it cannot be written (disk full); what was added before is safe.
        """
        entry = {"name": name, "height": images[0].shape[0], "width": images[0].shape[1]}
        try:
            for key, plane, image in zip(("crc32", "input_crc32"), self._planes, images, strict=False):
                content = np.ascontiguousarray(image)
                plane.write(content)
                plane.flush()
                entry[key] = zlib.crc32(content)
            self._note(entry)
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path}: {error.strerror or error}; "
                f"the {len(self.done)} pictures before are safe, the same command goes on"
            ) from error

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a picture cannot be used, and why."""
        self._note({"name": name, "broken": reason})

    def _note(self, entry: dict[str, Any]) -> None:
        self._journal.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._journal.flush()
        self.done[entry["name"]] = entry

    def finish(self) -> None:
        """Seal the store.

        Raises:
            UserError: if no picture was added, or the index cannot be written.
        """
        used = [entry for entry in self.done.values() if "broken" not in entry]
        if not used:
            reasons = [f", e.g. {name}: {entry['broken']}" for name, entry in self.done.items()]
            raise UserError(f"none of {len(self.done)} pictures can be used{(reasons or [''])[0]}")
        for file in (*self._planes, self._journal):
            file.flush()
            os.fsync(file.fileno())
        index = {
            "format": FORMAT,
            "paired": self.paired,
            "photographs": len(used),
            "broken": len(self.done) - len(used),
            "pixels": sum(entry["height"] * entry["width"] for entry in used),
            "journal_sha256": sha256((self.path / _JOURNAL).read_bytes()).hexdigest(),
        }
        replace_file(self.path / _INDEX, (json.dumps(index, indent=2) + "\n").encode())


def _entries(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    index_file, journal = path / _INDEX, path / _JOURNAL
    if not index_file.is_file():
        if journal.is_file():
            raise UserError(f"{path} is an unfinished store; run the same `python -m model prepare` again")
        raise UserError(f"{path} is no store; `python -m model prepare FOLDER -o {path}` makes one")
    try:
        index = json.loads(index_file.read_text(encoding="utf-8"))
        version = index["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index_file} cannot be read: {error}") from error
    if version != FORMAT:
        raise UserError(
            f"{path} is a store of version {version!r}, this program reads {FORMAT!r}; prepare it anew"
        )
    try:
        content = journal.read_bytes()
    except OSError as error:
        raise UserError(f"{journal} cannot be read: {error.strerror or error}") from error
    if sha256(content).hexdigest() != index["journal_sha256"]:
        raise UserError(f"{journal} is not the one the store was finished with; prepare the store anew")
    return index, [entry for entry in map(json.loads, content.splitlines()) if "broken" not in entry]


def open_store(path: Path) -> LumaSet:
    """Map a finished store into memory.

    Raises:
        UserError: if it is none, unfinished, of another version, or its files are not whole.
    """
    index, entries = _entries(path)
    planes = []
    for name in ("target.u8", "input.u8") if index["paired"] else ("target.u8",):
        file = path / name
        size = file.stat().st_size if file.is_file() else 0
        if size != index["pixels"]:
            raise UserError(f"{file} has {size} bytes instead of {index['pixels']}; prepare the store anew")
        planes.append(np.memmap(file, dtype=np.uint8, mode="r"))
    shapes = np.array([(entry["height"], entry["width"]) for entry in entries], dtype=np.int64)
    ends = np.cumsum(shapes.prod(1))
    return LumaSet(
        names=tuple(entry["name"] for entry in entries),
        heights=shapes[:, 0],
        widths=shapes[:, 1],
        offsets=ends - shapes.prod(1),
        target=planes[0],
        input=planes[1] if index["paired"] else None,
    )


def verify_store(path: Path) -> Iterator[str | None]:
    """Check every picture's checksum; yields None for each whole one and the name of each damaged one.

    Raises:
        UserError: as `open_store`.
    """
    _, entries = _entries(path)
    images = open_store(path)
    for number, entry in enumerate(entries):
        whole = zlib.crc32(np.ascontiguousarray(images.image(number))) == entry["crc32"]
        if images.paired:
            whole &= zlib.crc32(np.ascontiguousarray(images.image(number, True))) == entry["input_crc32"]
        yield None if whole else entry["name"]
