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
from model.training.trainer import train
from model.weights import load_weights
from tests.model.conftest import ROOT

PROCESSES = 2


# A run, and the threads of its process before and after.
COUNT_THREADS = """
import sys

import psutil

from model.__main__ import COMMANDS, main

before = psutil.Process().num_threads()
code = main(COMMANDS, sys.argv[1:])
print(f"threads: {before}, {psutil.Process().num_threads()};")
sys.exit(code)
"""


def start(config, tmp_path, *words, program=("-m", "model")) -> subprocess.Popen:
    file = tmp_path / f"{config.out.name}.yaml"
    file.write_text(yaml.safe_dump(config.recorded()))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(PROCESSES))
    return subprocess.Popen(
        [sys.executable, *launcher, *program, "train", *(words or ("--config", str(file)))],
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
    together = dataclasses.replace(frozen, out=tmp_path / "together")
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


def test_no_thread_is_left_at_the_end(config, tmp_path):
    # One that wants Python while it is leaving would end the process by SIGABRT.
    program = tmp_path / "count_threads.py"
    program.write_text(COUNT_THREADS)
    output = finish(start(config, tmp_path, program=(str(program),)))
    counted = re.findall(r"threads: (\d+), (\d+);", output)
    assert len(counted) == PROCESSES, output
    assert all(before == after for before, after in counted), output


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
