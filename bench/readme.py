"""`python -m bench readme`: puts the records of bench/results/ into README.md and docs/, so that no figure is
typed.

These files have pairs of markers `<!-- record: FILE [SECTION] -->` and `<!-- end -->`; what stands between
them is replaced by that Markdown file of bench/results/, or by the part of it below the heading SECTION. With
`<!-- record, once made: FILE [SECTION] -->` the file may be missing, and then a sentence says so.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from model.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"(<!-- record(, once made)?: (\S+)(?: (.+?))? -->\n).*?(<!-- end -->)", re.DOTALL)

#: What stands where a record is to come.
OPEN = "These figures are open: no record of them has been made yet."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is out of date")


def run(options: argparse.Namespace) -> int:
    """Replace what the markers enclose; with --check, 1 if that would change anything."""
    outdated = 0
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = path.read_text(encoding="utf-8")
        after = fill(before, ROOT / "bench" / "results")
        if before != after and options.check:
            outdated += 1
        elif before != after:
            path.write_text(after, encoding="utf-8", newline="\n")
    return int(outdated > 0)


def fill(text: str, results: Path) -> str:
    """The text with every marked place filled from ``results``.

    Raises:
        UserError: for a file that is not there and should be, or a section that is not.
    """

    def filled(match: re.Match) -> str:
        opening, may_be_missing, name, section, end = match.groups()
        missing = may_be_missing and not (results / name).is_file()
        return f"{opening}{OPEN if missing else _record(results / name, section)}\n{end}"

    return MARKED.sub(filled, text)


def _record(path: Path, section: str | None) -> str:
    if not path.is_file():
        raise UserError(f"a page asks for {path}, which is not there: run the benchmark that writes it")
    text = path.read_text(encoding="utf-8")
    if section is None:
        return text.strip()
    found = re.search(rf"^#+ {re.escape(section)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise UserError(f"{path} has no section {section!r}, which a page asks for")
    return found[1].strip()
