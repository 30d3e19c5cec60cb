"""`python -m bench readme`: puts the records of bench/results/ into README.md, so that no figure is typed.

README.md has pairs of markers `<!-- record: FILE [SECTION] -->` and `<!-- end -->`; what stands between them
is replaced by that Markdown file of bench/results/, or by the part of it below the heading SECTION.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from model.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"(<!-- record: (\S+)(?: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if README.md is out of date"
    )


def run(options: argparse.Namespace) -> int:
    """Replace what the markers enclose; with --check, 1 if that would change anything."""
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = fill(before, ROOT / "bench" / "results")
    if options.check:
        return int(before != after)
    readme.write_text(after, encoding="utf-8", newline="\n")
    return 0


def fill(text: str, results: Path) -> str:
    """The text with every marked place filled from ``results``.

    Raises:
        UserError: for a file or section that is not there.
    """
    return MARKED.sub(lambda match: match[1] + _record(results / match[2], match[3]) + "\n" + match[4], text)


def _record(path: Path, section: str | None) -> str:
    if not path.is_file():
        raise UserError(f"README.md asks for {path}, which is not there: run the benchmark that writes it")
    text = path.read_text(encoding="utf-8")
    if section is None:
        return text.strip()
    found = re.search(rf"^#+ {re.escape(section)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise UserError(f"{path} has no section {section!r}, which README.md asks for")
    return found[1].strip()
