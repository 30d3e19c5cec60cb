"""The losses of the two stages, with one face: (restored, sharp) -> (loss, detached terms)."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from model.training.config import FinetuneConfig, TrainConfig
from qkernel import MAEQLoss

__all__ = ["Loss", "build_loss", "describe_loss"]

Loss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def _mean_absolute_error(restored: Tensor, sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    loss = F.l1_loss(restored, sharp)
    return loss, {"pixel": loss.detach()}


def build_loss(config: TrainConfig) -> Loss:
    """The loss of a configuration: MAE, or MAE - w Q when fine-tuning (equation 7 of the paper)."""
    if not isinstance(config, FinetuneConfig):
        return _mean_absolute_error
    return MAEQLoss(
        weight=config.q_weight,
        definition=config.q_definition,
        offset="random" if config.q_offset == "random" else (0, 0),
        eps=config.q_eps,
        return_terms=True,
    )


def describe_loss(config: TrainConfig) -> dict[str, Any]:
    """The loss as it is recorded beside the weights."""
    if not isinstance(config, FinetuneConfig):
        return {"name": "mae"}
    return {
        "name": "mae - w q",
        "weight": config.q_weight,
        "definition": config.q_definition,
        "eps": config.q_eps,
        "offset": config.q_offset,
    }
