"""What the demonstration is told; the defaults are what its few minutes on two cores allow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.errors import UserError

__all__ = ["DemoConfig"]


@dataclass(kw_only=True)
class DemoConfig:
    """Train with MAE, fine-tune with MAE - w Q, and compare on photographs held out from both."""

    out: Path = Path("runs/demo")
    """Folder for both runs, the table and the picture."""
    steps: int = 1000
    """Steps of the first stage, MAE."""
    finetune_steps: int = 250
    """Steps of the second stage, MAE - w Q."""
    batch: int = 4
    """Crops in a step; few, so that a short run has many steps."""
    crop: int = 64
    """Side of the crops in pixels."""
    lr: float = 2.5e-3
    """Highest learning rate of the first stage."""
    finetune_lr: float = 8e-4
    """Highest learning rate of the second stage."""
    q_weight: float = 0.02
    """w, the weight of the sharpness metric Q."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "mmsp2024"
    """Definition of Q in the loss; the table always shows pythonq, as the paper's."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz for the LPIPS column, where torchvision has not cached its AlexNet."""
    network_args: dict[str, Any] = field(default_factory=lambda: {"output_gain": 0.0})
    """Arguments of the U-Net; starting at "restored = blurred" saves a short run the way there."""
    seed: int = 0
    """Seed of the fresh weights and of the crops."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse values that cannot work; those of the two stages are checked by their own configurations.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        for name in ("steps", "finetune_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be positive, got {getattr(self, name)}")
        if self.lpips_weights is not None and not self.lpips_weights.is_dir():
            raise UserError(f"--lpips_weights {self.lpips_weights} is not a folder")
