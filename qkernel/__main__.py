"""`python -m qkernel`: what is installed. `python -m qkernel photo.jpg ...`: how sharp pictures are."""

from __future__ import annotations

import argparse
import sys

import torch

from . import __version__, q_metric
from .definition import FORMULAS
from .engines import ENGINES, cpp, cuda


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
    from PIL import Image, ImageOps

    failed = 0
    for path in pictures:
        try:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file).convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            print(f"{path}: cannot be read as a picture ({error})", file=sys.stderr)
            failed += 1
            continue
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        image = pixels.view(picture.height, picture.width, 3).permute(2, 0, 1)
        try:
            q = q_metric(image, definition, patch_size)
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"{q.item():.6f}  {path}")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
