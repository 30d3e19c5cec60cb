"""Sets of pairs: a degraded and a sharp picture of the same scene, in two folders beside each other."""

from collections.abc import Callable
from pathlib import Path

from numpy.typing import NDArray

from model.data.photographs import UnreadablePhotograph, find_photographs, read_luma
from model.errors import UserError

__all__ = ["PAIR_FOLDERS", "match_names", "pair_folders", "read_pair"]

# (degraded, sharp), as public sets name them: GoPro and RealBlur, the paper's own and REDS, DPDD, BasicSR's;
# and others.
PAIR_FOLDERS = (
    *(("blur", "sharp"), ("input", "target"), ("inputC", "target"), ("lq", "gt")),
    *(("source", "target"), ("blur", "gt"), ("input", "gt")),
)


def pair_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of degraded and of sharp pictures inside `folder`; None where it is no set of pairs."""
    for degraded, sharp in PAIR_FOLDERS:
        if (folder / degraded).is_dir() and (folder / sharp).is_dir():
            return folder / degraded, folder / sharp
    return None


def match_names(degraded: Path, sharp: Path) -> list[tuple[Path, Path]]:
    """Pair pictures of the same name and subfolder; the suffix may differ.

    Returns:
        (degraded, sharp), in the order of the sharp ones.

    Raises:
        UserError: if two pictures of a folder share a name, or a picture of either has no partner.
    """
    by_name = []
    for folder in (degraded, sharp):
        names: dict[str, Path] = {}
        for path in find_photographs(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in names:
                raise UserError(f"two pictures of {folder} are called {name!r}: {names[name]} and {path}")
            names[name] = path
        by_name.append(names)
    for here, there, other in ((by_name[1], by_name[0], degraded), (by_name[0], by_name[1], sharp)):
        missing = [path for name, path in here.items() if name not in there]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(here)} pictures have no partner in {other}, e.g. {missing[0]}"
            )
    return [(by_name[0][name], path) for name, path in by_name[1].items()]


def read_pair(
    pair: tuple[Path, Path], read: Callable[[Path], NDArray] = read_luma
) -> tuple[NDArray, NDArray]:
    """Read (degraded, sharp).

    Raises:
        UnreadablePhotograph: if one of them cannot be decoded; the message names it.
        UserError: if they differ in size: then they are not of the same scene, or not aligned.
    """
    images = []
    for path in pair:
        try:
            images.append(read(path))
        except UnreadablePhotograph as reason:
            raise UnreadablePhotograph(f"{path.parent.name}/{path.name}: {reason}") from None
    if images[0].shape[:2] != images[1].shape[:2]:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in images)
        raise UserError(f"{pair[0]} and {pair[1]} differ in size: {sizes}")
    return images[0], images[1]
