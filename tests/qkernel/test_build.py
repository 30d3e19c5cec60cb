"""Installing on a machine that lacks what the compiled engines need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qkernel.engines import cpp

ROOT = Path(__file__).parents[2]


def _checkout(folder: Path) -> None:
    pytest.importorskip("pybind11")
    for name in ("setup.py", "setup_cuda.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    shutil.copytree(ROOT / "qkernel", folder / "qkernel", ignore=shutil.ignore_patterns("*.so"))


def _build(folder: Path, architectures: str) -> subprocess.CompletedProcess:
    """Without a compiler and without nvcc."""
    nowhere = {"CC": "false", "CXX": "false", "CUDA_HOME": str(folder / "no toolkit")}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env={**os.environ, **nowhere, "QKERNEL_CUDA_ARCHS": architectures},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="compilers are found elsewhere there")
def test_without_compilers_a_checkout_is_still_installed(tmp_path):
    """What `pip install -e .` does, and with it `make test` and `make demo`."""
    _checkout(tmp_path)
    for architectures in ("", "native", "none"):
        done = _build(tmp_path, architectures)
        assert done.returncode == 0, done.stderr
        assert "qkernel's C++ engine was not built" in done.stderr
        assert "qkernel's CUDA engine is left out" in done.stderr
        assert not list((tmp_path / "qkernel").glob("*.so"))


@pytest.mark.skipif(sys.platform == "win32", reason="compilers are found elsewhere there")
def test_architectures_that_are_asked_for_are_built_or_the_build_fails(tmp_path):
    _checkout(tmp_path)
    done = _build(tmp_path, "99")
    assert done.returncode != 0
    for words in ("CUDA engine cannot be built", "no nvcc", "QKERNEL_CUDA_ARCHS"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="sections of ELF")
def test_the_compiled_engine_carries_no_debug_information():
    if reason := cpp.missing():
        pytest.skip(reason)
    assert b".debug_info" not in Path(cpp._C.__file__).read_bytes()
