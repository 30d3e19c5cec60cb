"""README.md shows records, not typed figures."""

from __future__ import annotations

import pytest

from bench.readme import OPEN, ROOT, fill
from model.errors import UserError

MARKED = "before\n<!-- record: r.md Reach -->\nold\n<!-- end -->\nafter\n"


def test_a_marked_place_is_replaced_by_the_section(tmp_path):
    (tmp_path / "r.md").write_text("# Title\n\n## Reach\n\n| 1 |\n\n## Next\n\nno\n")
    expected = "before\n<!-- record: r.md Reach -->\n| 1 |\n<!-- end -->\nafter\n"
    assert fill(MARKED, tmp_path) == expected
    assert fill(expected, tmp_path) == expected


def test_a_missing_record_or_section_is_named(tmp_path):
    with pytest.raises(UserError, match=r"r\.md.*not there"):
        fill(MARKED, tmp_path)
    (tmp_path / "r.md").write_text("# Title\n")
    with pytest.raises(UserError, match="no section 'Reach'"):
        fill(MARKED, tmp_path)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{one.name}" for one in (ROOT / "docs").glob("*.md"))])
def test_the_pages_say_what_the_records_say(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert fill(text, ROOT / "bench" / "results") == text


def test_a_record_yet_to_be_made_is_said_to_be_open_and_shown_once_it_is_there(tmp_path):
    marked = MARKED.replace("record:", "record, once made:")
    opened = "before\n<!-- record, once made: r.md Reach -->\n"
    assert fill(marked, tmp_path) == f"{opened}{OPEN}\n<!-- end -->\nafter\n"
    (tmp_path / "r.md").write_text("# Title\n\n## Reach\n\n| 1 |\n")
    assert fill(marked, tmp_path) == f"{opened}| 1 |\n<!-- end -->\nafter\n"
    (tmp_path / "r.md").write_text("# Title\n")
    with pytest.raises(UserError, match="no section 'Reach'"):
        fill(marked, tmp_path)
