"""The CUDA kernels as an engine that runs on the CPU: what is asked of an engine can so be asked of them.

Their source is compiled by the host compiler, 32 lanes to a thread (tests/cuda/host.cpp); around it stands
the Python of the CUDA engine, unchanged but for the device.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import qkernel.engines

from ..qkernel.conftest import torch_state  # noqa: F401

ROOT = Path(__file__).parents[2]
HOST = ROOT / "tests" / "cuda" / "host.cpp"
NAME = "cuda_on_cpu"


def _flags() -> list[str]:
    # As with nvcc, nothing is fused that the source does not fuse.
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas"]
    # Forced inlining is for the GPU, where a call costs registers; here it only makes the compilation longer.
    flags.append("-Dalways_inline=unused")
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append("-march=native")  # fma() as an instruction
    return flags


@functools.cache
def kernels_on_cpu() -> types.ModuleType | str:
    """The compiled module, built anew only when its sources change; or why there is none."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "no C++ compiler"
    sources = [HOST, ROOT / "csrc" / "patch.h", *sorted((ROOT / "csrc" / "cuda").glob("*.h"))]
    command = [compiler, *_flags(), f"-I{sysconfig.get_paths()['include']}", f"-I{pybind11.get_include()}"]
    fingerprint = "\n".join([*command, platform.node(), *(path.read_text() for path in sources)])
    folder = ROOT / "build" / "tests" / hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
    module = folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not module.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Under another name first: another test run may be building the same.
        partial = folder / f"{os.getpid()}.partial"
        done = subprocess.run([*command, str(HOST), "-o", str(partial)], capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"the kernels do not compile for the CPU:\n{done.stderr[-4000:]}")
        partial.replace(module)
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(module))
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader(NAME, loader))
    loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="session")
def kernels() -> types.ModuleType:
    module = kernels_on_cpu()
    if isinstance(module, str):
        pytest.skip(module)
    # The tests' images are small: all would take the kernels for few patches, which have tests of their own.
    module.set_few_patches(0)
    return module


@contextmanager
def few_patches(module) -> Iterator[None]:
    """With the kernels for few patches, which then are all that a test has."""
    before = module.set_few_patches(1 << 14)
    try:
        yield
    finally:
        module.set_few_patches(before)


@pytest.fixture(scope="session")
def cuda_engine() -> types.ModuleType:
    """A copy of qkernel/engines/cuda.py, to be changed without harm."""
    path = ROOT / "qkernel" / "engines" / "cuda.py"
    spec = importlib.util.spec_from_file_location("qkernel.engines.cuda_under_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engine(kernels, cuda_engine, monkeypatch) -> str:
    """Takes the place of the fixture that goes through the engines."""
    monkeypatch.setattr(cuda_engine, "_cuda", kernels)
    monkeypatch.setattr(cuda_engine, "_place", lambda x: (0, 0))
    monkeypatch.setattr(cuda_engine, "missing", lambda: None)
    monkeypatch.setattr(cuda_engine, "refusal", lambda x, definition, target: None)
    monkeypatch.setitem(qkernel.engines.ENGINES, NAME, cuda_engine)
    return NAME


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu")
