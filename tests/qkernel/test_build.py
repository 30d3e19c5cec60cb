"""Installing on a machine that lacks what the compiled engines need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="compilers are found elsewhere there")
def test_without_compilers_a_checkout_is_still_installed(tmp_path):
    """What `pip install -e .` does, and with it `make test` and `make demo`."""
    pytest.importorskip("pybind11")
    for name in ("setup.py", "setup_cuda.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    shutil.copytree(ROOT / "qkernel", tmp_path / "qkernel", ignore=shutil.ignore_patterns("*.so"))
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path,
        # No nvcc takes an architecture of that name.
        env={**os.environ, "CC": "false", "CXX": "false", "QKERNEL_CUDA_ARCHS": "none"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "qkernel's C++ engine was not built" in done.stderr
    assert "qkernel's CUDA engine is left out" in done.stderr
    assert not list((tmp_path / "qkernel").glob("*.so"))
