"""`python -m model evaluate`, with everything that can be asked of it."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from model.__main__ import COMMANDS
from model.command_line import main
from model.errors import UserError
from model.evaluation.command import run
from model.evaluation.config import EvaluateConfig
from model.evaluation.protocol import Protocol
from model.weights import load_network, save_weights
from tests.photographs import data_folder


def rows(folder) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.fixture
def evaluate(photographs, tmp_path):
    """Runs an evaluation of 64 x 64 crops without LPIPS and returns the exit code."""

    def evaluate(**changed) -> int:
        defaults = {"photographs": [photographs], "crop": 64, "lpips": False, "out": tmp_path / "out"}
        return run(EvaluateConfig(**{**defaults, **changed}))

    return evaluate


def test_networks_and_classical_methods_stand_in_one_table(evaluate, tiny_weights, tmp_path, capsys):
    methods = ["mlm:iterations=5", "median", f"again=weights:{tiny_weights}"]
    code = evaluate(protocol="paper-circular", weights=[tiny_weights], methods=methods, published="II")
    assert code == 0
    output = capsys.readouterr().out
    found = rows(tmp_path / "out")
    assert list(found) == ["blurred", "tiny", "mlm:iterations=5", "median", "again"]
    assert found["tiny"]["psnr"] == found["again"]["psnr"]
    assert float(found["mlm:iterations=5"]["psnr"]) > float(found["blurred"]["psnr"]) + 8
    for part in (
        "Protocol paper-circular, changed: central 64 x 64 luma crops of 3 photographs",
        "circular border (given to methods with its clipping to [0, 1])",
        "not rounded",
        "results truncated",
        "truncated to 8 bits",
        "Q: pythonq",
        "no LPIPS",
        "one run after one that is not counted (unless that takes 5 s or more), one picture at a time",
        "mlm:iterations=5: calls the blur; median: blind",
        "- paper, Table II: mLM",
    ):
        assert part in output
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["facts"]
    assert facts["protocol"]["border"] == "circular"
    assert facts["pictures"] == 3


@pytest.mark.parametrize(("trained", "noted"), [(32, True), (64, False), (0, False)])
def test_pictures_larger_than_the_crops_of_the_training_are_noted(
    trained, noted, evaluate, tiny_weights, tmp_path, capsys
):
    network, card = load_network(tiny_weights)
    card.training = {"config": {"crop": trained}} if trained else {}
    save_weights(tmp_path / "small.safetensors", network, card)
    assert evaluate(weights=[tmp_path / "small.safetensors"]) == 0
    note = "Trained on smaller crops than these pictures of up to 64 pixels: small (32 x 32)"
    assert (note in " ".join(capsys.readouterr().out.split())) == noted
    assert (note in " ".join(json.loads((tmp_path / "out" / "results.json").read_text())["notes"])) == noted


def test_the_second_run_takes_what_the_first_left(evaluate, tmp_path, capsys):
    evaluate(methods=["al:iterations=2"])
    first = (tmp_path / "out" / "per_image.csv").read_bytes()
    capsys.readouterr()
    evaluate(methods=["al:iterations=2", "mrl:iterations=2"])
    assert "3 results were there from an earlier run" in capsys.readouterr().out
    # The time too is the one that was measured.
    assert (tmp_path / "out" / "per_image.csv").read_bytes().startswith(first)
    evaluate(methods=["al:iterations=2"], cache=False)
    assert "earlier run" not in capsys.readouterr().out


def test_drawings_and_report_are_made_where_asked(evaluate, tmp_path, capsys):
    evaluate(methods=["al:iterations=1"], plots=True, report=True)
    output = capsys.readouterr().out
    for name in ("scatter.png", "crops.png", "q_map.png", "report.html"):
        assert str(tmp_path / "out" / name) in output
        assert (tmp_path / "out" / name).stat().st_size > 10_000
    # No row is called w=NUMBER.
    assert not (tmp_path / "out" / "sweep.png").exists()


def test_a_failure_is_told_and_the_code_is_1(evaluate, photographs, tmp_path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    for name in ("a", "b"):
        Image.new("L", (64, 64), 128).save(results / f"{name}.png")
    assert evaluate(methods=[f"folder:{results}", "al:iterations=1"]) == 1
    output = capsys.readouterr().out
    assert f"results failed on c: {results} holds no result for c" in output
    assert "results failed on 1 of 3 pictures, which its means leave out" in output
    found = rows(tmp_path / "out")
    assert [found[name]["pictures"] for name in ("blurred", "results", "al:iterations=1")] == ["3", "2", "3"]


def test_results_made_elsewhere_have_no_time(evaluate, photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "whole")
    evaluate(crop=None, protocol="full", methods=[f"folder:{tmp_path / 'whole'}"])
    assert rows(tmp_path / "out")["whole"]["seconds"] == ""
    assert rows(tmp_path / "out")["whole"]["psnr"] == "inf"


def test_a_folder_of_pairs_needs_no_more_words(evaluate, photographs, tmp_path, capsys):
    for kind in ("sharp", "blur"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    luma = np.array(Image.open(photographs / "a.png").convert("L"))
    Image.fromarray(luma).save(tmp_path / "set" / "sharp" / "a.png")
    Image.fromarray(np.roll(luma, 1)).save(tmp_path / "set" / "blur" / "a.png")
    evaluate(photographs=[tmp_path / "set"], protocol="pairs", crop=None)
    assert "whole luma pictures of 1 photograph, blurred as photographed" in capsys.readouterr().out
    assert 10 < float(rows(tmp_path / "out")["blurred"]["psnr"]) < 40


def test_photographs_of_one_name_are_told_apart(evaluate, photographs, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        shutil.copy(photographs / "a.png", tmp_path / folder)
    evaluate(photographs=[tmp_path / "x", tmp_path / "y"])
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["x/a", "y/a"]


def test_a_blur_of_light_is_not_told(evaluate, capsys):
    with pytest.raises(UserError, match=r"wiener must know the blur: .* one of light is no kernel on levels"):
        evaluate(protocol="focus", methods=["wiener"])
    assert evaluate(protocol="focus", methods=["median"]) == 0
    assert "a disc of radius 2 in amounts of light, mirrored border, Gaussian" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"jpeg": 101}, "--jpeg must be a quality from 1 to 100, or 0 for none, got 101"),
        ({"protocol": "pairs", "light": True}, "--light is for pictures that are blurred here"),
        ({"protocol": "pairs", "jpeg": 50}, "--jpeg is for pictures that are blurred here"),
        ({"protocol": "paper-circular", "light": True}, "--light makes 8-bit pictures"),
        ({"protocol": "paper-circular", "jpeg": 50}, "--jpeg makes 8-bit pictures"),
    ],
)
def test_what_a_camera_does_belongs_to_8_bit_pictures_blurred_here(evaluate, changed, message):
    with pytest.raises(UserError, match=message):
        evaluate(**changed)


def test_options_change_the_protocol_and_its_name():
    config = EvaluateConfig(protocol="paper-kodak", blur="disc:2.5", noise=0.01, output="round")
    assert config.settled() == Protocol(
        "paper-kodak, changed", data="kodak", blur="disc:2.5", noise=0.01, output="round"
    )
    assert EvaluateConfig(protocol="paper-kodak", crop=128).settled().name == "paper-kodak"
    assert EvaluateConfig(crop=64).settled() == Protocol(crop=64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "paper-kodka"], "no protocol is called 'paper-kodka'; did you mean 'paper-kodak'?"),
        (["--methods", "mlmm"], "no method is called 'mlmm'; did you mean 'mlm'?"),
        (["--methods", "mlm:iterations=many"], "mlm: iterations must be a whole number, got 'many'"),
        (["--methods", "mlm", "mlm"], "two methods are called 'mlm'; name one of them: LABEL=mlm"),
        (["--weights", "nowhere.safetensors"], "there are no weights at nowhere.safetensors"),
        (["--protocol", "pairs"], "holds no pairs (sharp/ and blur/"),
        (["--blurred", "{photographs}", "--methods", "al"], "al must know the blur"),
        (["--noise", "2"], "--noise must be a variance from 0 to below 1, got 2.0"),
        (["--batch", "0"], "--batch must be at least 1, got 0"),
        (["--crop", "150"], "none of 3 photographs can be used"),
        (["--published", "IV"], "published"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(words, message, photographs, tmp_path, capsys):
    words = [word.format(photographs=photographs) for word in words]
    out = tmp_path / "out"
    common = ["evaluate", str(photographs), "--crop=64", "--lpips=false", f"--out={out}"]
    assert main(COMMANDS, [*common, *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not out.exists()


def test_kodak_under_the_circular_protocol(tmp_path):
    """Six of its crops at once: mLM gains more than 10 dB where the blur is what it takes it for."""
    config = EvaluateConfig(
        protocol="paper-circular",
        data=data_folder("kodak").parent,
        methods=["mlm:iterations=20"],
        limit=6,
        batch=6,
        lpips=False,
        out=tmp_path,
    )
    run(config)
    found = rows(tmp_path)
    assert float(found["mlm:iterations=20"]["psnr"]) > float(found["blurred"]["psnr"]) + 10
    assert float(found["mlm:iterations=20"]["ssim"]) > 0.95
