"""XY-Deblur: one decoder used twice, the second time on features turned by 90 degrees."""

import torch
from torch import Tensor, nn

from model.networks.image import add_residual, at_least_one, check_channels, check_image, scale_parameters
from model.networks.padding import pad_to_multiple

__all__ = ["XYDeblur"]

LEVELS = 3


class ResidualBlock(nn.Module):
    """x + convolution(ReLU(convolution(x))), nothing after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


def residual_blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


class EncoderLevel(nn.Module):
    """A convolution, which halves the size on all levels but the first, ReLU, and residual blocks."""

    def __init__(self, in_channels: int, width: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, stride=stride)
        self.blocks = residual_blocks(width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(torch.relu(self.enter(x)))


class DecoderLevel(nn.Module):
    """Residual blocks, a transposed convolution to double the size, and the encoder's features merged in."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = residual_blocks(width, blocks)
        self.up = nn.ConvTranspose2d(width, width // 2, kernel_size=4, stride=2, padding=1)
        self.merge = nn.Conv2d(width, width // 2, kernel_size=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = torch.relu(self.up(self.blocks(x)))
        return torch.relu(self.merge(torch.cat([up, skip], dim=1)))


class Decoder(nn.Module):
    """From the features of the three levels to a residual image."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            DecoderLevel(width << level, blocks) for level in range(LEVELS - 1, 0, -1)
        )
        self.blocks = residual_blocks(width, blocks)
        self.output = nn.Conv2d(width, channels, kernel_size=3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        *skips, x = features
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            x = level(x, skip)
        return self.output(self.blocks(x))


class XYDeblur(nn.Module):
    """Restores a blurred image: restored = blurred + D(features) + turned back(D(turned(features))).

    An encoder of three levels and one decoder D that sees its features twice, as they are and turned by +90
    degrees; the second residual is turned back by -90. That equals a second decoder whose kernels are turned
    copies of the first's, at no cost in parameters. No normalisation, biases everywhere. The residuals are
    added in float32.

    Source: S.-W. Ji et al., XYDeblur: Divide and Conquer for Single Image Deblurring, CVPR 2022. 4,918,627
    parameters for RGB as in its public code, 4,917,473 for luma.

    Args:
        channels: 1 for luma, 3 for RGB.
        width: features of the first level; each further one has twice as many.
        blocks: residual blocks in each level of encoder and decoder.
        output_gain: factor on the initial parameters of the last convolution. 1 is the source's; with 0 an
            untrained network returns its input, which suits short runs.
    """

    knows_blur = False

    def __init__(self, channels: int = 1, width: int = 32, blocks: int = 6, output_gain: float = 1.0) -> None:
        super().__init__()
        check_channels(channels)
        at_least_one(width=width, blocks=blocks)
        self.channels = channels
        self.encoder = nn.ModuleList(
            EncoderLevel(
                channels if level == 0 else width << (level - 1),
                width << level,
                blocks,
                stride=1 if level == 0 else 2,
            )
            for level in range(LEVELS)
        )
        self.decoder = Decoder(channels, width, blocks)
        scale_parameters(self.decoder.output, output_gain)
        self.multiple = 2 ** (LEVELS - 1)

    def residuals(self, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """The two residual images, of the padded size, in the precision of the convolutions."""
        x = pad_to_multiple(blurred, self.multiple)
        features = []
        for level in self.encoder:
            x = level(x)
            features.append(x)
        upright = self.decoder(features)
        turned = self.decoder([_turned(feature, 1) for feature in features])
        return upright, _turned(turned, -1)

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore N x channels x H x W in [0, 1], any H, W >= 1.

        The result is float32 (float64 for float64) and not clipped.
        """
        check_image(blurred, self.channels, "XYDeblur")
        return add_residual(blurred, *self.residuals(blurred))


def _turned(x: Tensor, quarters: int) -> Tensor:
    """Turn by quarters of a full turn, counterclockwise, and lay the pixels out anew.

    rot90 returns a transposed view: every convolution and sum after it would drag that layout along and copy.
    """
    layout = torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format
    return torch.rot90(x, quarters, (-2, -1)).contiguous(memory_format=layout)
