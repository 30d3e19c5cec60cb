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
    # Where the switch is at "always" the system does by itself what is tested here.
    return SWITCH.is_file() and "[madvise]" in SWITCH.read_text()


PROGRAM = """
import mmap, resource, torch
from qkernel import QLoss

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

# What the system gives to whoever asks: it may have no large pages left.
kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
before, memory = faults(), mmap.mmap(-1, 4 * 4096 * 4096, flags=kind)
memory.madvise(mmap.MADV_HUGEPAGE)
for place in range(0, len(memory), 4096):
    memory[place] = 1
print(faults() - before)
del memory
torch.set_num_threads(1)
x = torch.rand(1, 1, 4096, 4096, requires_grad=True)
loss = QLoss(engine="cpp")(x)
before = faults()
loss.backward()
print(faults() - before)
"""


@pytest.mark.skipif(not large_pages_are_there(), reason="this system hands out no large pages on request")
def test_a_large_gradient_is_not_fetched_page_by_page():
    # A process of its own: memory that this one has used before would not be fetched anew.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    in_small_pages = 4 * 4096 * 4096 // SMALL_PAGE
    of_system, of_gradient = map(int, done.stdout.split())
    if of_system > in_small_pages / 8:
        pytest.skip("this system has too few large pages free")
    # One for each 2 MiB where all goes well.
    assert of_gradient < in_small_pages / 4


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
