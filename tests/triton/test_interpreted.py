"""The Triton kernels compute what the oracle says, shown without a GPU; see `run_checks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("group", ["definitions", "general", "halves", "pixel_terms", "edges", "any_input"])
def test_kernels_agree_with_the_oracle_in_the_interpreter(group):
    pytest.importorskip("triton", reason="Triton is an optional dependency, for Linux")
    command = [sys.executable, "-m", "tests.triton.run_checks", group]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
