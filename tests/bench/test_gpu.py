"""`bench gpu`: on the CPU everything but the device itself; on a GPU a cell as it is measured there."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from dataclasses import dataclass, replace

import pytest
import torch

from bench import gpu, gpu_cells, limits, precompile, record, timing
from bench.gpu_cells import Cell
from bench.gpu_report import report
from bench.limits import Measured

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPE = (2, 1, 64, 72)


@dataclass(frozen=True)
class _Stream:
    name: str = "fma"
    instructions: int = 10**6

    def launch(self) -> None:
        torch.ones(64).sum()


@pytest.fixture
def on_cpu(monkeypatch):
    """The CPU's engines and clock in place of the GPU's, and direct calls in place of graphs."""

    def captured(steps):
        return lambda: [step() for step in steps]

    monkeypatch.setattr(gpu_cells, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_cells, "OURS", ("cpp", "eager"))
    monkeypatch.setattr(gpu_cells, "ROUNDS", 0.01)
    monkeypatch.setattr(gpu_cells, "CALLS", 4)
    monkeypatch.setattr(gpu_cells, "QUEUED", 2)
    monkeypatch.setattr(gpu_cells, "architecture", lambda: 90)
    monkeypatch.setattr(gpu_cells, "issue_streams", lambda: [_Stream(), _Stream("fma+integer")])
    monkeypatch.setattr(gpu_cells.cuda, "sets_needed", lambda image_bytes: 2)
    monkeypatch.setattr(gpu_cells.cuda, "on_side", contextlib.nullcontext)
    monkeypatch.setattr(gpu_cells.cuda, "captured", captured)
    monkeypatch.setattr(timing, "cuda_clock", timing.cpu_clock)
    monkeypatch.setattr(limits, "instructions_per_pixel", lambda row, architecture: 30.0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


@pytest.mark.parametrize("mode", ["forward", "backward", "both"])
@pytest.mark.parametrize("layout", ["contiguous", "shifted", "offset"])
def test_a_cell_measures_all_that_the_targets_ask_for(on_cpu, mode, layout):
    cell = Cell(SHAPE, mode, layout=layout, alone=layout != "contiguous")
    rows = {(r.kernel, r.provider): r for r in gpu_cells.measured(cell)}
    torchs = {("copy", "torch"), ("read", "torch"), ("issue", "fma")}
    assert {("q", "eager"), ("mae_q", "eager"), *torchs} <= set(rows)
    assert (("q", "plain") in rows) == (layout == "contiguous")
    issue = max(rows["issue", name].ginstructions_per_s for name in ("fma", "fma+integer"))
    pixels = 2 * 64 * 72
    for (kernel, provider), row in rows.items():
        assert (row.shape, row.mode, row.layout) == (SHAPE, mode, layout)
        assert 0 < row.ms_p20 <= row.ms_p50 <= row.ms_p80
        if kernel == "issue":
            assert row.ginstructions_per_s == pytest.approx(1e6 / row.ms_p50 / 1e6)
            assert row.gbytes_per_s is None
            continue
        assert row.share_of_copy == pytest.approx(row.gbytes_per_s / rows["copy", "torch"].gbytes_per_s)
        assert (row.share_of_limit is not None) == (provider in ("cpp", "eager"))
        if provider in ("cpp", "eager"):
            assert row.share_of_issue == pytest.approx(30 * pixels / row.ms_p50 / 1e6 / issue)
            assert row.share_of_limit == max(row.share_of_copy, row.share_of_issue)
            assert (row.workspace_bytes is None) == (mode == "backward")


def test_layouts_are_what_their_names_say(on_cpu):
    inputs = gpu_cells.Inputs.of(*torch.rand(2, 2, 1, 16, 16), torch.float32, "cpu")
    shifted = gpu_cells._shifted(inputs)
    for one, other in ((shifted.pred, inputs.pred), (shifted.target, inputs.target)):
        assert torch.equal(one, other)
        assert one.storage_offset() == 1 and one.stride() == (16 * 17, 16 * 17, 17, 1)
    assert shifted.pred.requires_grad and shifted.pred.is_leaf and not shifted.target.requires_grad
    offset = {p.name: p.loss for p in gpu_cells._providers(Cell(SHAPE, layout="offset", alone=True))}
    assert tuple(offset["eager"].offset) == gpu_cells.OFFSET


def test_a_graph_keeps_what_its_steps_hold(monkeypatch):
    """Of a backward pass the loss's saved tensors, which a replay reads wherever their memory has gone."""

    class Graph:
        def replay(self):
            replayed.append(self)

    monkeypatch.setattr(gpu_cells.cuda, "on_side", contextlib.nullcontext)
    monkeypatch.setattr(gpu_cells.cuda, "side", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: contextlib.nullcontext())
    replayed, saved = [], torch.ones(3)
    held = weakref.ref(saved)
    replay = gpu_cells.cuda.captured([lambda kept=saved: kept + 1])
    del saved
    gc.collect()
    assert held() is not None
    replay()
    assert len(replayed) == 1
    del replay
    gc.collect()
    assert held() is None


