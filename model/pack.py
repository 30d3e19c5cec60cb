"""`python -m model pack`: weights to give away, half the size or less, without paths of their machine."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import torch
from torch import Tensor

from model import eight_bits
from model.card_metrics import card_metrics, protocol_of
from model.errors import UserError
from model.evaluation.protocol import find_protocol
from model.progress import say
from model.weights import load_weights, replace_file, serialised, sha256

__all__ = ["PackConfig", "run"]

#: What of a configuration tells where things lay.
_PLACES = ("photographs", "validation", "weights", "out", "then", "lpips_weights")


@dataclass(kw_only=True)
class PackConfig:
    """Write weights in 16 or 8 bits, with a card that says what they were made from."""

    weights: Path | None = None
    """Weights of a run (.safetensors)."""
    out: Path | None = None
    """File to write (.safetensors)."""
    bits: Literal[16, 8] = 16
    """Of a weight: float16, or whole numbers with a scale for each row of a tensor (an output channel of a
    convolution, an input channel of a transposed one) but in small tensors; --measure shows the price."""
    base: Path | None = None
    """Weights that these were fine-tuned from with `--only`: only what differs is written, and FILE must lie
    beside --out."""
    data: str = ""
    """What they were trained on and under which licences, in words; it goes into the card."""
    machine: str = ""
    """What they were trained on, in words, where the card says less."""
    measure: list[str] = field(default_factory=list)
    """Protocols that the packed weights are measured by for their card, such as paper-kodak,paper-bsds, and
    scikit-image for the central crops of its photographs, which everybody has (focus@scikit-image: by
    another protocol)."""
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
        if self.base is not None and self.base.parent.resolve() != self.out.parent.resolve():
            raise UserError(f"--base {self.base} must lie in the folder of --out {self.out}")
        if self.base is not None and self.base.resolve() == self.out.resolve():
            raise UserError(f"--out {self.out} would replace --base, which it needs")
        for name in self.measure:
            protocol, everywhere = protocol_of(name)
            if not find_protocol(protocol).data and not everywhere:
                raise UserError(f"--measure {name}: that protocol has no photographs of its own")


def run(config: PackConfig) -> None:
    """Pack one file.

    Raises:
        UserError: if the weights cannot be read, do not fit into float16, or the result cannot be written.
    """
    config.check()
    assert config.weights is not None and config.out is not None  # check() has refused that
    tensors, card = load_weights(config.weights)
    # All of them, wherever they were kept.
    card.base = {}
    if config.base is not None:
        tensors, card.base = _beyond(config.base, config.weights, tensors)
    packed = {
        name: one if config.bits == 8 and eight_bits.worth(one) else _half(config.weights, name, one)
        for name, one in tensors.items()
    }
    if config.bits == 8:
        packed = eight_bits.rounded(packed)
    made: dict[str, Any] = {"bits": config.bits}
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
            if config.base is not None:
                shutil.copy(config.base, folder)
            measured = card_metrics(whole, config.measure, config.sets, config.lpips_weights)
        card.metrics = {**card.metrics, **measured}
    replace_file(config.out, serialised(packed, card))
    say(f"{config.out}: {config.out.stat().st_size / 1e6:.2f} MB; python -m model info {config.out}")


def _beyond(
    base: Path, weights: Path, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What differs from the base, and how the card names that."""
    there, card = load_weights(base)
    if card.base:
        raise UserError(f"--base {base} holds only what differs from {card.base['file']}; give that one")
    if {name: one.shape for name, one in there.items()} != {name: one.shape for name, one in tensors.items()}:
        raise UserError(f"{weights} is of another network than --base {base}")
    differing = {
        name: one for name, one in tensors.items() if not torch.equal(one, there[name].to(one.dtype))
    }
    if len(differing) == len(tensors):
        raise UserError(f"nothing in {weights} is as in --base {base}: leave it away")
    return differing, {"file": base.name, "sha256": sha256(base)}


def _half(weights: Path, name: str, tensor: Tensor) -> Tensor:
    half = tensor.to(torch.float16) if tensor.dtype == torch.float32 else tensor
    if not half.isfinite().all():
        raise UserError(f"{weights}: {name} does not fit into float16 ({tensor.abs().max():g})")
    return half


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
