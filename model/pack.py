"""`python -m model pack`: weights to give away, half the size and without paths of their machine."""

import platform
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch

from model.errors import UserError
from model.progress import say
from model.weights import load_weights, replace_file, serialised

__all__ = ["PackConfig", "run"]

#: What of a configuration tells where things lay.
_PLACES = ("photographs", "validation", "weights", "out", "then", "lpips_weights")


@dataclass(kw_only=True)
class PackConfig:
    """Write weights as float16, with a card that says what they were made from."""

    weights: Path | None = None
    """Weights of a run (.safetensors)."""
    out: Path | None = None
    """File to write (.safetensors)."""
    data: str = ""
    """What they were trained on and under which licences, in words; it goes into the card."""
    overwrite: bool = False
    """Replace --out."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option and what would do.
        """
        if self.weights is None or self.out is None:
            raise UserError("give --weights runs/train/weights.safetensors --out weights/NAME.safetensors")
        if self.out.suffix != ".safetensors":
            raise UserError(f"--out must end in .safetensors, got {self.out}")
        if self.out.exists() and not self.overwrite:
            raise UserError(f"{self.out} is already there; --overwrite replaces it")


def run(config: PackConfig) -> None:
    """Pack one file.

    Raises:
        UserError: if the weights cannot be read, do not fit into float16, or the result cannot be written.
    """
    config.check()
    assert config.weights is not None and config.out is not None  # check() has refused that
    tensors, card = load_weights(config.weights)
    packed = {}
    for name, tensor in tensors.items():
        half = tensor.to(torch.float16) if tensor.dtype == torch.float32 else tensor
        if not half.isfinite().all():
            raise UserError(f"{config.weights}: {name} does not fit into float16 ({tensor.abs().max():g})")
        packed[name] = half
    made: dict[str, Any] = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    if config.data:
        made["data"] = config.data
    card.training = {**card.training, **made, "config": _without_places(card.training.get("config", {}))}
    replace_file(config.out, serialised(packed, card))
    say(f"{config.out}: {config.out.stat().st_size / 1e6:.2f} MB; python -m model info {config.out}")


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(one) for one in value]
        return PurePath(value).name if isinstance(value, str) else value

    return {name: named(value) if name in _PLACES else value for name, value in config.items()}
