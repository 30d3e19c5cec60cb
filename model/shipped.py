"""Weights that come with a checkout of this repository."""

from pathlib import Path

from model.errors import UserError

__all__ = ["FOLDER", "MAE", "MAE_Q", "SHARPNESS", "shipped"]

FOLDER = Path(__file__).resolve().parent.parent / "weights"
"""Each file has its card inside (`python -m model info FILE`); README.md says how they were made."""

MAE = "unet_mae"
"""The paper's U-Net, trained with the mean absolute error on blur by a 5 x 5 box."""
MAE_Q = "unet_mae_q"
"""The same, fine-tuned with MAE - w Q."""
SHARPNESS = 0.375
"""Where the dial between the two stands unless it is moved: on photographs kept from training, the largest
eighth at which PSNR is not below that of the MAE network."""


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
