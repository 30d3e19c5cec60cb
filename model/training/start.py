"""What a run starts from: the network with its weights, and the photographs."""

from torch import nn

from model.data.degradation import parse_blur
from model.data.luma_set import LumaSet
from model.data.sources import load_images
from model.errors import UserError
from model.networks import NETWORKS, build_network
from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig
from model.weights import load_network

__all__ = ["load_photographs", "starting_network"]


def starting_network(config: TrainConfig) -> nn.Module:
    """Build the network of a configuration, with fresh weights or those that fine-tuning starts from.

    Raises:
        UserError: if there is no such network, the weights are of another, or it is told another blur.
    """
    if not isinstance(config, FinetuneConfig):
        _tell_blur(config)
        return build_network(config.network, config.network_args)
    assert config.weights is not None  # check() has refused that
    network, card = load_network(config.weights)
    if card.network != config.network:
        raise UserError(
            f"{config.weights} holds weights of network {card.network!r}, not {config.network!r}; "
            f"give --network {card.network}"
        )
    if config.network_args not in ({}, card.network_args):
        raise UserError(
            f"{config.weights} was made with --network_args {card.network_args}, not {config.network_args}; "
            "leave --network_args away"
        )
    # The resolved configuration says what was trained.
    config.network_args = card.network_args
    _tell_blur(config)
    return network


def _tell_blur(config: TrainConfig) -> None:
    """A network that is told the blur must be told the one of its crops."""
    if not getattr(NETWORKS.get(config.network), "knows_blur", False):
        return
    name, size = parse_blur(config.blur)
    told = config.network_args.get("blur", int(size) if name == "box" else None)
    if told is None:
        raise UserError(
            f"{config.network} must be told the blur: give --blur box:SIDE, "
            "or its kernel as blur in --network_args"
        )
    if isinstance(told, int) and (name, told) != ("box", int(size)):
        raise UserError(f"{config.network} is told a box of {told}, but the crops have --blur {config.blur}")
    config.network_args = {**config.network_args, "blur": told}


def load_photographs(config: TrainConfig) -> tuple[LumaSet, LumaSet | None]:
    """What is trained on, and what is validated on.

    Raises:
        UserError: if there is nothing to train on.
    """

    def skip(name: str, reason: str) -> None:
        say(f"skipped {name}: {reason}")

    images = load_images(config.photographs, config.crop, skip)
    if config.validation:
        return images, load_images(config.validation, config.crop, skip)
    if config.holdout >= len(images):
        raise UserError(f"--holdout {config.holdout} leaves nothing of {len(images)} photographs to train on")
    return images.split(config.holdout, config.seed) if config.holdout else (images, None)
