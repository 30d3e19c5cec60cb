"""`python -m model pack`: weights to give away, half the size and without paths of their machine."""

import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import torch

from model.card_metrics import SCIKIT_IMAGE, card_metrics
from model.errors import UserError
from model.evaluation.protocol import find_protocol
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
    machine: str = ""
    """What they were trained on, in words, where the card says less."""
    measure: list[str] = field(default_factory=list)
    """Protocols that the packed weights are measured by for their card, such as paper-kodak,paper-bsds, and
    scikit-image for the central crops of its photographs, which everybody has."""
    sets: Path | None = None
    """Folder of the data sets that --measure needs; without it, the one that QKERNEL_DATA names."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz for LPIPS, where torchvision has not cached its AlexNet."""
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
        for name in self.measure:
            if name != SCIKIT_IMAGE and not find_protocol(name).data:
                raise UserError(f"--measure {name}: that protocol has no photographs of its own")


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
    made: dict[str, Any] = {}
    if commit := _commit():
        made["packed_at"] = commit
    if config.machine:
        made["device"] = config.machine
    if config.data:
        made["data"] = config.data
    card.training = {**card.training, **made, "config": _without_places(card.training.get("config", {}))}
    if config.measure:
        with tempfile.TemporaryDirectory() as folder:
            # What is measured is what is given away, rounding included.
            whole = Path(folder) / config.out.name
            replace_file(whole, serialised(packed, card))
            measured = card_metrics(whole, config.measure, config.sets, config.lpips_weights)
        card.metrics = {**card.metrics, **measured}
    replace_file(config.out, serialised(packed, card))
    say(f"{config.out}: {config.out.stat().st_size / 1e6:.2f} MB; python -m model info {config.out}")


def _commit() -> str:
    """The commit of this checkout; empty where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(one) for one in value]
        return PurePath(value).name if isinstance(value, str) else value

    return {name: named(value) if name in _PLACES else value for name, value in config.items()}
