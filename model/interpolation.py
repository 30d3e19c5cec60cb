"""A network between two others: the sharpness dial."""

from pathlib import Path

import torch
from torch import nn

from model.errors import UserError
from model.weights import load_network

__all__ = ["between"]


def between(soft: Path, sharp: Path, sharpness: float) -> nn.Module:
    """The network whose weights lie between those of two, one of which was fine-tuned from the other.

    Fine-tuning moves weights little, so that on the straight line between them lie networks that restore as
    well. Two networks that were trained apart have nothing useful between them.

    Args:
        soft: weights at sharpness 0.
        sharp: weights at sharpness 1, of the same network.
        sharpness: from 0 to 1.

    Returns:
        The network in training mode, as it is built. At 0 and 1, and where the two agree, its floating-point
        numbers are exactly theirs; whole numbers, such as batch-norm counters, are those of `sharp`.

    Raises:
        UserError: if a file cannot be loaded, the two are not of one network, or `sharpness` is out of range.

    Source: Wang et al., "Deep network interpolation for continuous imagery effect transition", CVPR 2019.
    """
    # Refuses NaN too.
    if not 0 <= sharpness <= 1:
        raise UserError(f"the sharpness must be from 0 to 1, got {sharpness}")
    start, start_card = load_network(soft)
    network, card = load_network(sharp)
    if (start_card.network, start_card.network_args) != (card.network, card.network_args):
        raise UserError(
            f"nothing lies between {soft} and {sharp}: they are of different networks, "
            f"{start_card.network} {start_card.network_args} and {card.network} {card.network_args}"
        )
    begin = start.state_dict()
    with torch.no_grad():
        for name, end in network.state_dict().items():
            if end.is_floating_point():
                # a + s (b - a) rounds at s = 1, and (1 - s) a + s b where a = b; lerp does neither.
                end.copy_(torch.lerp(begin[name], end, sharpness))
    return network
