"""`python -m qkernel`: what is installed, and how sharp pictures are."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from PIL import Image

import qkernel
from qkernel import q_metric
from qkernel.__main__ import main
from qkernel.engines import ENGINES

from ..patches import photograph
from ..photographs import scikit_image_photograph


def test_it_prints_the_version_each_engine_and_the_threads(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for word in (qkernel.__version__, *ENGINES, str(torch.get_num_threads())):
        assert word in printed


def test_it_says_why_an_engine_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(ENGINES["cpp"], "missing", lambda: "no compiler was found")
    assert main([]) == 0
    assert "no compiler was found" in capsys.readouterr().out


def test_a_wrong_instruction_set_is_told_and_no_traceback(monkeypatch, capsys):
    if ENGINES["cpp"].missing():
        pytest.skip("the C++ engine is not built")
    monkeypatch.setenv("QKERNEL_SIMD", "foo")
    ENGINES["cpp"].simd.cache_clear()
    assert main([]) == 0
    ENGINES["cpp"].simd.cache_clear()
    assert "QKERNEL_SIMD must be one of" in capsys.readouterr().out


def test_it_prints_q_of_pictures(capsys):
    paths = [str(scikit_image_photograph(f"{name}.png")) for name in ("coffee", "camera")]
    assert main([*paths, "--definition", "pythonq", "--patch-size", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, path, name in zip(lines, paths, ("coffee", "camera"), strict=True):
        assert path in line
        picture = torch.tensor(photograph(name, rgb=True)).permute(2, 0, 1)
        assert float(line.split()[0]) == pytest.approx(q_metric(picture, "pythonq", 16).item(), abs=1e-6)


def test_what_cannot_be_measured_is_named_and_the_rest_is_measured(tmp_path, capsys):
    broken, small = tmp_path / "broken.jpg", tmp_path / "small.png"
    broken.write_bytes(b"no picture")
    Image.new("L", (5, 40)).save(small)
    good = str(scikit_image_photograph("camera.png"))
    assert main([str(broken), str(small), good, str(tmp_path / "none.png")]) != 0
    printed = capsys.readouterr()
    assert good in printed.out and len(printed.out.splitlines()) == 1
    for words in ("broken.jpg", "small.png", "smaller than one patch", "none.png"):
        assert words in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("arguments", [["--definition", "zhu2011"], ["--patch-size", "big"], ["--nonsense"]])
def test_nonsense_on_the_command_line_is_a_usage_error(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_it_runs_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "qkernel"], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and qkernel.__version__ in ran.stdout
