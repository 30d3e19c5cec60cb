"""Accelerate, set up: device, precision, processes, compilation and trackers of a run."""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, TorchDynamoPlugin

from model.device import choose_device
from model.errors import UserError
from model.training.config import TrainConfig

__all__ = ["choose_compile", "choose_precision", "close_accelerator", "open_accelerator", "processes"]

_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def processes() -> int:
    """How many processes torchrun has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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


def choose_compile(wanted: str, device: torch.device, world: int) -> str:
    """torch.compile's mode, or "none".

    With several processes gradients are exchanged between the kernels of a step, which a CUDA graph of the
    whole cannot hold.
    """
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "none"
    return "reduce-overhead" if world == 1 else "default"


def open_accelerator(config: TrainConfig) -> Accelerator:
    """Make the accelerator of a run; processes that torchrun has started find each other here.

    Raises:
        UserError: if the device is not there, cannot compute in the precision, or a tracker is not installed.
    """
    trackers = [name for name in config.trackers if name != "none"]
    installed = {getattr(one, "value", str(one)) for one in get_available_trackers()} if trackers else set()
    for name in trackers:
        if name not in installed:
            raise UserError(
                f"tracker {name!r} is unknown or not installed: pip install {name}, or --trackers none"
            )
    world = processes()
    device = choose_device(config.device) if world == 1 else _device_of_rank(config.device)
    mode = choose_compile(config.compile, device, world)
    if world == 1:
        # An earlier run of this program may have had another device or precision.
        AcceleratorState._reset_state(reset_partial_state=True)
    else:
        # Its functions keep for good the process group that there is when they are first imported, which
        # DistributedDataParallel does; see close_accelerator.
        importlib.import_module("torch.distributed.nn.functional")
    with _placed(device if world == 1 else None), warnings.catch_warnings():
        # Accelerate warns that it has set the number of threads itself, in each process.
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=_MIXED[choose_precision(config.precision, device)],
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


def close_accelerator(accelerator: Accelerator) -> None:
    """End what an accelerator has opened: trackers, and the process group with its threads.

    Those threads end when nothing holds the group any more; destroying it only lets go of it. One that is
    still about to release a tensor when Python has begun to leave is ended by force, and with it the process:
    "terminate called without an active exception". So the caller must have let go of prepared networks.
    """
    accelerator.end_training()
    # Collects cycles too: a wrapped network is in some.
    accelerator.free_memory()


def _device_of_rank(name: str) -> torch.device:
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
