"""Which pictures are restored, and where each result goes."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from model.data.photographs import find_photographs
from model.errors import UserError
from model.photo.config import DeblurConfig

__all__ = ["Targets", "find_targets"]

# Pictures that are not looked for in folders: whoever has some must learn that they were left out.
_OTHER_PICTURES = {
    ".arw", ".avif", ".bmp", ".cr2", ".cr3", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe",
    ".jxl", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw",
}  # fmt: skip


@dataclass
class Targets:
    """What is to be done."""

    of: dict[Path, Path] = field(default_factory=dict)
    """Original -> where its result goes."""
    notes: list[str] = field(default_factory=list)
    """What was left out, in words."""


def find_targets(config: DeblurConfig) -> Targets:
    """Find originals and say where their results go; the folders for results are there afterwards.

    In a folder, results are no originals, and originals whose results are there are left out unless
    config.overwrite. Below config.out its subfolders are made again.

    Raises:
        UserError: if a source does not exist, a result would replace an original or an unasked file, two
            would become one, or a folder cannot be written.
    """
    found = Targets()
    for source in config.photographs:
        originals = find_photographs(source)
        if source.is_dir():
            found.of.update(_in_folder(config, source, originals, found.notes))
        else:
            found.of[source] = _target(config, source)
    _check(config, found.of)
    for folder in dict.fromkeys(target.parent for target in found.of.values()):
        _make(folder)
    return found


def _in_folder(config: DeblurConfig, source: Path, found: list[Path], notes: list[str]) -> dict[Path, Path]:
    """Targets of the originals among the pictures that were found in a folder."""
    targets = {path: _target(config, path, source) for path in found}
    results = {_place(target) for path, target in targets.items() if target != path}
    if config.suffix:
        # Beside the originals too, where an earlier run without --out has left them.
        results.update(_place(path.with_name(_name(config, path))) for path in found)
    targets = {path: target for path, target in targets.items() if _place(path) not in results}
    rest = {path: target for path, target in targets.items() if config.overwrite or not target.exists()}
    if done := len(targets) - len(rest):
        notes.append(f"{source}: {done} of {len(targets)} were restored before; --overwrite does them again")
    suffixes = Counter(path.suffix.lower() for path in source.rglob("[!.]*"))
    missed = ", ".join(f"{suffixes[one]} {one}" for one in sorted(_OTHER_PICTURES & suffixes.keys()))
    if missed:
        notes.append(f"{source}: left out {missed}; convert them to TIFF or JPEG first")
    return rest


def _target(config: DeblurConfig, original: Path, source: Path | None = None) -> Path:
    folder = original.parent
    if config.out is not None:
        folder = config.out if source is None else config.out / folder.relative_to(source)
    return folder / _name(config, original)


def _name(config: DeblurConfig, original: Path) -> str:
    return f"{original.stem}{config.suffix}{original.suffix}"


def _place(path: Path) -> Path:
    """Where a file is, however the way there is written; a link is a file of its own."""
    return path.parent.resolve() / path.name


def _check(config: DeblurConfig, targets: dict[Path, Path]) -> None:
    originals = {place for original in targets for place in (_place(original), original.resolve())}
    taken: dict[Path, Path] = {}
    for original, target in targets.items():
        place = _place(target)
        if place in originals:
            raise UserError(f"{target} is one of the originals; give its folder, another --out or --suffix")
        if place in taken:
            raise UserError(
                f"{taken[place]} and {original} would both become {target}; restore them one by one"
            )
        if target.exists() and not config.overwrite:
            raise UserError(f"{target} is already there; --overwrite replaces it")
        taken[place] = original


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; give another --out") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"the folder {folder} cannot be written; give another with --out")
