"""The U-Net of the QSharpNet paper: luma in, luma out, 4,891,216 trainable parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.networks.image import check_image
from model.networks.padding import pad_to_multiple

__all__ = ["UNet"]

# Keras: epsilon 1e-3 and momentum 0.99, where momentum is the share of the old value; torch's is that of the
# new.
BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01


class ConvBlock(nn.Sequential):
    """Five times [3 x 3 convolution without bias, batch normalisation, GELU]."""

    def __init__(self, in_channels: int, out_channels: int, depth: int = 5) -> None:
        layers: list[nn.Module] = []
        for index in range(depth):
            channels = in_channels if index == 0 else out_channels
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM),
                nn.GELU(),
            ]
        super().__init__(*layers)


class UpBlock(nn.Module):
    """Doubles the size by a transposed convolution, appends the skip connection, and convolves."""

    def __init__(self, in_channels: int, out_channels: int, depth: int = 5) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.block = ConvBlock(2 * out_channels, out_channels, depth)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        return self.block(torch.cat([self.up(below), skip], dim=1))


class UNet(nn.Module):
    """Restores a blurred luma image: restored = blurred + U-Net(blurred).

    Four encoder blocks of `widths` filters with 2 x 2 max pooling between them, a bridge, and four decoder
    blocks in reverse; a 1 x 1 convolution without bias and the global residual at the end. The convolutions
    may run in half precision under autocast; the residual is added in float32 and the result is float32,
    because rounding the image itself would turn the gradient of the sharpness metric Q.

    Source: A. Gautam et al., MMSP 2024, section III and the released code.

    Args:
        widths: filters of the encoder blocks and, last, of the bridge.
        depth: convolutions in a block.
        output_gain: factor on the initial weights of the last convolution. 1 is the paper's; with 0 an
            untrained network returns its input, which suits short runs.
    """

    #: Whether it is told which blur it removes; tables say so.
    knows_blur = False

    def __init__(
        self, widths: Sequence[int] = (16, 32, 64, 128, 256), depth: int = 5, output_gain: float = 1.0
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(
                f"widths must name at least two positive numbers of filters, got {tuple(widths)}"
            )
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        *encoder, bridge = widths
        inputs = [1, *encoder]
        self.encoder = nn.ModuleList(
            ConvBlock(before, after, depth) for before, after in zip(inputs, encoder, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.bridge = ConvBlock(encoder[-1], bridge, depth)
        self.decoder = nn.ModuleList(
            UpBlock(below, width, depth)
            for below, width in zip([bridge, *encoder[:0:-1]], encoder[::-1], strict=True)
        )
        self.output = nn.Conv2d(encoder[0], 1, kernel_size=1, bias=False)
        self.multiple = 2 ** len(encoder)
        self._initialise(output_gain)

    def _initialise(self, output_gain: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.ConvTranspose2d):
                # With stride = kernel size every output pixel sees each input channel once: the fan is
                # in_channels, while torch would take out_channels x 4 from the transposed layout of the
                # weight.
                nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.output.weight.mul_(output_gain)

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore N x 1 x H x W luma in [0, 1], any H, W >= 1.

        The result is float32 (float64 for float64) and not clipped.
        """
        check_image(blurred, 1, "UNet")
        height, width = blurred.shape[-2:]
        x = pad_to_multiple(blurred, self.multiple)
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bridge(x)
        for block in self.decoder:
            x = block(x, skips.pop())
        residual = self.output(x)[..., :height, :width]
        exact = torch.promote_types(blurred.dtype, torch.float32)
        return blurred.to(exact) + residual.to(exact)
