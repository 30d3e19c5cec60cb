"""Accelerate, set up: device, precision, processes, compilation and trackers of a run."""

import gc
import importlib
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    TorchDynamoPlugin,
)
from numpy.typing import NDArray

from model.device import choose_device
from model.errors import UserError
from model.processes import first_to_fail, processes
from model.training.config import TrainConfig

__all__ = [
    "choose_compile",
    "choose_precision",
    "close_accelerator",
    "device_of_process",
    "installed_trackers",
    "log_pictures",
    "open_accelerator",
    "process_group",
    "start_trackers",
]

# Seconds that a process which has failed is given to say why and leave, before the others leave.
PATIENCE = 5.0

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def choose_precision(wanted: str, device: torch.device) -> str:
    """The precision of the convolutions: `wanted`, or for "auto" the quickest that the device computes.

    Raises:
        UserError: if float16 is asked for on a CPU, where its gradients would vanish unscaled.
    """
    if wanted == "float16" and device.type == "cpu":
        raise UserError("--precision float16 needs a GPU; give bfloat16 or float32")
    if wanted != "auto":
        return wanted
    if device.type == "cpu":
        return "bfloat16" if _multiplies_bfloat16() else "float32"
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16; without them it is the slower one."""
    # torch 2.11 may not have it.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_compile(wanted: str, device: torch.device, world: int, accumulate: int = 1) -> str:
    """torch.compile's mode, or "none".

    With several processes gradients are exchanged between the kernels of a step, which a CUDA graph of the
    whole cannot hold. Nor are gradients added up in the memory of graphs, which belongs to their replays.

    Raises:
        UserError: if a mode with CUDA graphs is asked for where a batch goes through the network in parts.
    """
    if wanted in ("reduce-overhead", "max-autotune") and device.type == "cuda" and accumulate > 1:
        raise UserError(
            f"--compile {wanted} makes CUDA graphs, which do not add gradients up: "
            f"give --compile default with --accumulate {accumulate}"
        )
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "none"
    return "reduce-overhead" if world == accumulate == 1 else "default"


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """While entered, the processes that torchrun has started know each other; the outermost one counts.

    One group for all runs of a command: a second one would meet in torchrun's store what the first has left.

    At the end the group's threads have ended too. They do when nothing holds the group any more; destroying
    it only lets go of it. One that is still about to release a tensor when Python has begun to leave is ended
    by force, and with it the process: "terminate called without an active exception". So runs must have let
    go of prepared networks.

    Raises:
        UserError: if the device is not there, or another process has failed and this one cannot go on.
    """
    if processes() == 1 or torch.distributed.is_initialized():
        yield
        return
    place = device_of_process(device)
    # Its functions keep for good the process group that there is when they are first imported, which
    # DistributedDataParallel does.
    importlib.import_module("torch.distributed.nn.functional")
    with _quiet():
        PartialState(cpu=place.type == "cpu")
    orderly = False
    try:
        yield
        orderly = True
    except BaseException as error:
        first = first_to_fail()
        _let_go(error)
        if isinstance(error, RuntimeError) and not first:
            # An exchange with a process that has gone. torchrun takes the first that leaves for the cause.
            time.sleep(PATIENCE)
            raise UserError("another process has failed, and this one cannot go on without it") from None
        raise
    finally:
        # NCCL would wait for what is under way, in vain where another process has failed.
        if orderly or torch.distributed.get_backend() == "gloo":
            AcceleratorState._reset_state(reset_partial_state=True)
            torch.distributed.destroy_process_group()
            # Wrapped networks are in cycles.
            gc.collect()


def _let_go(error: BaseException | None) -> None:
    """Drop what the functions that an error has left still hold; their lines are kept."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def installed_trackers(config: TrainConfig) -> list[str]:
    """The names of the trackers that are asked for.

    Raises:
        UserError: if one is not installed.
    """
    trackers = [name for name in config.trackers if name != "none"]
    installed = {getattr(one, "value", str(one)) for one in get_available_trackers()} if trackers else set()
    for name in trackers:
        if name not in installed:
            raise UserError(
                f"tracker {name!r} is unknown or not installed: pip install {name}, or --trackers none"
            )
    return trackers


def open_accelerator(config: TrainConfig) -> Accelerator:
    """Make the accelerator of a run, in `process_group` where there are several processes.

    Several go on from here together: what each has looked up before, none has changed yet.

    Raises:
        UserError: if the device is not there, cannot compute in the precision, or a tracker is not installed.
    """
    trackers = installed_trackers(config)
    world = processes()
    device = device_of_process(config.device)
    mode = choose_compile(config.compile, device, world, config.accumulate)
    # An earlier run of this program may have had another device or precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    with _placed(device if world == 1 else None), _quiet():
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=_MIXED[choose_precision(config.precision, device)],
            # Not by the argument of that name, over which an environment variable goes.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulate),
            dynamo_plugin=None
            if mode == "none"
            else TorchDynamoPlugin(
                backend="inductor", mode=None if mode == "default" else mode, dynamic=False
            ),
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
            log_with=trackers or None,
            project_config=ProjectConfiguration(
                project_dir=str(config.out), logging_dir=str(Path(config.out) / "logs")
            ),
        )
    accelerator.wait_for_everyone()
    return accelerator


def close_accelerator(accelerator: Accelerator) -> None:
    """End an accelerator's trackers, and let go of what it has prepared; a process group stays."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.free_memory()


def start_trackers(accelerator: Accelerator, config: TrainConfig, step: int) -> None:
    """Begin a run, or what follows a step of it, in all trackers, under the name of its folder."""
    values = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in config.recorded().items()
    }
    accelerator.init_trackers(
        "qkernel",
        config=values,
        init_kwargs={
            "wandb": {"dir": str(config.out), "name": str(config.out)},
            # What a killed run has logged after its checkpoint comes again.
            "tensorboard": {"purge_step": step + 1 if step else None},
        },
    )


def log_pictures(accelerator: Accelerator, pictures: Mapping[str, NDArray[np.uint8]], step: int) -> None:
    """Hand pictures, H x W each, to the trackers that take some."""
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            # In colour and with their axes named: what every tracker takes.
            extra = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            named = {name: np.repeat(one[None, :, :, None], 3, axis=3) for name, one in pictures.items()}
            tracker.log_images(named, step=step, **extra)


def device_of_process(name: str) -> torch.device:
    """The device that a name means: of several processes each has its own GPU.

    Raises:
        UserError: if it is not there.
    """
    if processes() == 1:
        return choose_device(name)
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"with several processes each takes its own GPU; give --device auto or cpu, not {name}"
        )
    if name != "cpu" and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} has no GPU: {torch.cuda.device_count()} are here; start fewer with torchrun"
            )
        return torch.device("cuda", local)
    if name == "cuda":
        raise UserError("device 'cuda' is not there; give cpu or auto")
    return torch.device("cpu")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Accelerate's warning, in each process, that it has set the number of threads itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        yield


@contextmanager
def _placed(device: torch.device | None) -> Iterator[None]:
    """Tell Accelerate the device, which it takes from the environment alone."""
    key = "ACCELERATE_TORCH_DEVICE"
    before = os.environ.get(key)
    if device is not None:
        os.environ[key] = str(device)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = before
