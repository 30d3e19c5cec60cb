"""Networks of other projects, by the library spandrel, which recognises an architecture by its weights.

spandrel (MIT) is optional: `pip install spandrel`. It knows NAFNet, SwinIR, DRUNet, SCUNet, FFTformer and
many more. Such a network restores; it is not trained here.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.networks.image import check_image
from model.networks.published import is_checkpoint, read_checkpoint

__all__ = ["ForeignNetwork", "load_foreign"]


class ForeignNetwork(nn.Module):
    """A restoration network that spandrel has built; it pads as the network needs and clips to [0, 1].

    Args:
        descriptor: spandrel's ImageModelDescriptor, scale 1, as many channels out as in, 1 or 3.
    """

    knows_blur = False

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.name = str(descriptor.architecture.name)
        self.channels = int(descriptor.input_channels)
        self.network: nn.Module = descriptor.model
        # In a tuple, so that the descriptor's own module is not registered a second time.
        self._descriptor = (descriptor,)

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore N x channels x H x W in [0, 1], any H, W >= 1; the result has the same shape.

        There is no gradient: spandrel runs its networks in inference mode.
        """
        check_image(blurred, self.channels, self.name)
        # It takes one image at a time.
        return torch.cat([self._descriptor[0](image) for image in blurred.split(1)])


def load_foreign(path: Path) -> ForeignNetwork:
    """Load weights of any restoration network that spandrel recognises, without running code in the file.

    Args:
        path: .pth and the like with named tensors, or .safetensors.

    Raises:
        UserError: if spandrel is not installed, the file cannot be read or is not recognised, or the network
            does not give back a luma or RGB picture of the size of the one it is given.
    """
    spandrel = _spandrel()
    tensors = _tensors(path)
    try:
        state = spandrel.canonicalize_state_dict(tensors)
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError:
        raise UserError(f"spandrel recognises no network in {path}") from None
    except Exception as error:  # whatever its many constructors meet
        reason = [*str(error).strip().splitlines(), type(error).__name__][0]
        raise UserError(f"spandrel cannot build the network in {path}: {reason}") from error
    name = descriptor.architecture.name
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise UserError(f"{path} holds {name}, which needs more than a picture")
    if descriptor.scale != 1:
        raise UserError(
            f"{path} holds {name}, which enlarges {descriptor.scale} times; a network that restores gives "
            "back a picture of the same size"
        )
    if channels not in ((1, 1), (3, 3)):
        raise UserError(
            f"{path} holds {name} with {channels[0]} channels in and {channels[1]} out; luma has 1, RGB 3"
        )
    return ForeignNetwork(descriptor.eval())


def _spandrel() -> Any:
    # spandrel imports torchvision, which does not import beside every build of torch.
    from model.torchvision_import import import_torchvision

    try:
        import_torchvision()
        import spandrel
    except ImportError as error:
        raise UserError(f"spandrel:FILE needs the library spandrel ({error}): pip install spandrel") from None
    return spandrel


def _tensors(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there are no weights at {path}")
    if is_checkpoint(path):
        content = read_checkpoint(path)
        if not isinstance(content, dict):
            raise UserError(f"{path} holds {type(content).__name__} instead of named tensors")
        return content
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is neither a checkpoint of torch nor safetensors: {error}") from error
