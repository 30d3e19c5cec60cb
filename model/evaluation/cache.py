"""Results that were made before, so that an interrupted evaluation goes on where it stopped."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

import model.classical
import model.networks
from model.evaluation.methods import Method
from model.weights import replace_file

__all__ = ["ResultCache"]

# A change of what is kept or of how keys are made makes old results unknown.
_FORMAT = 1


class ResultCache:
    """A folder of restored pictures, named by the hash of everything they depend on.

    That is the method with its parameters, weights and blur, the pixels it is given, the device, how many
    pictures it is given at once (for the time), the number format of the result, torch's version and the
    source of the classical methods and networks: whatever changes one of them makes a new result. Metrics are
    cheap and measured anew.

    Args:
        folder: made at the first result.
        device: in words.
        output: how results become 8 bits.
        batch: pictures restored at once.
        repeats: runs that the time is the median of.
    """

    def __init__(self, folder: Path, device: str, output: str, batch: int, repeats: int) -> None:
        self.folder, self.hits = folder, 0
        self._setting = [_FORMAT, device, output, batch, repeats, torch.__version__, _source()]

    def key(self, method: Method, observed: NDArray[np.float64]) -> str | None:
        """The name of a result; None for a method whose results are not kept."""
        if not method.key:
            return None
        pixels = hashlib.sha256(np.ascontiguousarray(observed)).hexdigest()
        parts: list[Any] = [*self._setting, method.key, list(observed.shape), pixels]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def load(self, key: str | None) -> tuple[NDArray[np.uint8], float] | None:
        """The restored picture and its seconds; None if it was never made, or its file is damaged."""
        if key is None:
            return None
        try:
            with np.load(self.folder / f"{key}.npz") as arrays:
                found = arrays["restored"], float(arrays["seconds"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            # A damaged file costs its picture once more; writing is atomic, so a disk must have failed.
            return None
        self.hits += 1
        return found

    def save(self, key: str | None, restored: NDArray[np.uint8], seconds: float) -> None:
        """Keep a result.

        Raises:
            UserError: if it cannot be written.
        """
        if key is None:
            return
        content = io.BytesIO()
        np.savez_compressed(content, restored=restored, seconds=np.float64(seconds))
        replace_file(self.folder / f"{key}.npz", content.getvalue())


def _source() -> str:
    total = hashlib.sha256()
    for package in (model.classical, model.networks):
        for folder in package.__path__:
            for path in sorted(Path(folder).glob("*.py")):
                total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()
