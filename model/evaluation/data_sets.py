"""Data sets by name, in a folder that holds them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.classical.naming import nearest
from model.errors import UserError

__all__ = ["DATA_SETS", "VARIABLE", "DataSet", "data_folder", "locate"]

VARIABLE = "QKERNEL_DATA"
"""Environment variable that names the folder of data sets where --data does not."""


@dataclass(frozen=True)
class DataSet:
    """Where a data set lies in the folder of data sets; the first of the places that is there."""

    places: tuple[str, ...]
    photographs: int
    """How many it has, so that an incomplete copy is noticed; 0 for pairs."""
    source: str


DATA_SETS = {
    "kodak": DataSet(("kodak", "Kodak", "Kodak24"), 24, "https://r0k.us/graphics/kodak/"),
    "bsds500": DataSet(
        ("bsds500", "BSDS500", "BSDS500/data/images", "BSR/BSDS500/data/images"),
        500,
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html",
    ),
    "div2k": DataSet(
        ("div2k", "DIV2K/DIV2K_valid_HR", "DIV2K_valid_HR"), 100, "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
    ),
    "flickr2k": DataSet(("flickr2k", "Flickr2K/Flickr2K_HR", "Flickr2K"), 2650, "Flickr2K of EDSR, 2017"),
    "dpdd": DataSet(
        ("dpdd/test", "DPDD/test_c", "dd_dp_dataset_canon/test_c"), 0, "Abuolaim and Brown, ECCV 2020"
    ),
    "realdof": DataSet(("realdof", "RealDOF"), 0, "Lee et al., CVPR 2021 (IFAN)"),
}


def data_folder(given: Path | None) -> Path | None:
    """The folder of data sets: the one that is given, else the one that QKERNEL_DATA names, or None."""
    return given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)


def locate(word: Path, data: Path | None) -> Path:
    """The folder that a word names: a path that is there, or else a data set.

    Args:
        word: as the user wrote it.
        data: the folder of data sets; where it is None, the one that QKERNEL_DATA names.

    Raises:
        UserError: if it is neither, or the data set is not in the folder.
    """
    name = str(word)
    if word.exists():
        return word
    if name.lower() not in DATA_SETS:
        raise UserError(
            f"{word} does not exist and no data set has that name; {nearest(name.lower(), DATA_SETS)}"
        )
    data_set = DATA_SETS[name.lower()]
    folder = data_folder(data)
    if folder is None:
        raise UserError(
            f"where is {name}? Name the folder that holds it with --data or {VARIABLE} ({data_set.source})"
        )
    for place in data_set.places:
        if (folder / place).is_dir():
            return folder / place
    raise UserError(
        f"{name} is not in {folder}: none of {', '.join(data_set.places)} is there ({data_set.source}); "
        "`python -m model download` fetches some sets"
    )


def incomplete(word: Path, found: Sequence[Path]) -> str:
    """A warning if a data set that was asked for by name has fewer photographs than it should; else ''."""
    data_set = DATA_SETS.get(str(word).lower())
    if data_set is None or word.exists() or len(found) >= data_set.photographs:
        return ""
    return f"{word} has {data_set.photographs} photographs, {len(found)} are there"
