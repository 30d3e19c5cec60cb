"""`python -m qkernel`: what is installed, and how sharp pictures are."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
import tifffile
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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_sixteen_bits_is_as_sharp_as_of_eight(tmp_path, capsys, suffix):
    levels = torch.tensor(photograph("camera")[:64, :64])
    Image.fromarray(levels.numpy()).save(tmp_path / "eight.png")
    deep = levels.to(torch.int32).mul(257).numpy().astype("uint16")
    Image.fromarray(deep).save(tmp_path / f"sixteen{suffix}")
    assert main([str(tmp_path / "eight.png"), str(tmp_path / f"sixteen{suffix}")]) == 0
    eight, sixteen = (float(line.split()[0]) for line in capsys.readouterr().out.splitlines())
    assert sixteen == pytest.approx(eight, abs=1e-6) and eight > 0


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(16, 16), "floating-point pixels"),
        (torch.full((16, 16), -3, dtype=torch.int32), "grey values beyond 16 bits (-3 to -3)"),
        (torch.full((16, 16), 70_000, dtype=torch.int32), "grey values beyond 16 bits (70000 to 70000)"),
    ],
)
def test_levels_without_a_white_are_refused(tmp_path, capsys, pixels, message):
    Image.fromarray(pixels.numpy()).save(tmp_path / "picture.tif")
    assert main([str(tmp_path / "picture.tif")]) == 2
    assert message in capsys.readouterr().err


def test_colour_of_sixteen_bits_in_planes_is_refused(tmp_path, capsys):
    planes = torch.randint(65536, (3, 16, 16)).numpy().astype("uint16")
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    assert main([str(tmp_path / "planes.tif")]) == 2
    assert "16-bit colour in separate planes; save it interleaved" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_damaged_exif_is_measured_and_said(tmp_path, capsys, suffix):
    picture = Image.fromarray(photograph("camera")[:64, :64])
    paths = [tmp_path / f"{name}{suffix}" for name in ("whole", "damaged")]
    for path, exif in zip(paths, (b"", b"Exif\0\0garbagegarbage"), strict=True):
        picture.save(path, exif=exif)
    assert main(list(map(str, paths))) == 0
    printed = capsys.readouterr()
    assert len({line.split()[0] for line in printed.out.splitlines()}) == 1
    assert len(printed.err.splitlines()) == 1
    assert f"damaged{suffix}: measured as it lies, for its EXIF is damaged" in printed.err


def test_a_name_that_is_no_text_is_measured(tmp_path, monkeypatch):
    name = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(photograph("camera")[:64, :64]).save(tmp_path / name)
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", printed)
    assert main([str(tmp_path / name)]) == 0
    printed.flush()
    assert rb"caf\udce9.png" in printed.buffer.getvalue()


@pytest.mark.parametrize("arguments", [["--definition", "zhu2011"], ["--patch-size", "big"], ["--nonsense"]])
def test_nonsense_on_the_command_line_is_a_usage_error(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_it_runs_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "qkernel"], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and qkernel.__version__ in ran.stdout
