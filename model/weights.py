"""Weights on disk: safetensors with what is needed to build the network and to know where it came from.

The networks' authors' own files are read too; see `model.networks.published`.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from model import eight_bits
from model.errors import UserError
from model.networks import build_network
from model.networks.published import is_checkpoint, load_published

__all__ = ["Card", "load_network", "load_weights", "replace_file", "save_weights", "serialised", "sha256"]

FORMAT = "qkernel-model/1"


@dataclass
class Card:
    """What weights say of themselves; kept as JSON in the metadata of the file."""

    network: str
    """Name of the network."""
    network_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor."""
    stage: str = "train"
    """train, finetune, or published."""
    loss: dict[str, Any] = field(default_factory=dict)
    """The loss: its name, and for MAE - w Q the weight, definition and grid offset."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What was measured when they were written: numbers by name, and by protocol those of packed weights."""
    base: dict[str, str] = field(default_factory=dict)
    """Of weights that hold only what differs from others: the name of that file, which must lie beside them,
    and its SHA-256."""
    training: dict[str, Any] = field(default_factory=dict)
    """Steps done, crops seen, seconds, versions, and the configuration."""

    @property
    def crop(self) -> int:
        """Side of the crops that the network was trained on, in pixels; 0 where it is not said."""
        return self.training.get("config", {}).get("crop", 0)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that whoever looks sees the old content or the new, never a part.

    Raises:
        UserError: if it cannot be written (disk full, no permission); what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def save_weights(path: Path, network: nn.Module, card: Card) -> None:
    """Write a network's parameters and statistics as safetensors, atomically, with its card in the metadata.

    Raises:
        UserError: if the file cannot be written.
    """
    replace_file(path, serialised(network.state_dict(), card))


def serialised(tensors: Mapping[str, Tensor], card: Card) -> bytes:
    """The content of a weights file."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, **{name: json.dumps(value) for name, value in vars(card).items()}}
    return serialise(content, metadata=metadata)


def load_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """Read tensors and card; weights of 8 bits come as float32, what a base holds from there.

    Raises:
        UserError: if the file or its base does not exist, is damaged, or was not written by `save_weights`,
            or the base is another than it was.
    """
    if not path.is_file():
        raise UserError(f"there are no weights at {path}; `python -m model train` or `demo` makes some")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or a damaged one: {error}") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise UserError(f"{path} was not written by this program (format {found!r}, expected {FORMAT!r})")
    card = Card(
        **{name: json.loads(metadata[name]) for name in Card.__dataclass_fields__ if name in metadata}
    )
    tensors = eight_bits.restored(tensors)
    return (_with_base(path, tensors, card.base) if card.base else tensors), card


def _with_base(path: Path, tensors: dict[str, Tensor], base: Mapping[str, str]) -> dict[str, Tensor]:
    # The name alone: a file that was given away says nothing of folders here.
    there = path.parent / Path(base["file"]).name
    if not there.is_file():
        raise UserError(f"{path} holds only what differs from {there.name}, which must lie beside it")
    if sha256(there) != base["sha256"]:
        raise UserError(f"{path} was made from another {there.name} than the one that lies beside it")
    return {**load_weights(there)[0], **tensors}


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_network(path: Path) -> tuple[nn.Module, Card]:
    """Build the network that the weights name and load them into it.

    Args:
        path: a file of `save_weights`, or one in the format of a network's authors, which is told by its
            content and not by its name. The card of the latter says which network it is, how it is built, and
            that it was published.

    Raises:
        UserError: as `load_weights` or `load_published`, or if the tensors do not fit the network.
    """
    if is_checkpoint(path):
        network, checkpoint = load_published(path)
        return network, Card(checkpoint.network, checkpoint.arguments, stage="published")
    tensors, card = load_weights(path)
    network = build_network(card.network, card.network_args)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(f"the weights in {path} do not fit network {card.network!r}: {first}") from error
    return network, card
