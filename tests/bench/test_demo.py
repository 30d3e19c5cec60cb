"""The demonstration's record is what the demonstration wrote."""

import pytest
from PIL import Image

from bench.__main__ import main


def test_table_and_picture_are_taken_over(tmp_path):
    (tmp_path / "table.md").write_text("| method |\n| --- |\n| blurred |\n\nfoot.\n")
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "comparison.png")
    words = ["--run", str(tmp_path), "--out", str(tmp_path / "out"), "--picture", str(tmp_path / "demo.jpg")]
    assert main(["demo", *words]) == 0
    text = (tmp_path / "out" / "demo.md").read_text()
    assert text.endswith("## Table\n\n| method |\n| --- |\n| blurred |\n\nfoot.\n")
    assert "cores" in text
    with Image.open(tmp_path / "demo.jpg") as picture:
        assert picture.size == (40, 30)


@pytest.mark.parametrize("missing", ["table.md", "comparison.png"])
def test_missing_run_is_named(tmp_path, missing, capsys):
    assert main(["demo", "--run", str(tmp_path)]) == 2
    assert "run `make demo`" in capsys.readouterr().err
