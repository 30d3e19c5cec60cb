"""What the photo tool is told."""

from dataclasses import dataclass, field
from pathlib import Path

from model.errors import UserError

__all__ = ["DeblurConfig"]


@dataclass(kw_only=True)
class DeblurConfig:
    """Restore the luma of photographs and keep their chroma, transparency, EXIF and colour profile."""

    photographs: list[Path] = field(default_factory=list)
    """Pictures, or folders of them."""
    weights: Path | None = None
    """Weights to restore with: as `train`, `finetune` and `demo` write them (.safetensors), or as the authors
    of XY-Deblur, Restormer and IFAN publish them (.pkl, .pth, .pytorch). Without it, those that come with
    this program."""
    sharpness: float | None = None
    """The dial of the weights that come with this program, from 0 (trained with MAE) to 1 (fine-tuned from
    there with MAE - w Q); without it, 0.375: on photographs kept from training, as sharp
    as it goes at no lower PSNR."""
    out: Path | None = None
    """Folder for the results; without it each one lies beside its original."""
    suffix: str = "_deblurred"
    """What is added to the name of a picture."""
    overwrite: bool = False
    """Replace results of earlier runs; an original is never replaced."""
    tile: int = 768
    """Side of the tiles in pixels, a multiple of 16; smaller ones need less memory."""
    overlap: int = 64
    """Pixels that a tile sees of its neighbours on each side, a multiple of 16."""
    quality: int = 95
    """Quality of JPEG and WebP results, 1 to 100."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if not self.photographs:
            raise UserError("no photographs given: python -m model deblur PHOTO.jpg")
        # Refuses NaN too.
        if self.sharpness is not None and not 0 <= self.sharpness <= 1:
            raise UserError(f"--sharpness must be from 0 to 1, got {self.sharpness}")
        if self.sharpness is not None and self.weights is not None:
            raise UserError(
                f"--sharpness {self.sharpness} is a dial of the weights that come with this program, "
                f"not of --weights {self.weights}; leave one of the two away"
            )
        if self.tile < 16 or self.tile % 16:
            raise UserError(f"--tile must be a positive multiple of 16, got {self.tile}")
        if self.overlap < 0 or self.overlap % 16:
            raise UserError(f"--overlap must be 0 or a multiple of 16, got {self.overlap}")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality must be from 1 to 100, got {self.quality}")
        if self.out is None and not self.suffix:
            raise UserError("an empty --suffix would replace the originals; give --out FOLDER with it")
