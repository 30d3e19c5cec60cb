"""What a run says of itself: when it begins, when it ends, and while it goes."""

import shlex
from typing import TYPE_CHECKING

import torch

from model.device import device_name
from model.networks import parameter_count
from model.processes import processes
from model.training.config import TrainConfig
from model.training.losses import describe_loss
from model.weights import Card

if TYPE_CHECKING:
    from model.training.trainer import Outcome, Trainer

__all__ = ["card", "closing_lines", "opening_line", "resuming", "shown"]


def opening_line(trainer: "Trainer", title: str) -> str:
    """Network, device, data and length in one line."""
    config = trainer.config
    where = (
        str(trainer.device) if trainer.world == 1 else f"{trainer.world} processes on {trainer.device.type}"
    )
    held_out = len(trainer.validation.names) if trainer.validation else 0
    return (
        f"{title}: {config.network} with {_parameters(trainer)} on {where}, "
        f"{trainer.accelerator.mixed_precision.replace('no', 'float32')}; {trainer.photographs} photographs"
        + (f" and {held_out} for validation" if held_out else "")
        + f", {'pairs' if trainer.inputs.batches.plan.images.paired else config.degradation.describe()}; "
        f"{trainer.steps} steps of {config.batch * trainer.world} crops of {config.crop} x {config.crop}"
        + (f", from step {trainer.step}" if trainer.step else "")
    )


def _parameters(trainer: "Trainer") -> str:
    every = sum(one.numel() for one in trainer.network.parameters())
    trained = parameter_count(trainer.network)
    return f"{every:,} parameters" + (f", {trained:,} of them trained," if trained < every else "")


def closing_lines(trainer: "Trainer", outcome: "Outcome", signal_name: str | None) -> list[str]:
    """How the run ended, where its weights are, and how an interrupted one goes on."""
    crops = trainer.step * trainer.config.batch * trainer.world
    speed = f"{crops / outcome.seconds:.1f} crops/s" if outcome.seconds else "no steps"
    if outcome.finished:
        return [
            f"finished {trainer.step} steps in {outcome.seconds:.0f} s ({speed}); weights: {outcome.weights}"
        ]
    return [
        f"stopped by {signal_name or 'another process'} after step {trainer.step} of {trainer.steps}; "
        f"saved {outcome.weights} and {trainer.checkpoints.last}",
        f"go on with: {resuming(trainer.config)}",
    ]


def card(trainer: "Trainer", metrics: dict[str, float]) -> Card:
    """What the weights of a run say of themselves."""
    config = trainer.config
    return Card(
        network=config.network,
        network_args=config.network_args,
        stage=config.stage,
        loss=describe_loss(config),
        metrics=metrics,
        training={
            "steps": trainer.step,
            "crops": trainer.step * config.batch * trainer.world,
            "seconds": round(trainer.progress.seconds, 1),
            "processes": trainer.world,
            "device": device_name(trainer.device),
            "torch": torch.__version__,
            # Then the configuration's blur is nobody's.
            **({"pairs": True} if trainer.inputs.batches.plan.images.paired else {}),
            "config": config.recorded(),
        },
    )


def resuming(config: TrainConfig) -> str:
    """The command that goes on with an interrupted run or sweep."""
    start = f"torchrun --nproc_per_node {processes()} -m" if processes() > 1 else "python -m"
    return f"{start} model {config.stage} --resume --out {shlex.quote(str(config.out))}"


def shown(terms: dict[str, float]) -> str:
    """The terms in words; MAE alone is its own pixel term and need not be said twice."""
    kept = {name: value for name, value in terms.items() if name != "grad_norm"}
    kept = kept if len(kept) != 2 else {"loss": kept["loss"]}
    return "  ".join(f"{name} {value:.4f}" for name, value in kept.items())
