"""What an evaluation is told."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from model.data.kernels import parse_blur
from model.errors import UserError
from model.evaluation.protocol import Protocol, find_protocol
from model.evaluation.published import TABLES

__all__ = ["EvaluateConfig"]


@dataclass(kw_only=True)
class EvaluateConfig:
    """Measure weights and classical methods on photographs, by a protocol that is printed below the table."""

    photographs: list[Path] = field(default_factory=list)
    """Folders of sharp photographs, single files, or names of data sets: kodak, bsds500, div2k, flickr2k,
    dpdd, realdof. Without any, the protocol's own."""
    data: Path | None = None
    """Folder that holds the data sets; without it, the one that QKERNEL_DATA names."""
    protocol: str = "central"
    """central, paper-kodak, paper-bsds, paper-noisy, paper-circular, focus, full, grid or pairs."""
    weights: list[Path] = field(default_factory=list)
    """Weights to compare (.safetensors, or a file of a network's authors); the blurred picture is always
    the first row."""
    methods: list[str] = field(default_factory=list)
    """Other methods, [LABEL=]NAME[:PARAMETERS]: al, mlm:iterations=250, mrl, red-fp, red-sdm, wiener,
    richardson-lucy, a denoiser, NETWORK:FILE, spandrel:FILE, folder:FOLDER,suffix=_x."""
    blurred: Path | None = None
    """Folder of really blurred pictures, named as the sharp ones; without it the sharp ones are blurred."""
    crop: int | None = None
    """Side of the crops in pixels; 0 takes whole photographs; without it, the protocol's."""
    blur: str | None = None
    """box:SIDE, disc:RADIUS, gaussian:SIGMA or none, in pixels; without it, the protocol's."""
    noise: float | None = None
    """Variance of Gaussian noise, white being 1; without it, the protocol's."""
    light: bool | None = None
    """Blur the amounts of light that sRGB's levels stand for, as a lens does; without it, the protocol's."""
    jpeg: int | None = None
    """Quality, 1 to 100, of JPEG compression at last, 0 for none; without it, the protocol's."""
    output: Literal["round", "truncate"] | None = None
    """How results become 8 bits; without it, the protocol's."""
    limit: int = 0
    """Take the first photographs only; 0 takes all."""
    q_definition: Literal["zhu2010", "mmsp2024", "pythonq"] = "pythonq"
    """Definition of Q in the table; the paper's tables use pythonq."""
    lpips: bool = True
    """Measure LPIPS (AlexNet) where its weights are on this machine."""
    lpips_weights: Path | None = None
    """Folder with alexnet_features.npz, where torchvision has not cached its AlexNet."""
    published: Literal["", "I", "II", "III"] = ""
    """Show the figures of this table of the paper beside ours."""
    batch: int = 1
    """Pictures restored at once; their time is shared out evenly."""
    repeats: int = 1
    """Runs that the time is the median of, after one that is not counted."""
    cache: bool = True
    """Keep results below --out, so that an evaluation that was interrupted goes on where it stopped."""
    plots: bool = False
    """Draw scatter.png, crops.png and q_map.png too."""
    report: bool = False
    """Write report.html too: the table, and each picture before and after under a slider."""
    out: Path = Path("runs/evaluate")
    """Folder for table.md, results.csv, per_image.csv, results.json and table.tex."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        protocol = self.settled()
        if not self.photographs and not protocol.data:
            raise UserError(
                "no photographs given; name a folder: python -m model evaluate FOLDER --weights FILE"
            )
        if protocol.crop < 0 or 0 < protocol.crop < 11:
            raise UserError(
                f"--crop must be 0 or at least 11 pixels (the window of SSIM), got {protocol.crop}"
            )
        if protocol.grid and not protocol.crop:
            raise UserError(
                "--crop 0 leaves no crops for --protocol grid; give their side, or --protocol full"
            )
        parse_blur(protocol.blur)
        if not 0 <= protocol.noise < 1:
            raise UserError(f"--noise must be a variance from 0 to below 1, got {protocol.noise}")
        if not 0 <= protocol.jpeg <= 100:
            raise UserError(f"--jpeg must be a quality from 1 to 100, or 0 for none, got {protocol.jpeg}")
        for name in ("noise", "light", "jpeg"):
            if protocol.photographed and getattr(protocol, name):
                raise UserError(f"--{name} is for pictures that are blurred here, not for photographed pairs")
            if name != "noise" and getattr(protocol, name) and not protocol.eight_bits:
                raise UserError(f"--{name} makes 8-bit pictures, --protocol {self.protocol} does not round")
        for name, smallest in (("limit", 0), ("batch", 1), ("repeats", 1)):
            if getattr(self, name) < smallest:
                raise UserError(f"--{name} must be at least {smallest}, got {getattr(self, name)}")
        if self.lpips_weights is not None and not self.lpips_weights.is_dir():
            raise UserError(f"--lpips_weights {self.lpips_weights} is not a folder")
        if self.published and self.published not in TABLES:
            raise UserError(f"--published must be one of {', '.join(TABLES)}, got {self.published!r}")

    def settled(self) -> Protocol:
        """The protocol with what the options change of it.

        Raises:
            UserError: if no protocol has the name.
        """
        protocol = find_protocol(self.protocol)
        given = {
            name: value
            for name in ("crop", "blur", "noise", "light", "jpeg", "output")
            if (value := getattr(self, name)) is not None
        }
        if self.blurred is not None and not protocol.photographed:
            given["photographed"] = True
        changed = {name: value for name, value in given.items() if value != getattr(protocol, name)}
        if changed and protocol.name != "central":
            # What a name stands for is fixed; everything is printed, but the name must not mislead.
            changed["name"] = f"{protocol.name}, changed"
        return replace(protocol, **changed)
