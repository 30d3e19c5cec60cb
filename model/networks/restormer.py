"""Restormer: transformer blocks whose attention is between channels, so that cost is linear in pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.image import add_residual, at_least_one, check_channels, check_image, scale_parameters
from model.networks.padding import pad_to_multiple

__all__ = ["Restormer"]

# Norms below this are those of an empty feature map; torch's normalize uses the same bound.
SMALLEST_NORM = 1e-12


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, with gain and offset."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        last = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias)
        return last.movedim(-1, 1)


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention: each head attends between its channels, over all pixels.

    softmax(temperature * cosine(q_i, k_j)) weighs the channels v_j; the cosine is between whole feature maps.
    Nothing grows with the square of the pixels: the weights are C/heads x C/heads. Dividing the products by
    the norms afterwards, instead of normalising q and k before, saves two full-size tensors and their copies
    for the backward.

    Source: the paper, equation 1; the normalisation is that of its public code.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(width, 3 * width, kernel_size=1, bias=False)
        self.depthwise = nn.Conv2d(
            3 * width, 3 * width, kernel_size=3, padding=1, groups=3 * width, bias=False
        )
        self.project = nn.Conv2d(width, width, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, width, height, columns = x.shape
        split = (n, self.heads, width // self.heads, height * columns)
        q, k, v = (part.reshape(split) for part in self.depthwise(self.qkv(x)).chunk(3, dim=1))
        # Summed in float32: half precision would not hold a sum over all pixels. Not by vector_norm, which is
        # several times slower where the pixels are not next to each other.
        exact = torch.promote_types(q.dtype, torch.float32)
        q_norm, k_norm = (
            part.square().sum(-1, keepdim=True, dtype=exact).clamp_min(SMALLEST_NORM**2).sqrt()
            for part in (q, k)
        )
        cosine = (q @ k.mT) / (q_norm * k_norm.mT)
        weights = torch.softmax(self.temperature * cosine, dim=-1)
        return self.project((weights.to(v.dtype) @ v).reshape(x.shape))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward: of twice `hidden` channels the first half, through GELU, gates the second.

    Source: the paper, equation 2.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * hidden, kernel_size=1, bias=False)
        self.depthwise = nn.Conv2d(
            2 * hidden, 2 * hidden, kernel_size=3, padding=1, groups=2 * hidden, bias=False
        )
        self.project = nn.Conv2d(hidden, width, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.depthwise(self.expand(x)).chunk(2, dim=1)
        return self.project(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, width: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.attention_norm = ChannelNorm(width)
        self.attention = ChannelAttention(width, heads)
        self.feed_forward_norm = ChannelNorm(width)
        # Cut off, not rounded: 2.66 x 48 = 127.68 gives 127, as in the published weights.
        self.feed_forward = GatedFeedForward(width, int(expansion * width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Restormer(nn.Module):
    """Restores a blurred image: restored = blurred + transformer(blurred).

    A U of `len(blocks)` levels; going down a convolution halves the channels and pixel-unshuffle gives four
    times as many, going up the reverse. The decoder of the first level keeps the concatenated channels, and
    the refinement follows at that width. No bias in any convolution. The residual is added in float32.

    Source: S. W. Zamir et al., Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR
    2022; the configuration of its public code for single-image defocus deblurring, 26,126,644 parameters for
    RGB, 26,124,052 for luma.

    Args:
        channels: 1 for luma, 3 for RGB.
        width: channels of the first level, divisible by its heads; each further level has twice as many.
        blocks: transformer blocks in each level, the last without a decoder.
        refinement: blocks after the decoder.
        heads: attention heads of each level.
        expansion: hidden channels of the feed-forward part over the channels of its input.
        output_gain: factor on the initial weights of the last convolution. 1 is the source's; with 0 an
            untrained network returns its input, which suits short runs.
    """

    knows_blur = False

    def __init__(
        self,
        channels: int = 1,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_channels(channels)
        if len(blocks) < 2 or len(heads) != len(blocks):
            raise ValueError(
                "blocks and heads must each give a number for every level, of which there are at least two; "
                f"got {tuple(blocks)} and {tuple(heads)}"
            )
        at_least_one(width=width, blocks=min(blocks), heads=min(heads))
        if refinement < 0:
            raise ValueError(f"refinement must not be negative, got {refinement}")
        if int(expansion * width) < 1:
            raise ValueError(f"expansion {expansion} leaves no hidden channel of {width}")
        widths = [width << level for level in range(len(blocks))]
        for one_width, one_heads in zip(widths, heads, strict=True):
            if one_width % one_heads or (one_width % 2):
                raise ValueError(
                    f"the width of a level must be even and divisible by its heads, got {one_width} and "
                    f"{one_heads}"
                )
        self.channels = channels

        def level(of_width: int, with_heads: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(of_width, with_heads, expansion) for _ in range(count)))

        self.embed = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        self.encoder = nn.ModuleList(map(level, widths[:-1], heads, blocks))
        self.down = nn.ModuleList(_convolution(one, one // 2) for one in widths[:-1])
        self.latent = level(widths[-1], heads[-1], blocks[-1])
        # From here on from the coarse levels to the fine ones.
        self.up = nn.ModuleList(_convolution(one, 2 * one) for one in widths[:0:-1])
        self.reduce = nn.ModuleList(
            nn.Conv2d(2 * one, one, kernel_size=1, bias=False) for one in widths[-2:0:-1]
        )
        decoder_widths = [*widths[-2:0:-1], 2 * width]
        self.decoder = nn.ModuleList(map(level, decoder_widths, heads[-2::-1], blocks[-2::-1]))
        self.refinement = level(2 * width, heads[0], refinement)
        self.output = _convolution(2 * width, channels)
        scale_parameters(self.output, output_gain)
        self.multiple = 2 ** (len(blocks) - 1)

    def residual(self, blurred: Tensor) -> Tensor:
        """What is added to the image: of the padded size, in the precision of the convolutions."""
        x = self.embed(pad_to_multiple(blurred, self.multiple))
        skips = []
        for level, down in zip(self.encoder, self.down, strict=True):
            x = level(x)
            skips.append(x)
            x = F.pixel_unshuffle(down(x), 2)
        x = self.latent(x)
        for index, (up, level) in enumerate(zip(self.up, self.decoder, strict=True)):
            x = torch.cat([F.pixel_shuffle(up(x), 2), skips.pop()], dim=1)
            if index < len(self.reduce):
                x = self.reduce[index](x)
            x = level(x)
        return self.output(self.refinement(x))

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore N x channels x H x W in [0, 1], any H, W >= 1.

        The result is float32 (float64 for float64) and not clipped.
        """
        check_image(blurred, self.channels, "Restormer")
        return add_residual(blurred, self.residual(blurred))


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
