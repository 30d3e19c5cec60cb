"""The demonstration's table and picture, as `make demo` has left them, into records and documentation."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from PIL import Image

from model.errors import UserError

from . import record

PICTURE = record.ROOT / "docs" / "demo.jpg"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of the demonstration")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder (default: bench/results)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="default: docs/demo.jpg")


def run(options: argparse.Namespace) -> int:
    """Write demo.md and the picture."""
    table, picture = options.run / "table.md", options.run / "comparison.png"
    for path in (table, picture):
        if not path.is_file():
            raise UserError(f"there is no {path}: run `make demo`, or name its folder with --run")
    where = re.sub(r"\.$", "", record.describe(record.machine("cpu")))
    content = table.read_text(encoding="utf-8").strip()
    text = f"# The demonstration\n\n`make demo`; {where}.\n\n## Table\n\n{content}\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "demo.md").write_text(text, encoding="utf-8", newline="\n")
    with Image.open(picture) as image:
        image.convert("RGB").save(options.picture, quality=80, optimize=True)
    print(f"Written: {options.out / 'demo.md'} and {options.picture}")
    return 0
