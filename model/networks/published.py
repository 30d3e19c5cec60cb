"""The authors' own checkpoint files of XY-Deblur, Restormer and IFAN, under the names of this project."""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import UserError
from model.networks import build_network

__all__ = ["Checkpoint", "is_checkpoint", "load_published", "read_checkpoint", "read_published"]

Rule = tuple[str, Callable[[re.Match[str]], str]]
Tensors = Mapping[str, Tensor]

# How many names an error shows of each kind.
SHOWN = 3
# Prefixes that wrappers for several GPUs put before every name.
WRAPPER = "module."


@dataclass(frozen=True)
class Checkpoint:
    """A published file: which network it is, how to build that, and its tensors under our names."""

    network: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Format:
    """How one network's authors keep their weights."""

    network: str
    mark: str
    """A name that only this network's files hold."""
    rules: tuple[Rule, ...]
    """Patterns of whole names without their last part (weight, bias, temperature), and our names for them."""
    arguments: Callable[[Tensors], dict[str, Any]]
    """The constructor's arguments, from the shapes under the published names."""
    prefix: str = ""
    """What comes before every name of the network."""
    training_only: str | None = None
    """Names that begin so belong to parts that are not needed to restore, and are left out."""


def is_checkpoint(path: Path) -> bool:
    """Whether a file is one of torch's own, zipped or pickled, by its first bytes."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError:
        return False
    # The header of safetensors follows its length, whose first byte may be any.
    return begin[:4] == b"PK\x03\x04" or (begin[:1] == b"\x80" and begin[8:] != b"{")


def read_published(path: Path) -> Checkpoint:
    """Read a checkpoint in the format of its authors, without running any code that may be in the file.

    Known are: XYDeblur's .pkl (tensors under `model`), Restormer's .pth (under `params`) and IFAN's .pytorch;
    which of them a file is, is told by the names in it and not by its own name. Sizes are taken from the
    tensors, so that smaller and one-channel versions in these formats load too.

    Raises:
        UserError: if the file is not there, cannot be read, or is in none of these formats.
    """
    tensors = _tensors(path)
    for layout in FORMATS:
        if layout.prefix + layout.mark in tensors:
            break
    else:
        some = ", ".join(list(tensors)[:SHOWN])
        known = ", ".join(layout.network for layout in FORMATS)
        raise UserError(f"{path} is no published checkpoint of {known}; it holds {some or 'no tensors'}")
    named = {
        name.removeprefix(layout.prefix): tensor
        for name, tensor in tensors.items()
        if not (layout.training_only and name.startswith(layout.training_only))
    }
    try:
        arguments = layout.arguments(named)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path} looks like {layout.network}, but its size cannot be told: {error} is missing or odd"
        ) from error
    return Checkpoint(
        layout.network, arguments, {_renamed(name, layout.rules): tensor for name, tensor in named.items()}
    )


def load_published(path: Path, network: str | None = None) -> tuple[nn.Module, Checkpoint]:
    """Build the network a published checkpoint belongs to and load it, every tensor of both accounted for.

    Args:
        path: the file.
        network: the name of the network it must be, or None for any.

    Raises:
        UserError: as `read_published`; if it is another network; if anything is missing, unknown, or of
            another shape.
    """
    checkpoint = read_published(path)
    if network not in (None, checkpoint.network):
        raise UserError(
            f"{path} holds weights of network {checkpoint.network!r}, not {network!r}; "
            f"give --network {checkpoint.network}"
        )
    built = build_network(checkpoint.network, checkpoint.arguments)
    wanted = built.state_dict()
    faults = [
        _listed("missing", wanted.keys() - checkpoint.tensors.keys()),
        _listed("unknown", checkpoint.tensors.keys() - wanted.keys()),
        _listed(
            "of another shape",
            (
                f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
                for name, tensor in checkpoint.tensors.items()
                if name in wanted and tensor.shape != wanted[name].shape
            ),
        ),
    ]
    if any(faults):
        raise UserError(
            f"the weights in {path} do not fit network {checkpoint.network!r}: "
            + "; ".join(filter(None, faults))
        )
    built.load_state_dict(checkpoint.tensors)
    return built, checkpoint


def read_checkpoint(path: Path) -> Any:
    """What is in a file of torch's, on the CPU, without running any code that may be in it.

    Raises:
        UserError: if the file is not there, or cannot be read so.
    """
    if not path.is_file():
        raise UserError(f"there are no weights at {path}")
    try:
        # By its content: of a path, torch would believe the suffix.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is no checkpoint that can be read safely: {reason}") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    for wrapper in ("params", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds {type(content).__name__} instead of named tensors")
    other = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if other:
        raise UserError(f"{path} holds things that are no tensors: {', '.join(map(str, other[:SHOWN]))}")
    if content and all(name.startswith(WRAPPER) for name in content):
        return {name.removeprefix(WRAPPER): tensor for name, tensor in content.items()}
    return dict(content)


def _renamed(name: str, rules: Iterable[Rule]) -> str:
    """Our name for a tensor; a name that no rule knows stays and is reported as unknown."""
    layer, _, tensor = name.rpartition(".")
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, layer):
            return f"{ours(match)}.{tensor}"
    return name


def _listed(kind: str, names: Iterable[str]) -> str:
    found = sorted(names)
    if not found:
        return ""
    more = ", ..." if len(found) > SHOWN else ""
    return f"{len(found)} {kind} ({', '.join(found[:SHOWN])}{more})"


def _count(tensors: Tensors, pattern: str) -> int:
    """How many different numbers stand where the group of `pattern` is, at the beginning of a name."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _below(number: str, start: int) -> int:
    """Published levels count up from 1; ours count from 0, and in decoders from the coarsest."""
    return start - int(number)


