"""What Triton makes of the kernels, executed on the CPU by `bench.ptx`, computes what the oracle says.

An architecture each, of those for which the compiler makes different code: before bfloat16 had instructions,
with them, and with arithmetic on pairs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CHECKS = (
    ("definitions", 90),
    ("general", 80),
    ("halves", 75),
    ("pixel_terms", 100),
    ("edges", 120),
    ("touched_once", 89),
    ("any_input", 86),
)


@pytest.mark.parametrize(("group", "architecture"), CHECKS)
def test_compiled_kernels_agree_with_the_oracle(group, architecture):
    pytest.importorskip("triton", reason="Triton is an optional dependency, for Linux")
    command = [sys.executable, "-m", "tests.triton.run_checks", group, str(architecture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