def test_an_engine_that_fails_ends_the_run_and_a_rival_is_noted(on_cpu, monkeypatch):
    def failing(name):
        def step(self, *arguments, step=gpu_cells.Provider.step, **options):
            if self.name == name:
                raise torch.cuda.OutOfMemoryError("too large\nand more")
            return step(self, *arguments, **options)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(gpu_cells.Provider, "step", failing("plain"))
        failed = [row for row in gpu_cells.measured(Cell(SHAPE)) if row.note]
    assert {(row.kernel, row.ms_p50) for row in failed} == {("q", None), ("mae_q", None)}
    assert all(row.note == "OutOfMemoryError: too large" for row in failed)
    with monkeypatch.context() as patch:
        patch.setattr(gpu_cells.Provider, "step", failing("eager"))
        with pytest.raises(torch.cuda.OutOfMemoryError):
            gpu_cells.measured(Cell(SHAPE))


def test_without_an_issue_rate_the_rest_is_measured(on_cpu, monkeypatch, capsys):
    def broken():
        raise RuntimeError("no Triton")

    monkeypatch.setattr(gpu_cells, "issue_streams", broken)
    rows = gpu_cells.measured(Cell(SHAPE, alone=True))
    assert "no issue rate: no Triton" in capsys.readouterr().out
    assert {row.kernel for row in rows} == {"q", "mae_q", "copy", "read"}
    assert all(row.share_of_copy > 0 and row.share_of_limit is None for row in rows)


def test_what_was_measured_is_written_after_every_cell(on_cpu, monkeypatch, tmp_path, capsys):
    cells = (Cell(SHAPE), Cell(SHAPE, "forward", "bfloat16", alone=True), replace(Cell(SHAPE), compiled=True))
    monkeypatch.setattr(gpu_cells, "CELLS", cells)
    monkeypatch.setattr(gpu_cells, "SMALL", (1, 1, 32, 32))
    monkeypatch.setattr(gpu_cells, "COMPILED_CELL", 1e6)
    written = []
    original = record.write
    monkeypatch.setattr(record, "write", lambda *given: (written.append(len(given[1])), original(*given)))
    monkeypatch.setattr(precompile, "run", lambda cells, end: [])
    gpu.bench(tmp_path, timing.time.perf_counter() + 1000)
    assert len(written) == 3 and written == sorted(set(written))
    rows, _ = record.read(tmp_path / "gpu.csv", Measured)
    assert len(rows) == written[-1]
    assert {r.mode for r in rows} == {"both", "forward", gpu_cells.CALL}
    assert "no time left for 2x1x64x72 float32 both" in capsys.readouterr().out
    assert (tmp_path / "gpu.md").read_text().startswith("# Q as a loss on a GPU\n")


def test_every_call_that_is_compiled_is_made_once_by_a_process(on_cpu, monkeypatch, capfd):
    kinds = precompile.kinds(gpu_cells.CELLS, 1 << 40)
    assert len(set(kinds)) == len(kinds) and {kind.name for kind in kinds} == {"triton", "compile"}
    shapes = {(cell.shape, cell.dtype, cell.layout) for cell in gpu_cells.CELLS}
    assert {(k.cell.shape, k.cell.dtype, k.cell.layout) for k in kinds} == shapes
    assert {k.cell.shape for k in kinds if k.name == "compile"} == {
        cell.shape for cell in gpu_cells.CELLS if cell.compiled
    }
    most = 4 << 30
    few = precompile.kinds(gpu_cells.CELLS, most)
    assert 0 < len(few) < len(kinds) and all(k.bytes <= most for k in few)
    # Processes for two calls of an engine that is there, and one that is not.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 40, 1 << 40))
    cells = [Cell(SHAPE, layout=layout) for layout in ("shifted", "offset", "contiguous")]
    names = "eager", "eager", "nothing"
    work = [precompile.Kind(cell, "q", name) for cell, name in zip(cells, names, strict=True)]
    monkeypatch.setattr(precompile, "kinds", lambda cells, most: work)
    assert precompile.run(cells, timing.time.perf_counter() + 100) == cells[2:]
    said = capfd.readouterr()
    assert "not compiled ahead: q/nothing of 2x1x64x72 float32 both: the process ended with 1" in said.out
    assert "unknown engine 'nothing'" in said.err
    assert "2 of 3 calls compiled ahead" in said.out
    # Without time none is begun, and whatever runs is ended.
    assert precompile.run(cells, 0) == cells
    monkeypatch.setattr(precompile.os, "cpu_count", lambda: 1)
    assert precompile.run(cells, timing.time.perf_counter() + 0.1) == cells
    assert "the process ended with -9" in capfd.readouterr().out


