"""Two real processes on CPUs, started as a user would: they learn what one learns with twice the batch."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from model.training.checkpoints import Checkpoints
from model.training.command import run
from model.training.config import FinetuneConfig
from model.training.sweep import sweep
from model.training.trainer import train
from model.weights import load_weights
from tests.model.conftest import ROOT

PROCESSES = 2


# A command, and the threads of its process before and after.
COUNT_THREADS = """
import sys

import psutil

from model.__main__ import COMMANDS, main

before = psutil.Process().num_threads()
code = main(COMMANDS, sys.argv[1:])
print(f"threads: {before}, {psutil.Process().num_threads()};", flush=True)
sys.exit(code)
"""
# The second process fails in the second step.
FAIL = """
from model.errors import UserError
from model.training.trainer import Trainer

plain = Trainer.one_step


def one_step(trainer):
    plain(trainer)
    if trainer.rank == 1 and trainer.step == 2:
        raise UserError("process 1 alone")


Trainer.one_step = one_step
"""


def start(config, tmp_path, *words, program=("-m", "model")) -> subprocess.Popen:
    file = tmp_path / f"{config.out.name}.yaml"
    file.write_text(yaml.safe_dump(config.recorded()))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(PROCESSES))
    return subprocess.Popen(
        [sys.executable, *launcher, *program, config.stage, *(words or ("--config", str(file)))],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def frozen(config):
    """Statistics of a batch are those of its process; frozen, the processes see nothing different. In
    float32: compared to 1e-5, where bfloat16 ends at 1e-3."""
    return dataclasses.replace(
        config, freeze_batch_norm=True, batch=4, lr=1e-2, ema=0.5, save_every=2, precision="float32"
    )


def differences(one, other) -> float:
    """The largest difference of two weights files, relative to how far the run has moved them."""
    a, b = (load_weights(path)[0] for path in (one, other))
    return max(float((a[name] - b[name]).abs().max()) for name in a if a[name].is_floating_point())


def test_two_processes_are_one_with_twice_the_batch(frozen, tmp_path):
    alone = train(dataclasses.replace(frozen, batch=frozen.batch * PROCESSES, out=tmp_path / "alone"))
    # Each takes its crops in two parts, and they exchange what both give.
    together = dataclasses.replace(frozen, accumulate=2, out=tmp_path / "together")
    output = finish(start(together, tmp_path))
    # One of them speaks for both.
    assert output.count("finished 6 steps") == 1
    assert "2 processes on cpu" in output and "6 steps of 8 crops" in output
    assert differences(alone.weights, together.out / "weights.safetensors") < 1e-5
    # A run that saw other crops is far from it: the bound can be missed.
    other = train(dataclasses.replace(frozen, out=tmp_path / "half"))
    assert differences(alone.weights, other.weights) > 1e-3
    logs = [(folder / "log.csv").read_text().splitlines() for folder in (alone.weights.parent, together.out)]
    columns = logs[0][0].split(",")
    for a, b in zip(*logs, strict=True):
        row, same = (dict(zip(columns, line.split(","), strict=True)) for line in (a, b))
        for name in ("pixel", "loss", "grad_norm"):
            assert row[name] == name or float(row[name]) == pytest.approx(float(same[name]), rel=1e-4)


def test_shards_are_different_photographs(frozen, tmp_path):
    together = dataclasses.replace(frozen, shard=True, out=tmp_path / "together", steps=2)
    finish(start(together, tmp_path))
    alone = train(dataclasses.replace(frozen, batch=8, out=tmp_path / "alone", steps=2))
    assert differences(alone.weights, together.out / "weights.safetensors") > 1e-4


def finetuning(frozen, **values) -> FinetuneConfig:
    """A second stage that goes as the first does."""
    return FinetuneConfig(**{**vars(frozen), "network": "", "network_args": {}, **values})


def threads(output: str) -> list[tuple[str, str]]:
    """Of the processes that have ended by themselves, before and after."""
    return re.findall(r"threads: (\d+), (\d+);", output)


def test_two_stages_of_two_processes_are_those_of_one(frozen, tmp_path):
    second = {}
    for name, processes in (("alone", 1), ("together", PROCESSES)):
        batch = frozen.batch * PROCESSES // processes
        one = dataclasses.replace(frozen, batch=batch, out=tmp_path / name / "mae")
        two = finetuning(frozen, batch=batch, q_weight=0.1, out=tmp_path / name / "mae_q")
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(two.recorded()))
        one.then = tmp_path / f"{name}.yaml"
        second[name] = two.out / "weights.safetensors"
        if processes == 1:
            run(one)
            continue
        program = tmp_path / "count_threads.py"
        program.write_text(COUNT_THREADS)
        output = finish(start(one, tmp_path, program=(str(program),)))
    assert output.count("finished 6 steps") == 2 and output.count("restore a photograph with") == 1
    # One that wants Python while it is leaving would end the process by SIGABRT.
    counted = threads(output)
    assert len(counted) == PROCESSES and all(before == after for before, after in counted), output
    assert differences(*second.values()) < 1e-5


def test_sweep_of_two_processes_is_that_of_one(frozen, tiny_weights, tmp_path):
    # Of validation too: the first process alone has the scores of the table.
    plain = finetuning(frozen, weights=tiny_weights, q_weights=[0, 0.5], holdout=1)
    alone = dataclasses.replace(plain, batch=frozen.batch * PROCESSES, out=tmp_path / "alone")
    together = dataclasses.replace(plain, out=tmp_path / "together")
    sweep(alone)
    output = finish(start(together, tmp_path))
    assert output.count("finished 6 steps") == 2 and output.count("written: ") == 1
    weights = [
        folder / name / "weights.safetensors"
        for name in ("w_0", "w_0.5")
        for folder in (alone.out, together.out)
    ]
    assert differences(*weights[:2]) < 1e-5 and differences(*weights[2:]) < 1e-5
    assert differences(*weights[1:3]) > 1e-3
    tables = [(folder / "table.txt").read_text() for folder in (alone.out, together.out)]
    assert tables[0] == tables[1] and "w_0.5" in tables[0]
    assert not list(together.out.rglob(".*"))


def test_failure_of_one_process_ends_both_with_its_reason(config, tmp_path):
    program = tmp_path / "fail.py"
    program.write_text(FAIL + COUNT_THREADS)
    process = start(config, tmp_path, program=(str(program),))
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.count("error: process 1 alone\n") == 1
    assert "[rank" not in output and "error: another" not in output
    assert "Root Cause" in output and "rank      : 1 " in output.split("Root Cause")[1]
    counted = threads(output)
    assert counted and counted[0][0] == counted[0][1]


def test_failure_of_both_is_said_once(config, tmp_path):
    process = start(config, tmp_path, "nowhere")
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert output.count("error: nowhere does not exist") == 1


def test_signal_to_one_process_stops_both_after_the_same_step(frozen, tmp_path):
    # A rate that does not depend on how long the run is.
    config = dataclasses.replace(
        frozen, steps=100_000, schedule="constant", warmup=0, lr=1e-3, out=tmp_path / "run"
    )
    process = start(config, tmp_path)
    end = time.monotonic() + 90
    while not Checkpoints.found(config.out / "checkpoints"):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = [
        one for one in psutil.Process(process.pid).children(recursive=True) if "model" in one.cmdline()
    ]
    ranks = {one.environ()["RANK"]: one for one in workers}
    ranks["1"].send_signal(signal.SIGTERM)
    output = finish(process)
    assert "go on with: torchrun --nproc_per_node 2 -m model train --resume --out" in output
    step = int(Checkpoints.found(config.out / "checkpoints")[-1].name[5:])
    saved = yaml.safe_load((config.out / "config.yaml").read_text())
    (config.out / "config.yaml").write_text(yaml.safe_dump({**saved, "steps": step + 2}))
    finish(start(config, tmp_path, "--resume", "--out", str(config.out)))
    alone = train(dataclasses.replace(config, batch=8, steps=step + 2, out=tmp_path / "alone"))
    assert differences(alone.weights, config.out / "weights.safetensors") < 1e-3
