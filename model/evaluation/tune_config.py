"""What tuning is told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.errors import UserError
from model.evaluation.config import EvaluateConfig
from model.evaluation.protocol import Protocol

__all__ = ["TuneConfig"]


@dataclass(kw_only=True)
class TuneConfig:
    """Choose a parameter by maximising the sharpness metric Q, without knowing the sharp pictures."""

    photographs: list[Path] = field(default_factory=list)
    """Folders of pictures, single files, or names of data sets, as for evaluate."""
    method: str = ""
    """The method, NAME[:PARAMETERS], of which one parameter is chosen, e.g. nlm:sigma=20."""
    parameter: str = ""
    """The parameter's name, e.g. strength, sigma, size or iterations."""
    values: list[str] = field(default_factory=list)
    """Its candidates."""
    methods: list[str] = field(default_factory=list)
    """Whole methods as candidates, [LABEL=]NAME[:PARAMETERS], e.g. w=0.01=unet:FILE; instead of the three
    above."""
    protocol: str = ""
    """Without one, pictures are taken as they are, noisy or blurred, and nothing else is known. With one,
    they are sharp and degraded by it, and the choice of PSNR stands beside that of Q."""
    data: Path | None = None
    """Folder that holds the data sets; without it, the one that QKERNEL_DATA names."""
    crop: int | None = None
    """Side of the central crop; 0 takes whole pictures; without it, the protocol's, or whole pictures."""
    blur: str | None = None
    """box:SIDE, disc:RADIUS, gaussian:SIGMA or none. Without a protocol: what methods are told of."""
    noise: float | None = None
    """Variance of the Gaussian noise that is added, white being 1; only with a protocol."""
    limit: int = 0
    """Take the first pictures only; 0 takes all."""
    definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "zhu2010"
    """Definition of Q; the publication of this procedure has zhu2010."""
    out: Path = Path("runs/tune")
    """Folder for tune.md, tune.csv and tune.png."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        example = (
            "python -m model tune FOLDER --method nlm:sigma=20 --parameter strength --values 0.4 0.8 1.2"
        )
        if not self.photographs and not self.protocol:
            raise UserError(f"no photographs given; for example: {example}")
        if self.methods and (self.method or self.parameter or self.values):
            raise UserError("give either --methods, or --method with --parameter and --values")
        if not self.methods and not (self.method and self.parameter and self.values):
            raise UserError(f"--method, --parameter and --values belong together; for example: {example}")
        if len(self.methods or self.values) < 2:
            raise UserError("there is nothing to choose from: give at least two --values or --methods")
        if self.noise is not None and not self.protocol:
            raise UserError("--noise is added to sharp pictures: name a --protocol, e.g. central")
        self.settings().check()

    def candidates(self) -> list[str]:
        """The methods to choose from, each with the label that it is shown by."""
        if self.methods:
            return self.methods
        joint = "," if ":" in self.method else ":"
        # Twice, so that the label is the value alone in the table and the drawing.
        return [
            f"{self.parameter}={value}={self.method}{joint}{self.parameter}={value}" for value in self.values
        ]

    def settings(self) -> EvaluateConfig:
        """The evaluation that candidates are compared by."""
        return EvaluateConfig(
            photographs=self.photographs,
            data=self.data,
            protocol=self.protocol or "full",
            crop=self.crop,
            blur=self.blur if self.protocol else "none",
            noise=self.noise,
            limit=self.limit,
            methods=self.candidates(),
            q_definition=self.definition,
            lpips=False,
            out=self.out,
            device=self.device,
        )

    def operator(self) -> Protocol:
        """The protocol whose blur methods are told of."""
        if self.protocol:
            return self.settings().settled()
        return Protocol("as they are", crop=0, blur=self.blur or "none")
