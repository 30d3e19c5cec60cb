"""What a run starts from: the network with its weights, and the photographs."""

from typing import Any

import torch
from torch import Tensor, nn

from model.data.degradation import Degradation
from model.data.kernels import parse_blur
from model.data.luma_set import LumaSet
from model.data.sources import are_pairs, load_images
from model.errors import UserError
from model.networks import NETWORKS, build_network
from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig
from model.weights import load_network

__all__ = ["continued", "load_photographs", "starting_network"]


def starting_network(config: TrainConfig) -> nn.Module:
    """Build the network of a configuration, with fresh weights or those that fine-tuning starts from.

    Raises:
        UserError: if there is no such network, the weights are of another, it is told another blur, or it
            gives back no image for crops of this size.
    """
    if not isinstance(config, FinetuneConfig):
        _tell_blur(config)
        return _restoring(build_network(config.network, config.network_args), config)
    assert config.weights is not None  # check() has refused that
    network, card = load_network(config.weights)
    return continued(network, card.network, card.network_args, config)


def continued(network: nn.Module, name: str, arguments: dict[str, Any], config: FinetuneConfig) -> nn.Module:
    """Make a network of this name and these arguments ready to be fine-tuned, and note both in `config`.

    Raises:
        UserError: as `starting_network`.
    """
    if config.network not in ("", name):
        raise UserError(
            f"{config.weights} holds weights of network {name!r}, not {config.network!r}; "
            f"leave --network away, or give --network {name}"
        )
    if config.network_args not in ({}, arguments):
        raise UserError(
            f"{config.weights} was made with --network_args {arguments}, not {config.network_args}; "
            "leave --network_args away"
        )
    # The resolved configuration says what was trained.
    config.network, config.network_args = name, arguments
    _tell_blur(config)
    _train_only(network, config.only)
    has_statistics = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules())
    if config.only and has_statistics and not config.freeze_batch_norm:
        raise UserError(
            f"--only {','.join(config.only)} needs --freeze_batch_norm true: "
            "the statistics of all other parts would move"
        )
    return _restoring(network, config)


def _train_only(network: nn.Module, parts: list[str]) -> None:
    """Hold all parameters but those whose names begin with one of the parts; none holds nothing.

    Raises:
        UserError: if no name begins with a part.
    """
    names = [name for name, _ in network.named_parameters()]
    for part in parts:
        if not any(_within(name, part) for name in names):
            there = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UserError(f"--only {part}: no parameter's name begins so; the network has {there}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not parts or any(_within(name, part) for part in parts))


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _restoring(network: nn.Module, config: TrainConfig) -> nn.Module:
    """The network, if it gives back an image for crops of the run's size.

    Raises:
        UserError: if it cannot take them, or gives back something else.
    """
    channels, size = getattr(network, "channels", 1), config.crop
    before = network.training
    try:
        with torch.no_grad():
            restored = network.eval()(torch.zeros(1, channels, size, size))
    except (ValueError, RuntimeError, UserError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"network {config.network!r} cannot take crops of {size} x {size}: {reason}; "
            "another --crop may do"
        ) from error
    finally:
        network.train(before)
    shape = (1, channels, size, size)
    if not isinstance(restored, Tensor) or restored.shape != shape:
        given = tuple(restored.shape) if isinstance(restored, Tensor) else type(restored).__name__
        raise UserError(
            f"network {config.network!r} gives back {given} for a picture of {shape}, which no loss can be "
            "computed of: MAE and Q are of restored pictures"
        )
    return network


def _tell_blur(config: TrainConfig) -> None:
    """A network that is told the blur must be told the one of its crops."""
    if not getattr(NETWORKS.get(config.network), "knows_blur", False):
        return
    if are_pairs(config.photographs):
        if "blur" not in config.network_args:
            raise UserError(
                f"{config.network} must be told the blur, and pairs do not say theirs: "
                "give its kernel as blur in --network_args"
            )
        return
    name, size = parse_blur(config.blur)
    told = config.network_args.get("blur", int(size) if name == "box" else None)
    if told is None:
        raise UserError(
            f"{config.network} must be told the blur: give --blur box:SIDE, "
            "or its kernel as blur in --network_args"
        )
    if config.vary:
        raise UserError(f"{config.network} is told one blur and cannot learn many: leave --vary away")
    if config.light:
        raise UserError(f"{config.network} is told a blur of levels: leave --light away")
    if isinstance(told, int) and (name, told) != ("box", int(size)):
        raise UserError(f"{config.network} is told a box of {told}, but the crops have --blur {config.blur}")
    config.network_args = {**config.network_args, "blur": told}


def load_photographs(config: TrainConfig) -> tuple[LumaSet, LumaSet | None]:
    """What is trained on, and what is validated on.

    Raises:
        UserError: if there is nothing to train on, or pairs are to be degraded.
    """

    def skip(name: str, reason: str) -> None:
        say(f"skipped {name}: {reason}")

    images = load_images(config.photographs, config.crop, skip)
    if images.paired:
        _refuse_degradation(config)
    if config.validation:
        return images, load_images(config.validation, config.crop, skip)
    if config.holdout >= len(images):
        raise UserError(f"--holdout {config.holdout} leaves nothing of {len(images)} photographs to train on")
    return images.split(config.holdout, config.seed) if config.holdout else (images, None)


def _refuse_degradation(config: TrainConfig) -> None:
    """Pairs are taken as they are."""
    usual = Degradation()
    for name, given in vars(config.degradation).items():
        if given != getattr(usual, name) and (name, given) != ("blur", "none"):
            raise UserError(
                f"--{name} {given} is for photographs that are blurred here, not for pairs: leave it away"
            )
