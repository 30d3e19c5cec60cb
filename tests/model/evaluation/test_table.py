"""The table in every form, its ranks, its confidence intervals, and the paper's figures beside it."""

import csv
import json
import math

import numpy as np
import pytest

from model.errors import UserError
from model.evaluation.bootstrap import confidence_interval
from model.evaluation.evaluator import METRICS, Failure, Measurement
from model.evaluation.formats import Table
from model.evaluation.published import TABLES, beside, published
from model.evaluation.table import Row, marks, mean_rows, to_markdown

PICTURE = np.zeros((2, 2), dtype=np.uint8)


def measured(method: str, psnr: list[float], lpips: float | None = 0.25) -> list[Measurement]:
    return [
        Measurement(method, f"p{place}", value, value / 50, 0.1, lpips, 0.5, PICTURE)
        for place, value in enumerate(psnr)
    ]


@pytest.fixture
def table() -> Table:
    return Table(
        [
            *measured("blurred", [20.0, 22.0, 24.5]),
            *measured("mlm:a_b=1", [40.0, 42.0, 44.25]),
            *measured("mae", [30.0, 33.0]),
        ],
        notes=["Protocol x.", "Seconds on cpu & 100 %."],
        facts={"protocol": {"crop": 128}, "odd": math.nan},
        knows={"mlm:a_b=1": "calls the blur", "mae": "blind", "gone": "blind"},
        failures=[Failure("mae", "p2", "diverged"), *(Failure("gone", f"p{i}", "lost") for i in range(3))],
    )


def test_markdown_shows_means_ranks_intervals_and_failures(table):
    text = table.markdown()
    lines = text.splitlines()
    assert " **42.08** |" in lines[3]
    assert " <ins>31.50</ins> |" in lines[4]
    assert lines[5].startswith("| gone ")
    assert lines[5].count("n/a") == len(METRICS)
    # Straight as plain text: every line of a table is equally long.
    assert len({len(line) for line in lines[:6]}) == 1
    assert "| 95 % confidence |" in text
    assert " to " in lines[9]
    assert "mae failed on 1 of 3 pictures, which its means leave out, e.g. p2: diverged" in text
    assert "gone failed on 3 of 3 pictures" in text
    assert "What methods are told: mlm:a_b=1: calls the blur; mae: blind; gone: blind." in text
    assert "<ins>" not in table.plain()


def test_csv_holds_means_counts_and_interval_ends(table):
    rows = {row["method"]: row for row in csv.DictReader(table.csv().splitlines())}
    assert list(rows) == ["blurred", "mlm:a_b=1", "mae", "gone"]
    assert (rows["mae"]["pictures"], rows["gone"]["pictures"], rows["gone"]["psnr"]) == ("2", "", "")
    assert float(rows["blurred"]["psnr"]) == pytest.approx(66.5 / 3, rel=1e-5)
    assert 20 <= float(rows["blurred"]["psnr_low"]) < 66.5 / 3 < float(rows["blurred"]["psnr_high"]) <= 24.5
    images = list(csv.DictReader(table.per_image_csv().splitlines()))
    assert [(row["method"], row["image"], float(row["psnr"])) for row in images[5:7]] == [
        ("mlm:a_b=1", "p2", 44.25),
        ("mae", "p0", 30.0),
    ]


def test_json_is_strict_and_complete(table):
    content = json.loads(table.json(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert content["facts"] == {"protocol": {"crop": 128}, "odd": "nan"}
    assert [row["method"] for row in content["rows"]] == ["blurred", "mlm:a_b=1", "mae", "gone"]
    assert content["rows"][1]["knows"] == "calls the blur"
    assert len(content["per_image"]) == 8
    assert content["failures"][0] == {"method": "mae", "image": "p2", "reason": "diverged"}
    infinite = Table(measured("sharp", [math.inf, math.inf]))
    assert json.loads(infinite.json())["rows"][0]["means"]["psnr"] == "inf"


def test_latex_escapes_and_ranks(table):
    lines = table.latex().splitlines()
    (row,) = [line for line in lines if line.startswith("mlm")]
    assert row.startswith(r"mlm:a\_b=1 & \textbf{42.08} & ")
    assert row.endswith(r" \\")
    assert r"\underline{31.50}" in table.latex()
    assert sum(line.count("&") for line in lines if line.endswith(r"\\")) == 5 * len(METRICS)
    # What is not in the table is a comment.
    assert all(line.startswith("%") for line in lines[: lines.index(r"\begin{tabular}{lrrrrr}")])


def test_ranks_go_by_what_is_shown_and_leave_out_others_rows():
    rows = mean_rows([*measured("a", [30.001]), *measured("b", [30.004]), *measured("c", [29.0])])
    rows.append(Row(("theirs",), dict.fromkeys(METRICS, 99.0), ours=False))
    assert [ranks.get("psnr") for ranks in marks(rows)] == [1, 1, 2, None]
    assert all("q" not in ranks and "seconds" not in ranks for ranks in marks(rows))
    assert to_markdown(rows).count("**30.00**") == 2


def test_a_mean_without_one_of_its_numbers_is_none():
    rows = mean_rows([*measured("a", [1.0]), *measured("a", [2.0], lpips=None)], intervals=True)
    assert rows[0].values["lpips"] is None
    assert rows[0].intervals["lpips"] is None
    assert rows[0].values["psnr"] == 1.5


def test_confidence_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(30, 4, 400)
    low, high = confidence_interval(list(values))
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert (low, high) == confidence_interval(list(values))
    wide = confidence_interval(list(values), level=0.99)
    assert wide[0] < low < high < wide[1]


def test_confidence_interval_needs_finite_values():
    assert confidence_interval([1.0]) is None
    assert confidence_interval([1.0, math.inf]) is None
    assert confidence_interval([2.0, 2.0]) == (2.0, 2.0)


def test_the_paper_s_rows_stand_below_ours():
    rows = beside(mean_rows([*measured("blurred", [20.0]), *measured("mlm:iterations=3", [40.0])]), "II")
    labels = [row.labels[0] for row in rows]
    assert labels[:3] == ["blurred", "mlm:iterations=3", "- paper, Table II: mLM"]
    assert len(rows) == 2 + 9
    assert rows[2].values == {"psnr": 37.282, "ssim": 0.971, "q": 0.135, "lpips": 0.059, "seconds": 0.003}
    # Not ranked, however good.
    assert "**40.00**" in to_markdown(rows)
    with_theirs = Table(measured("mlm", [40.0]), published="II")
    assert "mLM" not in with_theirs.csv()


def test_published_tables_are_the_paper_s():
    """The abstract's gains of MAE - w Q follow from the figures: a mistyped digit would show."""
    assert [len(published(table)) for table in TABLES] == [5, 9, 5]
    rows = dict(published("II"))
    ours, alone = rows.pop("mae_q").values, rows.pop("mae").values
    gains = {
        metric: np.mean([(ours[metric] / row.values[metric] - 1) * 100 for row in rows.values()])
        for metric in ("psnr", "q")
    }
    assert gains["psnr"] == pytest.approx(7.25, abs=0.005)
    assert gains["q"] == pytest.approx(6.7, abs=0.1)
    assert 1 - ours["lpips"] / alone["lpips"] == pytest.approx(0.075, abs=0.005)


def test_tables_are_written_whole(table, tmp_path):
    written = table.write(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in written}
    assert (tmp_path / "run" / "table.md").read_text() == table.markdown()
    (tmp_path / "other" / "table.md").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write .*table\.md"):
        table.write(tmp_path / "other")
    assert not list((tmp_path / "other").glob(".*"))
