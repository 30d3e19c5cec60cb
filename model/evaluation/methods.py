"""Everything that restores, behind one face: blurred N x 1 x H x W in [0, 1] -> restored, same shape."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from model.classical import CLASSICAL
from model.classical.blur import KernelBlur
from model.classical.method import Classical, Knows
from model.classical.naming import construct, nearest, parameters
from model.data.photographs import SUFFIXES, UnreadablePhotograph, read_luma
from model.errors import UserError
from model.evaluation.protocol import Pair
from model.networks import NETWORKS
from model.networks.foreign import load_foreign
from model.weights import load_network
from qkernel.definition import LUMA

__all__ = [
    "ClassicalMethod",
    "FolderMethod",
    "Identity",
    "Method",
    "NetworkMethod",
    "Setting",
    "build_method",
    "method_from_weights",
    "needs_pairs",
]


class Method(Protocol):
    """What the evaluator knows of a method."""

    name: str
    knows: Knows
    """What it is told beside the blurred picture."""
    key: str
    """Everything its result depends on, the content of files included; empty: results are not kept."""

    def restore(self, blurred: Tensor) -> Tensor:
        """Restore N x 1 x H x W luma in [0, 1], float32 or float64; the result need not be clipped."""
        ...


@dataclass
class Identity:
    """Gives back what it gets: the blurred row of every table."""

    name: str = "blurred"
    knows: Knows = Knows.NOTHING
    key: str = ""

    def restore(self, blurred: Tensor) -> Tensor:
        """Return `blurred`."""
        return blurred


class NetworkMethod:
    """A trained network for luma or RGB; one for RGB sees three equal channels and gives back its luma.

    Args:
        name: its row in the table.
        network: put into evaluation mode and moved to `device`.
        device: where it runs.
        key: identifies the weights.
        crop: side of the crops that it was trained on; 0 where nobody knows.
    """

    def __init__(
        self, name: str, network: nn.Module, device: torch.device, key: str = "", crop: int = 0
    ) -> None:
        self.name, self.device, self.key, self.crop = name, device, key, crop
        self.network = network.to(device, memory_format=torch.channels_last).eval()
        self.knows = Knows.KERNEL if getattr(network, "knows_blur", False) else Knows.NOTHING
        self._channels = getattr(network, "channels", 1)

    @torch.inference_mode()
    def restore(self, blurred: Tensor) -> Tensor:
        """Restore luma in float32; the result is not clipped."""
        blurred = blurred.to(torch.float32).to(self.device)
        if self._channels == 3:
            blurred = blurred.expand(-1, 3, -1, -1)
        restored = self.network(blurred.contiguous(memory_format=torch.channels_last))
        if self._channels == 3:
            weights = restored.new_tensor(LUMA)[:, None, None]
            restored = (restored * weights).sum(1, keepdim=True)
        return restored


class ClassicalMethod:
    """A method of `model.classical` with the blur it is told of, in float64: mLM divides by small numbers.

    Raises:
        UserError: if the method needs the blur and nobody knows it, or the device has no float64.
    """

    def __init__(self, name: str, solver: Classical, blur: KernelBlur | None, device: torch.device) -> None:
        if solver.knows != Knows.NOTHING and blur is None:
            raise UserError(
                f"{name} must know the blur: that of photographed pairs is unknown, and one of light "
                "is no kernel on levels; leave it out"
            )
        if device.type == "mps":
            raise UserError(f"{name} computes in float64, which mps lacks; give --device cpu")
        self.name, self.knows, self.device = name, solver.knows, device
        self._solver, self._blur = solver, blur
        told = ""
        if blur is not None and solver.knows != Knows.NOTHING:
            told = f"{blur.kernel.tolist()} {blur.border} {blur.clip}"
        # Not the names of files but what is in them decides the result.
        told += "".join(_content(path) for path in getattr(solver, "files", ()))
        self.key = f"{solver!r} {told}"

    @torch.no_grad()
    def restore(self, blurred: Tensor) -> Tensor:
        """Restore luma in float64; the result is not clipped."""
        # A method that is told nothing takes whatever stands in the place of the blur.
        return self._solver(blurred.to(self.device, torch.float64), self._blur)  # type: ignore[arg-type]


class FolderMethod:
    """Pictures that others have restored, found by the name of the photograph.

    Args:
        name: its row in the table.
        folder: holds NAME + suffix + .png (or another kind of picture).
        suffix: what stands in file names between the photograph's name and the dot.
        pairs: those that will be asked for. A picture is recognised by its blurred pixels, so this method has
            the same face as the others.

    Raises:
        UserError: if the folder holds none of the pairs.
    """

    knows = Knows.ANSWER
    key = ""

    def __init__(self, name: str, folder: Path, suffix: str, pairs: Sequence[Pair]) -> None:
        self.name, self.folder = name, folder
        if not folder.is_dir():
            raise UserError(f"{name}: {folder} is not a folder")
        self._names = {_fingerprint(torch.from_numpy(pair.observed)): pair.name for pair in pairs}
        self._paths = {
            pair.name: path
            for pair in pairs
            for path in sorted(folder.glob(f"{_literal(pair.name + suffix)}.*"))
            if path.suffix.lower() in SUFFIXES
        }
        if not self._paths:
            example = f"{pairs[0].name}{suffix}.png" if pairs else ""
            raise UserError(f"{name}: {folder} holds none of {len(pairs)} pictures, e.g. {example}")

    def restore(self, blurred: Tensor) -> Tensor:
        """Look the pictures up.

        Raises:
            UserError: if one is not in the folder, cannot be read, or has another size.
        """
        results = []
        for picture in blurred[:, 0]:
            name = self._names.get(_fingerprint(picture))
            if name is None or name not in self._paths:
                raise UserError(f"{self.folder} holds no result for {name or 'this picture'}")
            try:
                luma = read_luma(self._paths[name])
            except UnreadablePhotograph as reason:
                raise UserError(f"{self._paths[name]}: {reason}") from None
            if luma.shape != picture.shape:
                sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (luma.shape, picture.shape))
                raise UserError(f"{self._paths[name]} and the photograph differ in size: {sizes}")
            results.append(torch.from_numpy(luma / 255))
        return torch.stack(results)[:, None]


def _literal(name: str) -> str:
    """A name with the characters that mean something to glob taken literally."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _fingerprint(picture: Tensor) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture.cpu().numpy(), dtype=np.float64)).digest()


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def method_from_weights(path: Path, device: torch.device, blur: KernelBlur | None = None) -> NetworkMethod:
    """The network in a weights file, named after the file, or after its folder if it is called weights.

    Args:
        path: the file.
        device: where it runs.
        blur: of the pictures it will be given; None if nobody knows it.

    Raises:
        UserError: if the file cannot be loaded, or its network was told another blur.
    """
    network, card = load_network(path)
    told = getattr(getattr(network, "blur", None), "kernel", None)
    if blur is not None and told is not None and not _same(told, blur.kernel):
        sizes = " and ".join(" x ".join(map(str, kernel.shape)) for kernel in (told, blur.kernel))
        raise UserError(
            f"{path}: {card.network} was told another blur than that of the pictures (kernels of {sizes}); "
            "give --blur as it was trained"
        )
    name = path.absolute().parent.name if path.stem == "weights" else path.stem
    key = f"{card.network} {sorted(card.network_args.items())} {_content(path)}"
    return NetworkMethod(name, network, device, key, card.crop)


