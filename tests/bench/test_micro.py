import pytest

from bench import reach, record
from bench.__main__ import main
from bench.record import Timing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    words = [
        "micro",
        "--sizes",
        "2x3x32x40",
        "--dtypes",
        "float32",
        "bfloat16",
        "--compile",
        "none",
        "--seconds",
        "0.01",
    ]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


def test_a_run_writes_its_records(folder):
    rows, machine = record.read(folder / "micro_cpu.csv", Timing)
    assert machine.device == "cpu"
    assert {r.mode for r in rows} == {"forward", "backward", "both"}
    assert {r.dtype for r in rows} == {"float32", "bfloat16"}
    assert {r.kernel for r in rows} == {"q", "mae_q", "l1_loss", "copy"}
    assert {r.provider for r in rows} >= {"eager", "plain", "refined", "torch"}
    for row in rows:
        assert 0 < row.ms_p20 <= row.ms_p50 <= row.ms_p80
        assert row.rounds >= 3
        assert row.gbytes_per_s > 0
        assert (row.share_of_copy == 1) == (row.kernel == "copy")
    text = (folder / "micro_cpu.md").read_text()
    assert "## Reach" in text and "not measured" in text
    assert "QLoss refined" in text
    assert (folder / "micro_cpu.png").read_bytes().startswith(b"\x89PNG")


def test_memory_of_both_halves_is_recorded(folder):
    rows, _ = record.read(folder / "micro_cpu.csv", Timing)
    for row in rows:
        if row.kernel == "copy":
            continue
        assert (row.extra_bytes_forward is None) == (row.mode == "backward")
        assert (row.extra_bytes_backward is None) == (row.mode != "both")
        if row.mode == "both":
            itemsize = 4 if row.dtype == "float32" else 2
            assert row.extra_bytes_backward >= row.n * row.c * row.h * row.w * itemsize


def test_targets_are_computed_from_the_rows():
    def row(kernel, provider, ms):
        return Timing(kernel, provider, "both", "float32", *reach.SMALL, "photo", ms, ms, ms)

    rows = [row("q", "plain", 9.0), row("q", "cpp", 1.0), row("l1_loss", "torch", 0.5)]
    found = {(o.text, o.wanted): o for o in reach.outcomes(rows)}
    faster = found["32x1x128x128 Q both, speed-up over plain torch", ">= 8"]
    assert (faster.measured, faster.reached) == ("9", True)
    slower = found["32x1x128x128 Q both, time of l1_loss's", "<= 1"]
    assert (slower.measured, slower.reached) == ("2", False)
    unknown = found["32x1x128x128 MAE - w Q both, time of l1_loss's", "<= 1.2"]
    assert (unknown.measured, unknown.reached) == ("not measured", None)


def test_memory_that_grows_with_the_image_is_found():
    def rows(extra):
        return [
            Timing(
                "q", "cpp", "both", "float32", *s, "photo", extra_bytes_backward=4 * s[2] * s[3] + extra(s[2])
            )
            for s in (reach.LARGE, reach.HUGE)
        ]

    assert reach.backward_memory(rows(lambda side: 64))[0].reached is True
    assert reach.backward_memory(rows(lambda side: side * side // 64))[0].reached is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nope", "invalid choice: 'nope'"),
        ("micro --sizes 3x3", "'3x3' is not a size such as 32x1x128x128"),
        ("micro --sizes 1x2x64x64", "C must be 1 or 3"),
        ("micro --engines abacus", "unknown engine 'abacus'"),
        ("micro --seconds 0", "--seconds must be positive"),
        ("accuracy --patch-sizes 2", "at least 3, not 2"),
        ("overhead --engine abacus", "unknown engine 'abacus'"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(words, message, capsys):
    try:
        code = main(words.split())
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_a_command_it_says_what_there_is(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("micro", "overhead", "accuracy"))
