"""`python -m model info`: what a file or folder of this program is and where it came from."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from model.data.store import is_store, open_store, verify_store
from model.errors import UserError
from model.networks.published import is_checkpoint
from model.progress import ProgressBar, say
from model.weights import Card, load_network, load_weights

__all__ = ["InfoConfig", "run"]


@dataclass(kw_only=True)
class InfoConfig:
    """Describe weights (.safetensors, or as a network's authors publish them), stores, and run folders."""

    files: list[Path] = field(default_factory=list)
    """What to describe."""
    verify: bool = False
    """Check the checksum of every picture in a store."""


def run(config: InfoConfig) -> None:
    """Print what each file is.

    Raises:
        UserError: if one is none of these, or a store is damaged.
    """
    if not config.files:
        raise UserError("nothing to describe; name a file: python -m model info weights.safetensors")
    for path in config.files:
        if path.is_dir() and is_store(path):
            say("\n".join(_of_store(path)))
            if config.verify:
                _verify(path)
        elif path.is_dir():
            found = sorted(path.glob("*.safetensors")) + sorted(path.glob("w_*/weights.safetensors"))
            if not found:
                raise UserError(f"{path} holds neither weights nor a store")
            for weights in found:
                say("\n".join(_of_weights(weights)))
        else:
            say("\n".join(_of_weights(path)))


def _of_store(path: Path) -> Iterator[str]:
    images = open_store(path)
    yield f"{path}: store"
    kind = "pairs" if images.paired else "photographs"
    yield f"  {kind}  {len(images)}, {images.pixels / 1e6:.1f} megapixels"
    sizes = images.heights * images.widths
    for word, index in (("smallest", sizes.argmin()), ("largest", sizes.argmax())):
        yield f"  {word}  {images.widths[index]} x {images.heights[index]}, {images.names[index]}"


def _verify(path: Path) -> None:
    damaged = []
    with ProgressBar("checking", len(open_store(path)), "pictures") as bar:
        for name in verify_store(path):
            damaged += [name] if name else []
            bar.advance()
    if damaged:
        raise UserError(f"{len(damaged)} pictures of {path} are damaged, e.g. {damaged[0]}; prepare it anew")
    say("  all checksums are right")


def _of_weights(path: Path) -> Iterator[str]:
    tensors, card = _read(path)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values() if tensor.ndim})
    if card.training.get("bits") == 8:
        kinds = ["8 bits with scales", *(kind for kind in kinds if kind != "float32")]
    yield f"{path}: weights, {path.stat().st_size / 1e6:.1f} MB"
    yield f"  network   {card.network} {_plain(card.network_args)}".rstrip()
    yield f"  numbers   {numbers:,} in {len(tensors)} tensors, {', '.join(kinds)}"
    if card.base:
        yield f"  base      {card.base['file']}, beside it: the file holds only what differs from it"
    yield f"  stage     {card.stage}"
    yield from _section("loss", card.loss)
    yield from _section("metrics", card.metrics)
    training = dict(card.training)
    configuration = training.pop("config", {})
    yield from _section("training", training)
    yield from _section("config", configuration)


def _read(path: Path) -> tuple[dict[str, Tensor], Card]:
    if not is_checkpoint(path):
        return load_weights(path)
    # Only what fits its network is weights.
    network, card = load_network(path)
    return network.state_dict(), card


def _section(title: str, values: dict[str, Any]) -> Iterator[str]:
    if not values:
        return
    yield f"  {title}"
    width = max(map(len, values))
    for name, value in values.items():
        yield f"    {name:{width}}  {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return " ".join(f"{key}={_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)