def test_a_cell_that_has_to_compile_is_given_the_time(on_cpu, monkeypatch, capsys):
    cell = Cell(SHAPE, alone=True)
    monkeypatch.setattr(gpu_cells, "CELLS", (cell,))
    monkeypatch.setattr(gpu_cells, "SMALL", (1, 1, 32, 32))
    end = timing.time.perf_counter() + cell.seconds + 20
    assert len(list(gpu_cells.measure(end, [cell]))) == 1
    assert "no time left for 2x1x64x72 float32 both" in capsys.readouterr().out
    assert len(list(gpu_cells.measure(end))) == 2


def test_only_the_parts_asked_for_are_run(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    limits = []
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: ran.append("tests") or limits.append(seconds))
    monkeypatch.setattr(gpu, "bench", lambda folder, end: ran.append("bench"))
    monkeypatch.setattr(gpu, "train", lambda folder, seconds: ran.append("train") or True)
    for words, parts, code in (
        ([], ["tests", "bench", "train"], 1),
        (["--tests-only"], ["tests"], 1),
        (["--bench-only"], ["bench"], 0),
        (["--train-only"], ["train"], 0),
    ):
        ran.clear()
        assert gpu.main([*words, "--out", str(tmp_path)]) == code
        assert ran == parts
    # Alone it has more time.
    assert limits == [gpu.BUDGETS["tests"], gpu.ALONE["tests"]]


@pytest.mark.parametrize("speeds_first", [True, False])
def test_a_training_run_that_takes_too_long_is_ended(speeds_first, monkeypatch, tmp_path, capsys):
    (tmp_path / "train_cuda.csv").write_text("of an earlier run")
    os.utime(tmp_path / "train_cuda.csv", (0, 0))
    program = "import pathlib, sys, time\n"
    if speeds_first:
        program += "pathlib.Path(sys.argv[sys.argv.index('--out') + 1], 'train_cuda.csv').write_text('now')\n"
    (tmp_path / "bench.py").write_text(program + "time.sleep(60)\n")
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert gpu.train(tmp_path, 2.0) == speeds_first
    said = capsys.readouterr().err
    assert ("its curve is not" if speeds_first else "error: nothing") in said


def test_all_of_it_ends_within_ten_minutes_and_its_tests_are_there():
    # What is left is for the build of the engines, where there is a compiler.
    assert 600 - sum(gpu.BUDGETS.values()) - gpu.LAST_WORDS >= 70
    assert all(seconds < 600 - 70 - gpu.LAST_WORDS for seconds in gpu.ALONE.values())
    assert all((record.ROOT / path).exists() for path in gpu.GPU_TESTS)
    assert len(set(gpu_cells.CELLS)) == len(gpu_cells.CELLS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_run_ends_with_a_clear_message(capsys):
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("layout", ["contiguous", "shifted", "offset"])
def test_a_cell_on_the_gpu(layout, monkeypatch):
    monkeypatch.setattr(gpu_cells, "ROUNDS", 0.05)
    rows = gpu_cells.measured(Cell((1, 1, 2048, 2048), layout=layout, alone=True))
    ours = [row for row in rows if row.provider == "triton"]
    assert {row.kernel for row in ours} == {"q", "mae_q"}
    for row in ours:
        assert row.note == "" and row.share_of_limit > 0
        # The allocator may hand out a block that is a little less than a MiB too large.
        assert 0 < row.workspace_bytes <= 0.005 * 4 * row.pixels + (1 << 20)
    assert "## Reach" in report(rows, record.machine("cuda"))


@pytest.mark.gpu
@needs_gpu
def test_the_gpu_issues_no_more_than_its_schedulers_can():
    streams = gpu_cells.issue_streams()
    assert [stream.name for stream in streams] == ["fma", "fma+integer"]
    cores = torch.cuda.get_device_properties(0).multi_processor_count
    for stream in streams:
        seconds = min(timing.cuda_clock(stream.launch) for _ in range(5))
        # Four schedulers of 32 lanes, at some gigahertz at most: it has not been left out or counted twice.
        assert stream.instructions / seconds < cores * 4 * 32 * 4e9
