"""DDNet: a network that knows the blur and fills in what the blur's regularised inverse cannot see."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.networks.adaptive_filter import filter_square
from model.networks.border import repeat_border
from model.networks.image import at_least_one, check_channels, check_image, scale_parameters
from model.networks.known_blur import KnownBlur

__all__ = ["DDNet"]

SLOPE = 0.2
# The network works at a quarter of the size.
MULTIPLE = 4
# Pixels added on each side and cut off again: what the zeros beyond the border of convolutions and filter
# reach most.
BORDER = 4


class Convolution(nn.Sequential):
    """3 x 3 convolution and LeakyReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(nn.Conv2d(before, after, kernel_size=3, padding=1), nn.LeakyReLU(SLOPE))


class DenseBlock(nn.Module):
    """Three convolutions that each see all that came before, and a 1 x 1 convolution; the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(Convolution(seen * width, width) for seen in (1, 2, 3))
        self.fuse = nn.Conv2d(4 * width, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for convolution in self.convolutions:
            seen = torch.cat([convolution(seen), seen], dim=1)
        return x + self.fuse(seen)


class Up(nn.Sequential):
    """Doubles the size: convolution to four times the channels, depth to space, LeakyReLU."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(width, 4 * width, kernel_size=3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(SLOPE)
        )


class Head(nn.Module):
    """3 x 3 convolution, LeakyReLU, and a 1 x 1 convolution that autocast does not round."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.convolution = Convolution(width, width)
        self.output = nn.Conv2d(width, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        # Its results multiply the image: in half precision they would round it.
        with torch.autocast(x.device.type, enabled=False):
            return self.output(x.to(self.output.weight.dtype))


class DDNet(nn.Module):
    """Restores an image whose blur is known: restored = filter(f - A+ A f + A+ blurred).

    A is the blur, A+ its Wiener inverse. From the blurred image and A+ blurred, dense blocks at a quarter of
    the size find f, of which only what the blur hides is taken (I - A+ A projects on it), and a filter of its
    own for every pixel, which cleans up where the model of the blur is wrong. The weights of the filter are
    used as they are. Operators and filter work in float32, whatever the convolutions run in.

    The blur is an argument and not among the weights: the same weights can be built with another.

    Source: S. López-Tapia et al., Deep robust image restoration using the Moore-Penrose blur inverse,
    ICIP 2023, the luminance network of its public code, 2,938,330 parameters. There the border of training
    crops is real; here it is that of `KnownBlur`, as in its tests. RGB filters all channels alike.

    Args:
        channels: 1 for luma, 3 for RGB.
        blur: side of the box that blurred, odd, or the rows of a kernel with sum 1.
        width: features.
        blocks: dense blocks.
        filter_size: side of the filters, odd.
        eps: regularisation of A+.
        taper: pixels over which the border is faded before the Fourier transform.
        output_gain: factor on the initial parameters of the last convolutions. The filter starts as the
            identity plus what they make; with 0 an untrained network returns A+ blurred.
    """

    knows_blur = True

    def __init__(
        self,
        channels: int = 1,
        blur: int | Sequence[Sequence[float]] = 5,
        width: int = 64,
        blocks: int = 10,
        filter_size: int = 5,
        eps: float = 0.01,
        taper: int = 64,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_channels(channels)
        at_least_one(width=width, blocks=blocks, taper=taper)
        if filter_size < 1 or filter_size % 2 == 0:
            raise ValueError(f"filter_size must be odd and positive, got {filter_size}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}: a blur has zeros")
        self.channels = channels
        self.blur = KnownBlur(blur, eps, taper)
        self.enter = nn.Sequential(
            nn.PixelUnshuffle(2),
            Convolution(4 * 2 * channels, width),
            nn.PixelUnshuffle(2),
            Convolution(4 * width, width),
        )
        self.body = nn.Sequential(*(DenseBlock(width) for _ in range(blocks)))
        self.leave = Convolution(width, width)
        self.up = nn.Sequential(Up(width), Up(width))
        self.image_head = Head(width, channels)
        self.filter_head = Head(width, filter_size**2)
        for head in (self.image_head, self.filter_head):
            scale_parameters(head.output, output_gain)
        with torch.no_grad():
            assert self.filter_head.output.bias is not None
            self.filter_head.output.bias[filter_size**2 // 2] += 1

    def estimates(self, blurred: Tensor, inverted: Tensor) -> tuple[Tensor, Tensor]:
        """The image f, N x C x H x W, and the filter weights, N x filter_size^2 x H x W, for A+ blurred.

        Both sides of the images must be multiples of 4.
        """
        x = self.enter(torch.cat([blurred, inverted], dim=1))
        x = self.up(self.leave(self.body(x) + x))
        return self.image_head(x), self.filter_head(x)

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore N x channels x H x W in [0, 1], any H, W >= 1.

        The result is float32 (float64 for float64) and not clipped.
        """
        check_image(blurred, self.channels, "DDNet")
        height, width = blurred.shape[-2:]
        exact = torch.promote_types(blurred.dtype, torch.float32)
        right, bottom = BORDER + -width % MULTIPLE, BORDER + -height % MULTIPLE
        y = repeat_border(repeat_border(blurred.to(exact), -2, BORDER, bottom), -1, BORDER, right)
        transfer = self.blur.transfer(y)
        inverted = self.blur.invert(y, transfer)
        f, weights = self.estimates(y, inverted)
        f, weights = f.to(exact), weights.to(exact)
        z = f - self.blur.project(f, transfer) + inverted
        restored = filter_square(z, weights)
        return restored[..., BORDER : BORDER + height, BORDER : BORDER + width]
