"""The streams that measure the issue rate are in machine code what they are counted as, for every GPU."""

from __future__ import annotations

import re
from collections import Counter

import pytest

pytest.importorskip("triton", reason="Triton is an optional dependency, for Linux")

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench import inspect, issue

_LINE = re.compile(
    r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)([^;]*);|^(\.L_\w+):", re.MULTILINE
)


def _loops(listing: str) -> list[Counter]:
    """The instructions of each loop: from where a branch back leads to the branch."""
    code, labels = [], {}
    for _, name, rest, label in _LINE.findall(listing):
        if label:
            labels[label] = len(code)
        else:
            code.append((name, rest))
    found = []
    for place, (name, rest) in enumerate(code):
        target = re.search(r"\.L_\w+", rest)
        # A branch to itself ends the code.
        if name == "BRA" and target and labels[target[0]] < place:
            found.append(Counter(name for name, _ in code[labels[target[0]] : place + 1]))
    return found


@pytest.mark.parametrize("architecture", inspect.ARCHITECTURES)
@pytest.mark.parametrize("name", issue.STREAMS)
def test_the_loop_is_what_is_counted_and_little_else(name, architecture, tmp_path):
    mixed, constants = issue.STREAMS[name], issue.shape_of_loop()
    types = {"out": "*fp32", "factor": "fp32", "shift": "fp32", "by": "i32", "turns": "i32"}
    constants["MIXED"] = mixed
    signature = {name: types.get(name, "constexpr") for name in issue.arithmetic_kernel.arg_names}
    source = ASTSource(
        issue.arithmetic_kernel, signature, constexprs=constants, attrs={(0,): [["tt.divisibility", 16]]}
    )
    binary = triton.compile(
        source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": issue.WARPS}
    )
    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary.asm["cubin"])
    (loop,) = _loops(inspect._tool("nvdisasm", str(path)))
    operations = issue.CHAINS * issue.LENGTH
    assert loop["FFMA"] == (operations // 2 if mixed else operations)
    assert loop["SHF"] == (operations // 2 if mixed else 0)
    assert operations <= loop.total() <= 1.02 * operations


@pytest.mark.parametrize("name", issue.STREAMS)
def test_the_launch_executes_what_is_counted(name):
    """By `bench.ptx`, a block of it; and the values stay finite to the end."""
    from bench.ptx import machine
    from bench.ptx.triton_driver import Driver

    out, turns = torch.full((32 * issue.WARPS,), float("nan")), 3
    with Driver(90, ("out",)).installed() as driver:
        driver.record.counts = machine.Counts()
        issue.arithmetic_kernel[(1,)](
            out,
            0.999,
            0.5,
            7,
            turns,
            MIXED=issue.STREAMS[name],
            num_warps=issue.WARPS,
            **issue.shape_of_loop(),
        )
    counts = driver.record.counts.by_opcode
    assert counts["fma"] + counts["shf"] == issue.WARPS * turns * issue.CHAINS * issue.LENGTH
    assert out.isfinite().all()
