"""Engines to test on, and the state every test starts from."""

from __future__ import annotations

import gc
import os
import shutil
import zlib

import pytest
import torch

import qkernel.engines
from qkernel.engines import triton

#: The device each engine is tested on. An engine that is not here is not tested: `test_engines` sees to it.
ENGINE_DEVICES = {"cpp": "cpu", "eager": "cpu", "triton": "cuda", "cuda": "cuda"}


def engine_parameters() -> list:
    """The engines this checkout registers, those of a GPU marked as such."""
    return [
        pytest.param(name, marks=pytest.mark.gpu if device == "cuda" else ())
        for name, device in ENGINE_DEVICES.items()
        if name in qkernel.engines.ENGINES
    ]


def present_engines() -> list[tuple[str, str]]:
    """(engine, device) of those that run here, for property-based tests, which draw among them."""
    return [
        (name, device)
        for name, device in ENGINE_DEVICES.items()
        if name in qkernel.engines.ENGINES
        and (device == "cpu" or torch.cuda.is_available())
        and qkernel.engines.ENGINES[name].missing() is None
    ]


def takes(engine: str, dtype: torch.dtype = torch.float32, patch_size: int = 8) -> bool:
    """Whether the engine is made for such images. Only Triton has limits; it refuses the rest, when named."""
    return engine != "triton" or (dtype in triton.DTYPES and patch_size in triton.PATCH_SIZES)


@pytest.fixture(params=engine_parameters())
def engine(request) -> str:
    """The name of each engine in turn. Missing without a good reason, it is a failure and not a skip."""
    name = request.param
    if ENGINE_DEVICES[name] == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if reason := qkernel.engines.ENGINES[name].missing():
        compilers = [os.environ.get("CXX"), "c++", "g++", "clang++", "cl"]
        if name == "cpp" and not any(shutil.which(c) for c in compilers if c):
            pytest.skip(f"no C++ compiler here: {reason}")
        if name == "cuda" and not qkernel.engines.ENGINES[name].is_built():
            pytest.skip(f"built without the CUDA toolkit: {reason}")
        pytest.fail(f"engine {name!r} should be here, but: {reason}")
    return name


@pytest.fixture
def device(engine) -> torch.device:
    return torch.device(ENGINE_DEVICES[engine])


@pytest.fixture(autouse=True, scope="module")
def what_is_there_is_not_collected():
    """Every run of training collects garbage, and would look through all that earlier tests have left."""
    gc.collect()
    gc.freeze()


def _on_gpus(config: pytest.Config) -> bool:
    return config.option.markexpr == "gpu"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a GPU those of Triton come last, which take long to compile; and in an order that is none.

    Side by side they would compile the same kernel in every process.
    """
    if _on_gpus(config):
        items.sort(key=lambda item: ("triton" in item.nodeid, zlib.crc32(item.nodeid.encode())))


class _Naming:
    """A run on a GPU may end before its summary: what fails is named at once."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)


def pytest_configure(config: pytest.Config) -> None:
    # With processes of tests, in that which hears from all of them.
    if _on_gpus(config) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Naming())
