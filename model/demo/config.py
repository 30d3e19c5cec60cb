"""What the demonstration is told; the defaults are for two cores and little patience."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.errors import UserError

__all__ = ["DemoConfig"]


@dataclass(kw_only=True)
class DemoConfig:
    """Fine-tune with MAE - w Q what was trained with MAE, and compare the two on photographs held out."""

    out: Path = Path("runs/demo")
    """Folder for the run, the table and the picture."""
    weights: Path | None = None
    """Weights to start from (.safetensors), of a network that takes away a 5 x 5 box blur; without it, those
    that come with this program, trained with MAE."""
    steps: int = 500
    """Steps of the fine-tuning."""
    batch: int = 4
    """Crops in a step; few, so that a short run has many steps."""
    crop: int = 64
    """Side of the crops in pixels."""
    lr: float = 1e-4
    """Highest learning rate."""
    warmup: int = 20
    """Steps in which the rate rises to --lr."""
    ema: float = 0.99
    """Decay of the moving average of the weights; that of so short a run must not reach far back."""
    q_weight: float = 0.02
    """w, the weight of the sharpness metric Q; 0 goes on with MAE alone, the control."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "zhu2010"
    """Definition of Q in the loss; the table always shows pythonq, as the paper's."""
    q_eps: float = 0.004
    """Smoothing of Q near straight edges, a gradient per pixel; 0 is the published metric."""
    q_offset: Literal["zero", "random"] = "random"
    """Where Q's grid of 8 x 8 patches starts: always in the corner, or drawn anew at every step."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz for the LPIPS column, where torchvision has not cached its AlexNet."""
    seed: int = 0
    """Seed of the crops."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    @property
    def run_folder(self) -> Path:
        """Where the fine-tuning writes."""
        return self.out / "mae_q"

    def check(self) -> None:
        """Refuse values that cannot work; those of the fine-tuning are checked by its own configuration.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if self.steps < 1:
            raise UserError(f"--steps must be positive, got {self.steps}")
        if self.weights is not None and self.weights.resolve().is_relative_to(self.run_folder.resolve()):
            raise UserError(
                f"--weights {self.weights} would be replaced by this run; give another --out than {self.out}"
            )
        if self.lpips_weights is not None and not self.lpips_weights.is_dir():
            raise UserError(f"--lpips_weights {self.lpips_weights} is not a folder")
