"""The losses, with one face: (restored, sharp) -> (loss, detached terms)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.training.config import FinetuneConfig, TrainConfig
from model.training.formula import PIXEL_TERMS, Term, parse_loss, written
from model.training.terms import CHARBONNIER_EPS, build_term
from qkernel import MAEQLoss

__all__ = ["Loss", "TermSum", "build_loss", "describe_loss"]

Loss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def _mean_absolute_error(restored: Tensor, sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    loss = F.l1_loss(restored, sharp)
    return loss, {"pixel": loss.detach()}


class TermSum(nn.Module):
    """Weighted terms, summed; q is subtracted. Q and one pixel term are computed in one pass.

    Args:
        terms: the formula.
        config: settings of the terms.

    Returns of a call: the loss, and each term by its name: detached, without its weight and sign, in the
    order of the formula. `ssim` is 1 - SSIM.

    Raises:
        UserError: as `build_term`.
    """

    def __init__(self, terms: Sequence[Term], config: TrainConfig) -> None:
        super().__init__()
        self.terms = tuple(terms)
        weights = {term.name: term.weight for term in terms}
        # The kernel has a weight for Q alone: the pixel term's is put before the whole.
        pixel = next((name for name in PIXEL_TERMS if weights.get(name)), None) if "q" in weights else None
        self.pixel = pixel
        self.fused = None if pixel is None else _fused(config, weights["q"] / weights[pixel], pixel)
        self.others = nn.ModuleDict(
            {term.name: build_term(term.name, config) for term in terms if not self._is_fused(term.name)}
        )

    def _is_fused(self, name: str) -> bool:
        return self.pixel is not None and name in ("q", self.pixel)

    def forward(self, restored: Tensor, sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        values: dict[str, Tensor] = {}
        parts: list[Tensor] = []
        weights = {term.name: term.weight for term in self.terms}
        if self.fused is not None and self.pixel is not None:
            both, seen = self.fused(restored, sharp)
            parts.append(weights[self.pixel] * both)
            values |= {self.pixel: seen["pixel"], "q": seen["q"]}
        for name, term in self.others.items():
            value = term(restored, sharp)
            parts.append((-weights[name] if name == "q" else weights[name]) * value)
            values[name] = value.detach()
        return sum(parts[1:], parts[0]), {term.name: values[term.name] for term in self.terms}


def _fused(config: TrainConfig, weight: float, pixel: str = "l1") -> MAEQLoss:
    return MAEQLoss(
        weight=weight,
        pixel=pixel,
        charbonnier_eps=CHARBONNIER_EPS,
        definition=config.q_definition,
        offset="random" if config.q_offset == "random" else (0, 0),
        eps=config.q_eps,
        return_terms=True,
    )


def build_loss(config: TrainConfig) -> Loss:
    """The loss of a configuration: its formula; without one MAE, or MAE - w Q when fine-tuning (equation 7).

    Raises:
        UserError: if the formula cannot be read, or LPIPS's weights are not on this machine.
    """
    if config.loss:
        return TermSum(parse_loss(config.loss), config)
    if isinstance(config, FinetuneConfig):
        return _fused(config, config.weight_of_q)
    return _mean_absolute_error


def describe_loss(config: TrainConfig) -> dict[str, Any]:
    """The loss as it is recorded beside the weights."""
    q = {"definition": config.q_definition, "eps": config.q_eps, "offset": config.q_offset}
    if config.loss:
        terms = parse_loss(config.loss)
        described: dict[str, Any] = {"name": written(terms)}
        return described | (q if any(term.name == "q" for term in terms) else {})
    if isinstance(config, FinetuneConfig):
        return {"name": "mae - w q", "weight": config.weight_of_q, **q}
    return {"name": "mae"}
