"""`bench networks` measures every network, and its counts are those of the networks it ran."""

import pytest

from bench import networks, record
from bench.__main__ import main
from model.networks import NETWORKS


def test_a_run_writes_its_records(tmp_path, capsys):
    words = ["networks", "--sizes", "20x12", "--seconds", "0.01", "--device", "cpu"]
    assert main([*words, "--networks", "unet", "ddnet", "--out", str(tmp_path)]) == 0
    rows, machine = record.read(tmp_path / "networks_cpu.csv", networks.Cost)
    assert machine.device == "cpu"
    assert {(row.network, row.dtype, row.w, row.h) for row in rows} == {
        (name, dtype, 20, 12) for name in ("unet", "ddnet") for dtype in ("float32", "bfloat16")
    }
    for row in rows:
        assert row.ms_p20 <= row.ms_p50 <= row.ms_p80
        assert row.ms_p50 > 0 and row.gmac > 0 and row.rounds >= networks.LEAST
        # At least the image that is returned.
        assert row.peak_bytes >= 20 * 12 * 4
        assert row.parameters == networks.PUBLISHED[row.network].parameters
        assert row.knows_blur is (row.network == "ddnet")
    text = (tmp_path / "networks_cpu.md").read_text()
    assert "| ddnet (knows the blur) |" in text
    assert "| unet, luma | 4,891,216 | 4,891,216 |" in text


def test_networks_of_the_paper_have_their_published_figures():
    assert networks.PUBLISHED.keys() == networks.PAPER_MS.keys() <= NETWORKS.keys()


def test_multiply_adds_are_those_of_the_layers():
    """A network of convolutions alone: twice the pixels, twice the work."""
    small, convolutions = networks.multiply_adds("unet", 1, 16, 16)
    assert small == convolutions > 0
    assert networks.multiply_adds("unet", 1, 32, 16)[0] == 2 * small


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "vnet"], "no network is called 'vnet'"),
        (["--sizes", "128"], "a size is WIDTHxHEIGHT"),
        (["--sizes", "0x5"], "a size is WIDTHxHEIGHT"),
        (["--seconds", "0"], "--seconds must be positive"),
        (["--channels", "3"], "takes luma alone"),
    ],
)
def test_bad_words_end_with_one_line(words, message, capsys):
    assert main(["networks", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
