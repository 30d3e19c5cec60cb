"""`python -m qkernel`: what is installed. `python -m qkernel photo.jpg ...`: how sharp pictures are."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import __version__, q_metric
from .definition import FORMULAS
from .engines import ENGINES, cpp, cuda

if TYPE_CHECKING:
    from PIL import Image


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m qkernel",
        description="Without pictures: version and engines. With pictures: their sharpness Q; higher is "
        "sharper.",
    )
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="image files")
    parser.add_argument(
        "--definition", default="zhu2010", choices=FORMULAS, help="of Q (default: %(default)s)"
    )
    parser.add_argument("--patch-size", type=int, default=8, help="of Q's patches (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"qkernel {__version__}")
    arguments = parser.parse_args(argv)
    if not arguments.pictures:
        print(_installation())
        return 0
    return _measure(arguments.pictures, arguments.definition, arguments.patch_size)


def _installation() -> str:
    lines = [f"qkernel {__version__}, torch {torch.__version__}", "", "engines"]
    for name, engine in ENGINES.items():
        reason = engine.missing()
        lines.append(f"  {name:8}{'available' if reason is None else 'not available: ' + reason}")
        if name == "cuda" and cuda.is_built():
            lines.append(
                f"  {'':8}built with CUDA {cuda.toolkit()} for compute capability "
                f"{', '.join(cuda.architectures())}"
            )
    lines += ["", "CPU"]
    if cpp.missing() is None:
        try:
            lines.append(f"  SIMD    {cpp.simd()}")
        except ValueError as error:
            lines.append(f"  SIMD    not usable: {error}")
        lines.append(f"  threads {torch.get_num_threads()} ({cpp.thread_backend()})")
    else:
        lines.append(f"  threads {torch.get_num_threads()}")
    if torch.cuda.is_available():
        lines += ["", "GPU"]
        for index in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(index)
            lines.append(f"  {index}       {torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    return "\n".join(lines)


def _measure(pictures: list[str], definition: str, patch_size: int) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A file's name that the terminal cannot show must not end the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    failed = 0
    for path in pictures:
        try:
            q = q_metric(_read(path), definition, patch_size)
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"{q.item():.6f}  {path}")
    return 2 if failed else 0


def _read(path: str) -> Tensor:
    """A picture, upright: 3 x H x W uint8 RGB, or 1 x H x W float32 from 0 to 1 for grey of 16 bits.

    Raises:
        ValueError: if it cannot be read as one; the message says why.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                tags = getattr(file, "tag_v2", {})
                # PlanarConfiguration and BitsPerSample: Pillow takes such planes for 8-bit levels.
                if tags.get(284) == 2 and max(tags.get(258, (8,))) > 8 and ";16" not in str(file.tile[0][3]):
                    raise ValueError("16-bit colour in separate planes; save it interleaved")
                file.load()
                picture = _upright(file, path)
    except Exception as error:
        # A damaged file makes Pillow raise whatever its decoders stumble over.
        raise ValueError(f"cannot be read as a picture ({error})") from None
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no fixed white; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        values = torch.frombuffer(bytearray(picture.convert("I").tobytes()), dtype=torch.int32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values beyond 16 bits ({values.min()} to {values.max()})")
        return values.view(1, picture.height, picture.width) / 65535
    pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(picture.height, picture.width, 3).permute(2, 0, 1)


def _upright(file: Image.Image, path: str) -> Image.Image:
    from PIL import Image, ImageOps

    try:
        # Pillow refuses a damaged block only once, and has perhaps looked into it.
        Image.Exif().load(file.info.get("exif", b""))
        return ImageOps.exif_transpose(file)
    except Exception as error:
        print(f"{path}: measured as it lies, for its EXIF is damaged ({error})", file=sys.stderr)
        return file


if __name__ == "__main__":
    sys.exit(main())