# XY-Deblur: convolutions in `main.0`, two of them in each block's `main`.
_HALF = {"0": "first", "1": "second"}
_XYDEBLUR: tuple[Rule, ...] = (
    (r"Encoder([123])\.layers\.0\.main\.0", lambda m: f"encoder.{int(m[1]) - 1}.enter"),
    (
        r"Encoder([123])\.layers\.(\d+)\.main\.([01])\.main\.0",
        lambda m: f"encoder.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}.{_HALF[m[3]]}",
    ),
    (
        r"Decoder1_([12])\.layers\.(\d+)\.main\.([01])\.main\.0",
        lambda m: f"decoder.levels.{int(m[1]) - 1}.blocks.{m[2]}.{_HALF[m[3]]}",
    ),
    (r"Decoder1_([12])\.layers\.\d+\.main\.0", lambda m: f"decoder.levels.{int(m[1]) - 1}.up"),
    (r"Convs1_([12])\.main\.0", lambda m: f"decoder.levels.{int(m[1]) - 1}.merge"),
    (
        r"Decoder1_3\.layers\.(\d+)\.main\.([01])\.main\.0",
        lambda m: f"decoder.blocks.{m[1]}.{_HALF[m[2]]}",
    ),
    (r"Decoder1_4\.main\.0", lambda m: "decoder.output"),
)


def _xydeblur_arguments(tensors: Tensors) -> dict[str, Any]:
    width, channels, _, _ = tensors["Encoder1.layers.0.main.0.weight"].shape
    blocks = _count(tensors, r"Encoder1\.layers\.(\d+)\.main\.1\.")
    return {"channels": channels, "width": width, "blocks": blocks}


