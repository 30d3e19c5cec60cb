"""Pairs of real photographs, and methods that misbehave."""

import pytest
import torch

from model.classical.method import Knows
from model.data.photographs import find_photographs, load_luma
from model.evaluation.methods import Setting
from model.evaluation.protocol import Pair, Protocol


@pytest.fixture
def pairs(photographs) -> list[Pair]:
    """Three crops of 64 x 64, blurred as the paper does."""
    return [Protocol(crop=64).pair(photograph) for photograph in load_luma(find_photographs(photographs))]


@pytest.fixture
def setting(pairs) -> Setting:
    """What methods are built for under the default protocol."""
    return Setting(torch.device("cpu"), Protocol(crop=64).operator(), pairs)


class Bad:
    """A method that breaks, in one of several ways, on the pictures it is told to; others it returns."""

    knows, key = Knows.NOTHING, ""

    def __init__(self, pairs, way, name="bad"):
        self.name, self.way, self.calls = name, way, 0
        self._bad = [torch.from_numpy(pair.observed) for pair in pairs]

    def restore(self, blurred):
        """Return `blurred`, or break."""
        self.calls += 1
        for place, picture in enumerate(blurred[:, 0]):
            if any(torch.equal(picture, bad) for bad in self._bad):
                if self.way == "raise":
                    raise RuntimeError("out of\nluck")
                if self.way == "shape":
                    return blurred[..., 1:]
                if self.way == "interrupt":
                    raise KeyboardInterrupt
                blurred = blurred.clone()
                blurred[place, 0, 3, 4] = float(self.way)
        return blurred
