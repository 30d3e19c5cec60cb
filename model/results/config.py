"""What the results page is made from."""

from dataclasses import dataclass
from pathlib import Path

from model.errors import UserError

__all__ = ["ResultsConfig"]


@dataclass(kw_only=True)
class ResultsConfig:
    """Measure the weights that come with this program on Kodak and BSDS500, and write the results page."""

    data: Path | None = None
    """Folder with kodak and bsds500; without it, the one that QKERNEL_DATA names."""
    sweep: Path | None = None
    """Folder of a sweep over w from the shipped MAE weights (`finetune --q_weights`); w = 0 in it is the
    control. Without it the page has no curve over w and nothing to compare Q with."""
    study: Path | None = None
    """Folder of fine-tuning runs, each in a folder of its own, that the loss was chosen among."""
    dial: int = 9
    """Points of the curve between the two."""
    limit: int = 0
    """Take the first photographs of each set only; 0 takes all."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz, where torchvision has not cached its AlexNet."""
    out: Path | None = None
    """The page; its pictures and numbers lie in a folder of the same name beside it. By default
    docs/results.md, but runs/results/results.md if --sweep, --study or some photographs are left out."""
    run: Path = Path("runs/results")
    """Folder for results that are kept, so that an interrupted run goes on."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.sweep is not None and self.study is not None and not self.limit

    @property
    def page(self) -> Path:
        """Where the page goes."""
        return self.out or (Path("docs/results.md") if self.whole else self.run / "results.md")

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if self.dial < 2:
            raise UserError(f"--dial must be at least 2, the two ends, got {self.dial}")
        if self.limit < 0:
            raise UserError(f"--limit must not be negative, got {self.limit}")
        if self.page.suffix != ".md":
            raise UserError(f"--out must end in .md, got {self.out}")
        for name in ("sweep", "study"):
            folder = getattr(self, name)
            if folder is not None and not folder.is_dir():
                raise UserError(f"--{name} {folder} is not a folder")
