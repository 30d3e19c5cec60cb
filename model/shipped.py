"""Weights that come with a checkout of this repository."""

from dataclasses import dataclass
from pathlib import Path

from model.errors import UserError

__all__ = ["BOX", "DIALS", "FOCUS", "FOLDER", "MAE", "MAE_Q", "Dial", "shipped"]

FOLDER = Path(__file__).resolve().parent.parent / "weights"
"""Each file has its card inside (`python -m model info FILE`); README.md says how they were made."""


@dataclass(frozen=True)
class Dial:
    """Two networks, the second fine-tuned from the first with MAE - w Q, and all between them."""

    soft: str
    """Name of the weights at sharpness 0."""
    sharp: str
    """And at 1."""
    default: float
    """Where the dial stands unless it is moved: on photographs kept from training, the largest eighth at
    which PSNR is not below that at 0 (`python -m bench dial`)."""


BOX = Dial("unet_mae", "unet_mae_q", 0.375)
"""The paper's U-Net, for blur by a 5 x 5 box."""
FOCUS = Dial("unet_focus", "unet_focus_q", 0.125)
"""The same network for photographs out of focus: blurs by discs of many radii, noise and JPEG."""
DIALS = {"focus": FOCUS, "box": BOX}
"""By what `deblur --blur` calls them."""

MAE, MAE_Q = BOX.soft, BOX.sharp


def shipped(name: str) -> Path:
    """Where the weights of that name are.

    Raises:
        UserError: if this is not a whole checkout.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(
            f"the weights that come with this program are not there ({path}): take a whole checkout, "
            "or give weights of your own with --weights FILE"
        )
    return path
