"""DnCNN at half the resolution: a small network that finds noise, for RED to regularise with."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.image import add_residual, at_least_one, check_channels, check_image, scale_parameters
from model.networks.padding import pad_to_multiple

__all__ = ["DnCNN"]


class DnCNN(nn.Module):
    """Convolutions with ReLU that find the noise in an image, at half its size in each direction.

    Pixels are put in 2 x 2 blocks into channels first and back last, so each convolution costs a quarter and
    sees twice as far: RED calls its denoiser hundreds of times a picture. There is no batch normalisation: at
    the weak noise RED asks for it gains nothing, and it would tie results to the crops of training.

    Source: K. Zhang, W. Zuo, Y. Chen, D. Meng and L. Zhang, Beyond a Gaussian denoiser, IEEE TIP 26(7), 2017
    (the residual and the plain chain); K. Zhang, W. Zuo and L. Zhang, FFDNet, IEEE TIP 27(9), 2018 (half the
    resolution). Width and depth are chosen.

    Args:
        channels: 1 for luma or 3 for RGB.
        width: channels of the hidden layers.
        depth: convolutions, at least 2.
        output_gain: multiplies the initial weights of the last layer; with 0 the network starts as the
            identity. What there is to find is small.
    """

    knows_blur = False

    def __init__(self, channels: int = 1, width: int = 32, depth: int = 6, output_gain: float = 0.1) -> None:
        super().__init__()
        check_channels(channels)
        at_least_one(width=width, depth=depth - 1)
        self.channels = channels
        widths = [4 * channels, *[width] * (depth - 1), 4 * channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, padding=1) for before, after in pairwise(widths)
        )
        scale_parameters(self.layers[-1], output_gain)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise N x C x H x W, any H and W; the result is float32, not clipped.

        Raises:
            UnfitImage: if `noisy` is no batch of images with `channels` channels.
        """
        check_image(noisy, self.channels, "DnCNN")
        x = F.pixel_unshuffle(pad_to_multiple(noisy, 2), 2)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return add_residual(noisy, F.pixel_shuffle(self.layers[-1](x), 2))
