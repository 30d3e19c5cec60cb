"""What the photo tool is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.errors import UserError

__all__ = ["DeblurConfig"]

# Where nobody knows which crops a network was trained on: large, for speed.
TILE, OVERLAP = 768, 64


@dataclass(kw_only=True)
class DeblurConfig:
    """Restore the luma of photographs and keep their chroma, transparency, metadata and colour profile."""

    photographs: list[Path] = field(default_factory=list)
    """Pictures, or folders of them, in which earlier results are no originals."""
    blur: Literal["focus", "box"] | None = None
    """Which of the weights that come with this program: focus, for photographs out of focus, or box, for the
    paper's blur by a box of 5 x 5 pixels; without it, focus."""
    weights: Path | None = None
    """Weights to restore with: as `train`, `finetune` and `demo` write them (.safetensors), or as the authors
    of XY-Deblur, Restormer and IFAN publish them (.pkl, .pth, .pytorch). Without it, those of --blur."""
    sharpness: float | None = None
    """The dial of the weights that come with this program, from 0 (trained with MAE) to 1 (fine-tuned from
    there with MAE - w Q); without it, as sharp as it goes at no lower PSNR on photographs kept from
    training."""
    reduce: int = 1
    """Make pictures this many times smaller first, by means of squares of pixels: for photographs that are
    further out of focus than the weights are for. The results stay that small."""
    out: Path | None = None
    """Folder for the results, with the subfolders of the originals' one; without it each one lies beside its
    original."""
    suffix: str = "_deblurred"
    """What is added to the name of a picture."""
    overwrite: bool = False
    """Replace results of earlier runs; without it pictures of a folder that have one are left out. Originals
    are never replaced."""
    tile: int | None = None
    """Side of the tiles in pixels, a multiple of 16. Without it, half of that of the crops that the network
    was trained on, where its card says so and they have 64 pixels or more, else 768."""
    overlap: int | None = None
    """Pixels that a tile sees of its neighbours on each side, a multiple of 16. Without it, so many that the
    network sees squares of its crops' size: larger ones it may never have learned to restore. Else 64."""
    quality: int = 95
    """Quality of JPEG and WebP results, 1 to 100; a WebP without loss stays one."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def tiling(self, crop: int) -> tuple[int, int]:
        """Tile and overlap for a network that was trained on crops of this side; 0 where nobody knows."""
        tile, overlap = TILE, OVERLAP
        if crop >= 64:
            tile = crop // 32 * 16
            overlap = (crop - tile) // 32 * 16
        return self.tile or tile, overlap if self.overlap is None else self.overlap

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
        for name in ("sharpness", "blur"):
            if getattr(self, name) is not None and self.weights is not None:
                raise UserError(
                    f"--{name} {getattr(self, name)} is for the weights that come with this program, "
                    f"not for --weights {self.weights}; leave one of the two away"
                )
        if self.reduce < 1:
            raise UserError(f"--reduce must be at least 1, which leaves the size as it is, got {self.reduce}")
        if self.tile is not None and (self.tile < 16 or self.tile % 16):
            raise UserError(f"--tile must be a positive multiple of 16, got {self.tile}")
        if self.overlap is not None and (self.overlap < 0 or self.overlap % 16):
            raise UserError(f"--overlap must be 0 or a multiple of 16, got {self.overlap}")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality must be from 1 to 100, got {self.quality}")
        if Path(f"x{self.suffix}").name != f"x{self.suffix}":
            raise UserError(
                f"--suffix must be part of a file's name, got {self.suffix!r}; give a folder as --out"
            )
        if self.out is None and not self.suffix:
            raise UserError("an empty --suffix would replace the originals; give --out FOLDER with it")
