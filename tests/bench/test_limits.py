"""The limits of a GPU kernel: from bytes and instructions, and from machine code that is really there."""

from __future__ import annotations

import dataclasses

import pytest

from bench import cuda_inspect, inspect, limits
from bench.limits import Measured
from qkernel.engines import cuda as cuda_engine

SHAPE = (1, 1, 1000, 1000)


def _row(kernel: str, provider: str, ms: float, **more) -> Measured:
    return Measured(kernel, provider, "both", "float32", *SHAPE, "photo", ms, ms, ms, **more)


def _rows(instructions: float | None) -> list[Measured]:
    """A copy of 8 bytes a pixel in 1 ms; the faster stream at 1e11 instructions a second."""
    return [
        _row("q", "cuda", 2.0, gbytes_per_s=6.0, instructions_per_pixel=instructions),
        _row("q", "plain", 40.0, gbytes_per_s=0.3),
        _row("copy", "torch", 1.0, gbytes_per_s=8.0),
        _row("issue", "fma", 1.0, ginstructions_per_s=50.0),
        _row("issue", "fma+integer", 1.0, ginstructions_per_s=100.0),
    ]


def test_the_limit_is_the_slower_of_copy_and_issue():
    # 1e6 pixels of 100 or 180 instructions in 2 ms are 50 or 90 billion a second, half or 90 % of the rate.
    for instructions, of_issue, of_limit in ((100.0, 0.5, 0.75), (180.0, 0.9, 0.9)):
        ours, plain, copy, *streams = limits.with_shares(_rows(instructions))
        assert ours.share_of_copy == pytest.approx(0.75)
        assert ours.share_of_issue == pytest.approx(of_issue)
        assert ours.ginstructions_per_s == pytest.approx(100 * of_issue)
        assert ours.share_of_limit == pytest.approx(of_limit)
        assert copy.share_of_copy == 1
        assert plain.share_of_copy == pytest.approx(0.0375) and plain.share_of_limit is None
        assert streams == _rows(instructions)[3:]


def test_without_a_count_or_an_issue_rate_there_is_no_share_of_the_limit():
    for rows in (_rows(None), _rows(100.0)[:3]):
        ours = limits.with_shares(rows)[0]
        assert ours.share_of_copy == pytest.approx(0.75)
        assert ours.share_of_issue is None and ours.share_of_limit is None


def test_workspace_is_what_is_not_the_gradient():
    image = 4 * 10**6
    both = _row("q", "cuda", 1.0, extra_bytes_forward=3000, extra_bytes_backward=image + 512)
    assert limits.workspace(both, 4) == 3000
    larger = dataclasses.replace(both, extra_bytes_backward=2 * image)
    assert limits.workspace(larger, 4) == image
    assert limits.workspace(_row("q", "cuda", 1.0, extra_bytes_forward=1024), 4) == 1024
    assert limits.workspace(_row("q", "cuda", 1.0), 4) is None


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [(90, 90), (80, 80), (87, 86), (89, 89), (103, 100), (70, None), (110, None), (121, 120)],
)
def test_the_machine_code_is_that_which_the_device_runs(architecture, expected):
    assert (
        limits.machine_code(architecture, ("75", "80", "86", "89", "90", "100", "120", "80-ptx")) == expected
    )


def test_instructions_of_triton_are_those_that_inspect_reads():
    pytest.importorskip("triton", reason="Triton is an optional dependency, for Linux")
    row = _row("q", "triton", 1.0)
    counts = {
        mode: limits.instructions_per_pixel(dataclasses.replace(row, mode=mode), 90) for mode in limits.PASSES
    }
    assert counts["forward"] == inspect.compiled(inspect.Variant("value"), 90).instructions
    assert counts["backward"] == inspect.compiled(inspect.Variant("gradient"), 90).instructions
    assert counts["both"] == counts["forward"] + counts["backward"]
    fused = limits.instructions_per_pixel(dataclasses.replace(row, kernel="mae_q"), 90)
    assert fused > counts["both"] > 16
    assert limits.instructions_per_pixel(dataclasses.replace(row, layout="shifted"), 90) == counts["both"]


def test_instructions_of_cuda_are_those_of_its_module():
    if cuda_inspect.built_module() is None:
        pytest.skip("built without the CUDA toolkit")
    if cuda_inspect.find_cuobjdump() is None:
        pytest.skip("no cuobjdump: it comes with Triton's wheel and with the CUDA toolkit")
    built = int(next(name for name in cuda_engine.architectures() if not name.endswith("-ptx")))
    every = cuda_inspect.inspect(cuda_inspect.built_module(), cuda_inspect.find_cuobjdump(), built)
    assert {kernel.architecture for kernel in every} == {built}
    (forward,) = (k for k in every if k.key == ("central", 1, False, False) and not k.half)
    both = {k.kind: k for k in every if k.key == ("central", 1, True, True) and k.half}
    few, backward = both["spread"], both["direct"]
    row = dataclasses.replace(_row("q", "cuda", 1.0), mode="forward")
    assert limits.instructions_per_pixel(row, built) == forward.instructions > 8
    row = dataclasses.replace(row, kernel="mae_q", mode="backward", dtype="bfloat16", h=2048, w=2048)
    assert limits.instructions_per_pixel(row, built) == backward.instructions > forward.instructions
    row = dataclasses.replace(row, h=256, w=256)
    assert limits.instructions_per_pixel(row, built) == few.instructions > backward.instructions


def test_where_nothing_can_be_counted_there_is_none(monkeypatch, capsys):
    for row in (
        _row("q", "plain", 1.0),
        _row("copy", "torch", 1.0),
        _row("q", "cuda", 1.0, layout="shifted"),
    ):
        row = row if row.provider != "cuda" else dataclasses.replace(row, c=3)
        assert limits.instructions_per_pixel(row, 90) is None

    def no_tool(*arguments):
        raise OSError("nvdisasm: not found")

    monkeypatch.setattr(limits, "_of_triton", no_tool)
    assert limits.instructions_per_pixel(_row("q", "triton", 1.0), 90) is None
    assert "no instructions of triton for sm_90: nvdisasm: not found" in capsys.readouterr().out