# Restormer: four levels; its blocks' parts by name.
_PARTS = {
    "norm1.body": "attention_norm",
    "attn": "attention",
    "attn.qkv": "attention.qkv",
    "attn.qkv_dwconv": "attention.depthwise",
    "attn.project_out": "attention.project",
    "norm2.body": "feed_forward_norm",
    "ffn.project_in": "feed_forward.expand",
    "ffn.dwconv": "feed_forward.depthwise",
    "ffn.project_out": "feed_forward.project",
}
_BLOCK = rf"\.(\d+)\.({'|'.join(map(re.escape, _PARTS))})"
_RESTORMER: tuple[Rule, ...] = (
    (r"patch_embed\.proj", lambda m: "embed"),
    (r"encoder_level([123])" + _BLOCK, lambda m: f"encoder.{int(m[1]) - 1}.{m[2]}.{_PARTS[m[3]]}"),
    (r"latent" + _BLOCK, lambda m: f"latent.{m[1]}.{_PARTS[m[2]]}"),
    (r"decoder_level([123])" + _BLOCK, lambda m: f"decoder.{_below(m[1], 3)}.{m[2]}.{_PARTS[m[3]]}"),
    (r"refinement" + _BLOCK, lambda m: f"refinement.{m[1]}.{_PARTS[m[2]]}"),
    (r"down([123])_[234]\.body\.0", lambda m: f"down.{int(m[1]) - 1}"),
    (r"up([234])_[123]\.body\.0", lambda m: f"up.{_below(m[1], 4)}"),
    (r"reduce_chan_level([23])", lambda m: f"reduce.{_below(m[1], 3)}"),
    (r"output", lambda m: "output"),
)
_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def _restormer_arguments(tensors: Tensors) -> dict[str, Any]:
    width, channels, _, _ = tensors["patch_embed.proj.weight"].shape
    hidden = tensors["encoder_level1.0.ffn.project_out.weight"].shape[1]
    return {
        "channels": channels,
        "width": width,
        "blocks": [_count(tensors, rf"{level}\.(\d+)\.") for level in _LEVELS],
        "refinement": _count(tensors, r"refinement\.(\d+)\."),
        "heads": [len(tensors[f"{level}.0.attn.temperature"]) for level in _LEVELS],
        # What was cut off cannot be told from the width that is left; 2.66 is what has been published.
        "expansion": 2.66 if int(2.66 * width) == hidden else hidden / width,
    }


# IFAN: two convolutions of a residual stage at 0 and 2; every other convolution at 0, before its LeakyReLU,
# but the last of estimator and predictor, which have none.
_STAGE = r"\.([12])\.stem\.(\d+)\.([02])"
_IN_STAGE = {"0": "0.0", "2": "1"}


def _stage(m: re.Match[str], ours: str) -> str:
    return f"{ours}.{m[1]}.stages.{m[2]}.{_IN_STAGE[m[3]]}"


_IFAN: tuple[Rule, ...] = (
    (r"conv([1-4])_([123])\.0", lambda m: f"encoder.levels.{int(m[1]) - 1}.{int(m[2]) - 1}.0"),
    (r"kconv([1-4])_([123])\.0", lambda m: f"filter_encoder.levels.{int(m[1]) - 1}.{int(m[2]) - 1}.0"),
    (r"DME\.0\.0", lambda m: "disparity.0.0"),
    (r"DME" + _STAGE, lambda m: _stage(m, "disparity")),
    (r"DME\.3", lambda m: "disparity.3"),
    (r"conv_DME\.0", lambda m: "disparity_features.0"),
    (r"conv4_4\.([03])\.0", lambda m: f"filter_features.{m[1]}.0"),
    (r"conv4_4" + _STAGE, lambda m: _stage(m, "filter_features")),
    (r"F\.0\.0", lambda m: "predictor.features.0.0"),
    (r"F" + _STAGE, lambda m: _stage(m, "predictor.features")),
    (r"F\.3", lambda m: "predictor.output"),
    (r"conv_res\.([02])\.0", lambda m: f"decoder.enter.{m[1]}.0"),
    (r"conv_res" + _STAGE, lambda m: _stage(m, "decoder.enter")),
    (r"upconv([123])_u\.0", lambda m: f"decoder.up.{_below(m[1], 3)}.0"),
    (
        r"upconv([123])_([12])\.stem\.0\.([02])",
        lambda m: f"decoder.refine.{_below(m[1], 3)}.{int(m[2]) - 1}.stages.0.{_IN_STAGE[m[3]]}",
    ),
    (r"out_res\.0", lambda m: "decoder.output.0"),
)


def _ifan_arguments(tensors: Tensors) -> dict[str, Any]:
    width, channels, _, _ = tensors["conv1_1.0.weight"].shape
    rows, deep, _, _ = tensors["F.3.weight"].shape
    return {
        "channels": channels,
        "width": width,
        # Two filters of three weights, and a bias.
        "steps": rows // (7 * deep),
        "depth": _count(tensors, r"DME\.1\.stem\.(\d+)\."),
        # All published weights were trained with it; see IFAN.
        "shared_kernel": True,
    }


FORMATS = (
    Format("xydeblur", "Encoder1.layers.0.main.0.weight", _XYDEBLUR, _xydeblur_arguments),
    Format("restormer", "patch_embed.proj.weight", _RESTORMER, _restormer_arguments),
    Format("ifan", "kconv1_1.0.weight", _IFAN, _ifan_arguments, "Network.", "reblurNet."),
)