def _same(kernel: Tensor, other: Tensor) -> bool:
    """Whether two kernels are one, as far as float32 can tell."""
    return kernel.shape == other.shape and torch.allclose(kernel.double(), other.double(), atol=1e-6)


@dataclass(frozen=True)
class Setting:
    """What a method is built for."""

    device: torch.device
    blur: KernelBlur | None
    """The blur it may be told of; None if nobody knows it."""
    pairs: Sequence[Pair] = ()


def _weights(text: str, setting: Setting) -> Method:
    return method_from_weights(Path(text), setting.device, setting.blur)


def _folder(text: str, setting: Setting) -> Method:
    folder, _, rest = text.partition(",")
    given = parameters(rest)
    if unknown := set(given) - {"suffix"}:
        raise UserError(f"folder has no parameter {unknown.pop()!r}; known: suffix")
    name = Path(folder).name + given.get("suffix", "")
    return FolderMethod(name, Path(folder), given.get("suffix", ""), setting.pairs)


def _spandrel(text: str, setting: Setting) -> Method:
    path = Path(text)
    network = load_foreign(path)
    return NetworkMethod(path.stem, network, setting.device, f"spandrel {network.name} {_content(path)}")


_FROM_FILES: dict[str, Callable[[str, Setting], Method]] = {
    "weights": _weights,
    "folder": _folder,
    "spandrel": _spandrel,
}


def _parts(text: str) -> tuple[str, str, str, str]:
    """Label, all but the label, name and arguments."""
    # Before the colon, what stands left of the last sign is the label: w=0.01=unet:FILE. Behind it, signs
    # belong to parameters.
    head, colon, arguments = text.partition(":")
    label, _, name = head.rpartition("=")
    rest = f"{name}{colon}{arguments}"
    return label, rest, name, arguments


def needs_pairs(text: str) -> bool:
    """Whether a method must be told beforehand which pairs it will see."""
    return _parts(text)[2] == "folder"


def build_method(text: str, setting: Setting) -> Method:
    """Build what `[LABEL=]NAME[:ARGUMENTS]` asks for.

    NAME is a classical method with parameters (`mlm:iterations=250`), `weights` or a network's name with a
    file (`unet:runs/train/weights.safetensors`), `spandrel` with a file of another project,
    `folder` with a folder of results (`folder:results,suffix=_al`), or `blurred`. LABEL is the row's name.

    Raises:
        UserError: for an unknown name (with the nearest), parameters that do not fit, or files that do not.
    """
    label, rest, name, arguments = _parts(text)
    if name in CLASSICAL:
        solver = construct(name, CLASSICAL[name], parameters(arguments))
        method: Method = ClassicalMethod(rest, solver, setting.blur, setting.device)
    elif name == "blurred" and not arguments:
        method = Identity()
    elif name in _FROM_FILES or name in NETWORKS:
        if not arguments:
            raise UserError(f"{name} needs a {'folder' if name == 'folder' else 'file'}: {name}:PATH")
        method = _FROM_FILES.get(name, _weights)(arguments, setting)
        if name in NETWORKS and not isinstance(method.network, NETWORKS[name]):  # type: ignore[attr-defined, arg-type]
            raise UserError(f"{arguments} holds no {name}; write weights:{arguments} for whatever it holds")
    else:
        known = ["blurred", *CLASSICAL, *_FROM_FILES, *NETWORKS]
        raise UserError(f"no method is called {name!r}; {nearest(name, known)}")
    method.name = label or method.name
    return method
