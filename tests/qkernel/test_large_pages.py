"""Large gradients of the C++ engine: fetched from the system in large pages, and right to the last pixel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qkernel import QLoss

SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SMALL_PAGE = 4096


def large_pages_are_there() -> bool:
    return SWITCH.is_file() and "[never]" not in SWITCH.read_text()


PROGRAM = """
import resource, torch
from qkernel import QLoss
torch.set_num_threads(1)
x = torch.rand(1, 1, 4096, 4096, requires_grad=True)
loss = QLoss(engine="cpp")(x)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not large_pages_are_there(), reason="this system hands out small pages only")
def test_a_large_gradient_is_not_fetched_page_by_page():
    # A process of its own: memory that this one has used before would not be fetched anew.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    in_small_pages = 4 * 4096 * 4096 // SMALL_PAGE
    # One for each 2 MiB where all goes well; half of the small ones where memory is fragmented.
    assert int(done.stdout) < in_small_pages / 2


def test_a_large_gradient_is_that_of_its_parts():
    # Neither a multiple of a page nor of the vectors' width.
    image = torch.rand(1, 1, 2 * 520, 1091, generator=torch.Generator().manual_seed(0))
    whole = image.clone().requires_grad_()
    QLoss(engine="cpp")(whole).backward()
    for part in (slice(0, 520), slice(520, None)):
        half = image[:, :, part].clone().requires_grad_()
        QLoss(engine="cpp")(half).backward()
        # Half the patches: each weighs double, which is exact.
        assert torch.equal(2 * whole.grad[:, :, part], half.grad)
