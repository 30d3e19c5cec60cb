"""What an evaluation is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.errors import UserError

__all__ = ["EvaluateConfig"]


@dataclass(kw_only=True)
class EvaluateConfig:
    """Measure weights on photographs by the paper's protocol."""

    photographs: list[Path] = field(default_factory=list)
    """Folders of sharp photographs, or single files."""
    weights: list[Path] = field(default_factory=list)
    """Weights to compare (.safetensors); the blurred picture itself is always the first row."""
    blurred: Path | None = None
    """Folder of really blurred pictures, named as the sharp ones; without it the sharp ones are blurred."""
    crop: int = 128
    """Side of the central crop in pixels; 0 takes whole photographs."""
    box: int = 5
    """Side of the box blur in pixels, odd."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "pythonq"
    """Definition of Q in the table; the paper's tables use pythonq."""
    lpips: bool = True
    """Measure LPIPS (AlexNet) where its weights are on this machine."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz, where torchvision has not cached its AlexNet."""
    out: Path = Path("runs/evaluate")
    """Folder for results.csv, per_image.csv and table.md."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if not self.photographs:
            raise UserError(
                "no photographs given; name a folder: python -m model evaluate FOLDER --weights FILE"
            )
        if self.crop < 0 or 0 < self.crop < 11:
            raise UserError(f"--crop must be 0 or at least 11 pixels (the window of SSIM), got {self.crop}")
        if self.box < 1 or self.box % 2 == 0:
            raise UserError(f"--box must be odd and positive, got {self.box}")
        if self.lpips_weights is not None and not self.lpips_weights.is_dir():
            raise UserError(f"--lpips_weights {self.lpips_weights} is not a folder")
