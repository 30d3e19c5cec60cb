"""IFAN: features sharpened by many small filters that a second branch predicts for each pixel and channel."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.adaptive_filter import filter_separable
from model.networks.image import add_residual, at_least_one, check_channels, check_image, scale_parameters
from model.networks.padding import pad_to_multiple

__all__ = ["IFAN"]

SLOPE = 0.1
# Weights of a one-dimensional filter.
TAPS = 3
# Width of each level over that of the first. Filters are predicted and applied at the size of the last.
LEVELS = (1, 2, 4, 4)
PREDICTOR_GAIN = 1.5


class Convolution(nn.Sequential):
    """3 x 3 convolution and LeakyReLU."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel_size=3, padding=1, stride=stride), nn.LeakyReLU(SLOPE)
        )


class Up(nn.Sequential):
    """Transposed convolution that doubles the size, and LeakyReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(SLOPE)
        )


class ResidualStages(nn.Module):
    """Stages of LeakyReLU(x + convolution(LeakyReLU(convolution(x)))); with several, the input once more."""

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(Convolution(width, width), nn.Conv2d(width, width, kernel_size=3, padding=1))
            for _ in range(stages)
        )

    def forward(self, x: Tensor) -> Tensor:
        start = x
        for stage in self.stages:
            x = F.leaky_relu(x + stage(x), SLOPE)
        return x + start if len(self.stages) > 1 else x


class Encoder(nn.Module):
    """Four levels of three convolutions, each level but the first at half the size of the one before."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in LEVELS]
        self.levels = nn.ModuleList(
            nn.Sequential(
                Convolution(before, after, stride=1 if level == 0 else 2),
                Convolution(after, after),
                Convolution(after, after),
            )
            for level, (before, after) in enumerate(zip([channels, *widths], widths, strict=False))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the filtered features back to a residual image; the encoder's features are added on the way."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in LEVELS]
        self.enter = nn.Sequential(
            Convolution(widths[-1], widths[-1]),
            ResidualStages(widths[-1], 3),
            Convolution(widths[-1], widths[-1]),
        )
        self.up = nn.ModuleList(
            Up(before, after) for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.refine = nn.ModuleList(
            nn.Sequential(ResidualStages(after, 1), ResidualStages(after, 1)) for after in widths[-2::-1]
        )
        # Its LeakyReLU is the source's: the residual, too, goes through one.
        self.output = Convolution(width, channels)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        x = self.enter(x)
        for up, refine, skip in zip(self.up, self.refine, reversed(skips), strict=True):
            x = refine(up(x) + skip)
        return self.output(x)


class FilterPredictor(nn.Module):
    """From features to each step's filters: for every pixel and channel two of `TAPS` weights and a bias.

    All filters together would be the largest tensor of the network by far: 15,232 channels at an eighth of
    the size. The last layer, a 1 x 1 convolution, is therefore run step by step, so that at inference only
    one step's filters exist at a time. Its rows are laid out as in the published weights: for each step,
    width x `TAPS` vertical weights and as many horizontal; then, after all steps, their biases.
    """

    def __init__(self, width: int, depth: int, steps: int) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.features = nn.Sequential(
            Convolution(width, width), ResidualStages(width, depth), ResidualStages(width, depth)
        )
        self.output = nn.Conv2d(width, steps * width * (2 * TAPS + 1), kernel_size=1)

    def forward(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Vertical and horizontal weights, N x C x TAPS x H x W, and biases, N x C x H x W, step by step."""
        x = self.features(x)
        assert self.output.bias is not None
        rows = [2 * TAPS * self.width] * self.steps + [self.width] * self.steps
        # Split once: a slice per step would give each its own full-size gradient.
        weights, biases = self.output.weight.split(rows), self.output.bias.split(rows)
        for step in range(self.steps):
            filters = F.conv2d(x, weights[step], biases[step])
            filters = filters.reshape(x.shape[0], 2, self.width, TAPS, *x.shape[2:])
            vertical, horizontal = filters.unbind(1)
            offset = F.conv2d(x, weights[self.steps + step], biases[self.steps + step])
            yield vertical, horizontal, offset


class IFAN(nn.Module):
    """Restores an image out of focus: restored = blurred + decoder(filtered(features)).

    One encoder makes the features. A second one, through an estimate of the disparity between the halves of a
    dual-pixel sensor (how far each pixel is out of focus, and to which side), predicts `steps` separable
    filters for every pixel and channel of them; iterative adaptive convolution applies these one after the
    other, with LeakyReLU after each. The residual is added in float32.

    The estimate of disparity is supervised in the source by dual-pixel views, and the filters by blurring the
    sharp image again; both take parts that are not needed to restore and are not here, so that training with
    an image loss alone leaves the meaning of the disparity open. The initial weights are the source's: the
    first filters are small, and what they multiply `steps` times over vanishes, so that at first only the
    biases pass and the deepest level of the first encoder has no gradient.

    Source: J. Lee et al., Iterative Filter Adaptive Network for Single Image Defocus Deblurring, CVPR 2021,
    and its public code: 10,476,996 parameters for RGB.

    Args:
        channels: 1 for luma, 3 for RGB.
        width: features at full size; 2, 4 and 4 times as many at a half, a quarter and an eighth.
        steps: filters applied one after the other.
        depth: residual stages in the blocks that estimate disparity and filters.
        shared_kernel: filter along the rows with the weights predicted for the columns. The published weights
            were trained by code with this defect (their authors say so) and need it; nothing else does. The
            weights predicted for the rows then have no influence.
        output_gain: factor on the initial parameters of the last convolution. 1 is the source's; with 0 an
            untrained network returns its input, which suits short runs.
    """

    knows_blur = False

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        steps: int = 17,
        depth: int = 2,
        shared_kernel: bool = False,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_channels(channels)
        at_least_one(width=width, steps=steps, depth=depth)
        self.channels, self.shared_kernel = channels, shared_kernel
        deep = width * LEVELS[-1]
        self.encoder = Encoder(channels, width)
        self.filter_encoder = Encoder(channels, width)
        self.disparity = nn.Sequential(
            Convolution(deep, deep),
            ResidualStages(deep, depth),
            ResidualStages(deep, depth),
            nn.Conv2d(deep, 1, kernel_size=3, padding=1),
        )
        self.disparity_features = Convolution(1, deep)
        self.filter_features = nn.Sequential(
            Convolution(2 * deep, deep),
            ResidualStages(deep, depth),
            ResidualStages(deep, depth),
            Convolution(deep, deep),
        )
        self.predictor = FilterPredictor(deep, depth, steps)
        self.decoder = Decoder(channels, width)
        self._initialise(output_gain)
        self.multiple = 2 ** (len(LEVELS) - 1)

    def _initialise(self, output_gain: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.predictor.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=PREDICTOR_GAIN)
        scale_parameters(self.decoder.output, output_gain)

    def filters(self, blurred: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The filters of each step, at an eighth of the size; both sides must be multiples of 8."""
        *_, x = self.filter_encoder(blurred)
        disparity = self.disparity_features(self.disparity(x))
        return self.predictor(self.filter_features(torch.cat([x, disparity], dim=1)))

    def residual(self, blurred: Tensor) -> Tensor:
        """What is added to the image: of the padded size, in the precision of the convolutions."""
        blurred = pad_to_multiple(blurred, self.multiple)
        *skips, x = self.encoder(blurred)
        for vertical, horizontal, offset in self.filters(blurred):
            x = filter_separable(x, vertical, vertical if self.shared_kernel else horizontal) + offset
            x = F.leaky_relu(x, SLOPE)
        return self.decoder(x, skips)

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore N x channels x H x W in [0, 1], any H, W >= 1.

        The result is float32 (float64 for float64) and not clipped.
        """
        check_image(blurred, self.channels, "IFAN")
        return add_residual(blurred, self.residual(blurred))
