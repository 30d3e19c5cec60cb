"""The networks by name. A new network is one file in this folder and one line in `NETWORKS`."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from model.errors import UserError
from model.networks.ddnet import DDNet
from model.networks.dncnn import DnCNN
from model.networks.ifan import IFAN
from model.networks.restormer import Restormer
from model.networks.unet import UNet
from model.networks.xydeblur import XYDeblur

__all__ = ["NETWORKS", "build_network", "parameter_count"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "xydeblur": XYDeblur,
    "restormer": Restormer,
    "ddnet": DDNet,
    "ifan": IFAN,
    "dncnn": DnCNN,
}


def build_network(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: a key of `NETWORKS`.
        arguments: keyword arguments of its constructor.

    Raises:
        UserError: if the name or an argument is unknown, or an argument's value is not possible.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NETWORKS)}"
        raise UserError(f"no network is called {name!r}; {hint}")
    try:
        return NETWORKS[name](**(arguments or {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"network {name!r} cannot be built with {dict(arguments or {})}: {error}") from error


def parameter_count(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
