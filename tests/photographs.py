"""Where tests find real photographs: scikit-image's, and a folder of test data where there is one."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

__all__ = ["data_folder", "scikit_image_photograph"]


def scikit_image_photograph(name: str) -> Path:
    """A photograph inside scikit-image's wheel, e.g. astronaut.png."""
    package = find_spec("skimage")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "data" / name


def data_folder(name: str) -> Path:
    """A folder of test data: in the folder that QKERNEL_DATA names, else in shared/data beside the checkout.

    The test is skipped where there is none.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("QKERNEL_DATA", beside)) / name
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set QKERNEL_DATA to the folder that holds {name}")
    return folder
