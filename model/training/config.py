"""What a training run is told, and the checks of it."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from model.errors import UserError

__all__ = ["FinetuneConfig", "TrainConfig"]


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise UserError(f"--{name} must be positive, got {getattr(config, name)}")


@dataclass(kw_only=True)
class TrainConfig:
    """Train a network from fresh weights with the mean absolute error.

    Batch and crop are the paper's; optimiser, rates and schedule are not published and chosen here: AdamW, a
    short warm-up and a cosine to nothing.
    """

    photographs: list[Path] = field(default_factory=list)
    """Folders of photographs, or single files, to train on."""
    out: Path = Path("runs/train")
    """Folder for config, log and weights."""
    resume: bool = False
    """Go on with the interrupted run in --out, with the configuration saved there."""
    overwrite: bool = False
    """Replace an earlier run in --out."""
    network: str = "unet"
    """Name of the network."""
    network_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network's constructor."""
    steps: int = 10_000
    """Optimiser steps of the whole run."""
    batch: int = 32
    """Crops in a step."""
    crop: int = 128
    """Side of the square crops in pixels."""
    augment: bool = False
    """Turn and mirror the crops at random; the paper does not."""
    box: int = 5
    """Side of the box blur in pixels, odd."""
    lr: float = 1e-3
    """Highest learning rate."""
    warmup: int = 100
    """Steps in which the rate rises to --lr."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    clip_norm: float = 1.0
    """Longest gradient (norm over all parameters); 0 does not limit it."""
    seed: int = 0
    """Seed of the fresh weights and of the crops."""
    log_every: int = 50
    """Steps between lines of the log."""
    save_every: int = 1000
    """Steps between checkpoints; 0 saves at the end and on interruption only."""
    statistics_batches: int = 20
    """Batches that batch-norm statistics are measured on before weights are written; 0: the running ones."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the convolutions under autocast; weights and loss stay float32."""

    @property
    def stage(self) -> str:
        """The name of the stage, kept in the weights' metadata."""
        return "train"

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if not self.photographs:
            raise UserError("no photographs given; name a folder: --photographs FOLDER")
        _positive(self, "steps", "batch", "crop", "box", "lr", "log_every")
        for name in ("warmup", "weight_decay", "clip_norm", "seed", "save_every", "statistics_batches"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, got {getattr(self, name)}")
        if self.box % 2 == 0:
            raise UserError(f"--box must be odd, got {self.box}")
        if self.crop < 16:
            raise UserError(f"--crop must be at least 16 pixels, got {self.crop}")
        if self.crop <= self.box // 2:
            raise UserError(f"--crop {self.crop} is too small for --box {self.box}")
        # Batch normalisation cannot be trained on the one value per channel that the bridge would see.
        if self.batch == 1 and self.crop <= 16:
            raise UserError(f"--batch 1 needs --crop above 16, got {self.crop}")

    def recorded(self) -> dict[str, Any]:
        """The configuration as plain values, ready for YAML or JSON."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}


@dataclass(kw_only=True)
class FinetuneConfig(TrainConfig):
    """Fine-tune given weights with MAE - w Q, equation 7 of the paper.

    w and the definition of Q are those of the paper's released code; the rate is chosen: a fifth of that of
    `train`.
    """

    weights: Path | None = None
    """Weights to start from (.safetensors), as `train` writes them; they say which network it is."""
    out: Path = Path("runs/finetune")
    """Folder for config, log and weights."""
    q_weight: float = 0.01
    """w, the weight of the sharpness metric Q; 0 continues with MAE alone, the control to compare with."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "mmsp2024"
    """Which published definition of Q; the weight does not carry over between them."""
    q_eps: float = 0.0
    """Smoothing of Q near straight edges, a gradient per pixel; 0 is the published metric."""
    q_offset: Literal["zero", "random"] = "zero"
    """Where Q's grid of 8 x 8 patches starts: always in the corner, or drawn anew at every step."""
    lr: float = 2e-4
    """Highest learning rate."""

    @property
    def stage(self) -> str:
        """The name of the stage, kept in the weights' metadata."""
        return "finetune"

    def check(self) -> None:
        """Refuse values that cannot work; see `TrainConfig.check`."""
        super().check()
        if self.weights is None:
            raise UserError("no weights to start from; give --weights FILE.safetensors, as `train` writes it")
        for name in ("q_weight", "q_eps"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, got {getattr(self, name)}")
        if self.crop < 16:
            raise UserError(
                f"--crop must hold two 8 x 8 patches of Q a side, at least 16 pixels, got {self.crop}"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
