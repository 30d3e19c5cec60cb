"""Q as a chooser: the fixed set, the choice, and the command on real photographs."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from model.command_line import Command, main, parse
from model.errors import UserError
from model.evaluation.evaluator import Measurement
from model.evaluation.protocol import Pair
from model.evaluation.tune import run
from model.evaluation.tune_config import TuneConfig
from model.evaluation.tuning import anisotropic_set, choose, q_on_set
from qkernel import q_map
from tests.photographs import scikit_image_photograph


@pytest.fixture(scope="module")
def camera() -> np.ndarray:
    return np.array(Image.open(scikit_image_photograph("camera.png")))[100:230, 180:310]


def by_hand(picture: np.ndarray, chosen: np.ndarray) -> float:
    """Zhu and Milanfar's metric over a set of patches, by singular values of each patch's gradients."""
    rows, columns = chosen.shape
    total = 0.0
    for row, column in zip(*np.nonzero(chosen), strict=True):
        patch = picture[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] / 255
        down, right = np.gradient(patch)
        s1, s2 = np.linalg.svd(np.stack([right.ravel(), down.ravel()], 1), compute_uv=False)
        total += s1 * (s1 - s2) / (s1 + s2)
    return total / (rows * columns)


def test_q_on_a_set_counts_its_patches_and_no_others(camera):
    chosen = np.random.default_rng(0).random((16, 16)) < 0.3
    # Isotropic patches too, which Q itself leaves out.
    isotropic = ~anisotropic_set(camera / 255)
    assert (chosen & isotropic).any()
    assert q_on_set(camera, chosen) == pytest.approx(by_hand(camera, chosen), rel=1e-6)


@pytest.mark.parametrize("definition", ["zhu2010", "mmsp2024", "pythonq"])
def test_on_its_own_set_it_is_q(camera, definition):
    own = anisotropic_set(camera / 255, definition)
    expected = q_map(torch.from_numpy(camera / 255), definition=definition).q.mean()
    assert q_on_set(camera, own, definition) == pytest.approx(float(expected), rel=1e-9)


def test_the_set_is_that_of_the_given_picture(camera):
    """A candidate that is sharp where the given picture has no structure gains nothing by it."""
    given = np.full((16, 24), 128, dtype=np.uint8)
    given[:8, :8] = np.linspace(0, 255, 8).astype(np.uint8)
    elsewhere = given.copy()
    elsewhere[8:, 16:] = np.array([0, 0, 0, 0, 255, 255, 255, 255])
    there = given.copy()
    there[:8, :8] = np.array([0, 0, 0, 0, 255, 255, 255, 255])
    pair = Pair("p", given, given)
    measured = [
        Measurement(name, "p", psnr, 0, 0, None, 0, picture)
        for name, psnr, picture in (
            ("as it is", 20, given),
            ("elsewhere", 40, elsewhere),
            ("there", 30, there),
        )
    ]
    choice = choose(measured, [pair])
    assert (choice.by_q.name, choice.by_psnr.name) == ("there", "elsewhere")
    assert (choice.each_by_q, choice.each_by_psnr) == (30, 40)
    assert [(trial.chosen, trial.best) for trial in choice.trials] == [(0, 0), (0, 1), (1, 0)]
    q = {trial.name: trial.q for trial in choice.trials}
    assert q["elsewhere"] == q["as it is"] > 0


def test_a_candidate_that_failed_somewhere_is_none(camera):
    pairs = [Pair(name, camera, camera) for name in ("p", "q")]
    measured = [Measurement("half", "p", 50, 0, 0, None, 0, camera)]
    with pytest.raises(ValueError, match="no candidate restored every picture"):
        choose(measured, pairs)
    measured += [Measurement("whole", name, 20, 0, 0, None, 0, camera) for name in ("p", "q")]
    assert [trial.name for trial in choose(measured, pairs).trials] == ["whole"]


def test_q_chooses_near_the_best_strength_of_a_denoiser(photographs, tmp_path, capsys):
    """Non-local means on noise of sigma 20: neither the weakest nor the strongest, and close to PSNR's."""
    config = TuneConfig(
        photographs=[photographs],
        protocol="central",
        blur="none",
        noise=(20 / 255) ** 2,
        method="nlm:sigma=20",
        parameter="strength",
        values=["0.05", "0.4", "0.7", "1", "2"],
        out=tmp_path,
    )
    run(config)
    output = capsys.readouterr().out
    with (tmp_path / "tune.csv").open(newline="") as file:
        rows = {row["candidate"].removeprefix("strength="): row for row in csv.DictReader(file)}
    assert list(rows) == config.values
    q, psnr = ({value: float(row[key]) for value, row in rows.items()} for key in ("q", "psnr"))
    chosen = max(q, key=q.get)
    assert chosen in ("0.4", "0.7", "1")
    assert psnr[chosen] > max(psnr.values()) - 1
    assert psnr[chosen] > max(psnr["0.05"], psnr["2"]) + 1
    assert f"Q chooses strength={chosen} ({psnr[chosen]:.2f} dB)" in output
    assert "not blurred, Gaussian noise of variance 0.00615148" in output
    assert (tmp_path / "tune.md").read_text().count("\n| strength=") == 5
    with Image.open(tmp_path / "tune.png") as picture:
        assert picture.width > 1000


def test_pictures_as_they_are_need_no_reference(photographs, tmp_path, capsys):
    """The blur that methods are told of is the option's; of PSNR nothing is said."""
    config = TuneConfig(
        photographs=[photographs / "a.png"],
        blur="box:3",
        method="al",
        parameter="iterations",
        values=["0", "2", "4"],
        out=tmp_path,
    )
    run(config)
    output = capsys.readouterr().out
    # The photograph is sharp: the more is "restored", the sharper.
    assert "Q chooses iterations=4.\n" in output
    assert "in what was given; 1 picture as given." in output
    assert "dB" not in output
    with (tmp_path / "tune.csv").open(newline="") as file:
        assert {row["psnr"] for row in csv.DictReader(file)} == {""}


def test_whole_methods_can_be_candidates(photographs, tiny_weights, tmp_path, capsys):
    methods = [f"w=0.1=unet:{tiny_weights}", "smooth=median:size=5"]
    run(TuneConfig(photographs=[photographs], methods=methods, crop=64, out=tmp_path))
    with (tmp_path / "tune.csv").open(newline="") as file:
        assert [row["candidate"] for row in csv.DictReader(file)] == ["w=0.1", "smooth"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": []}, "belong together; for example: python -m model tune"),
        ({"values": ["1"]}, "nothing to choose from"),
        ({"methods": ["al", "mrl"]}, "give either --methods, or --method"),
        ({"photographs": []}, "no photographs given"),
        ({"noise": 0.01}, "name a --protocol, e.g. central"),
        ({"protocol": "centra"}, r"no protocol is called 'centra'; did you mean 'central'\?"),
        ({"parameter": "siz"}, r"median has no parameter 'siz'; did you mean 'size'\?"),
        ({"values": ["3", "4"]}, "size must be odd and positive, got 4"),
        ({"values": ["3", "3"]}, "two candidates are called alike"),
    ],
)
def test_mistakes_are_named(changed, message, photographs, tmp_path):
    given = {"photographs": [photographs], "method": "median", "parameter": "size", "values": ["3", "5"]}
    with pytest.raises(UserError, match=message):
        run(TuneConfig(**{**given, "out": tmp_path, **changed}))


def test_words_of_the_command_line_become_the_configuration(photographs, capsys):
    command = Command(
        "", "model.evaluation.tune_config:TuneConfig", "model.evaluation.tune:run", "photographs"
    )
    words = [str(photographs), "--method", "nlm:sigma=20", "--parameter", "strength", "--values", "0.4", "1"]
    config = parse("tune", command, words)
    assert config.photographs == [photographs]
    assert config.candidates() == [
        "strength=0.4=nlm:sigma=20,strength=0.4",
        "strength=1=nlm:sigma=20,strength=1",
    ]
    assert parse("tune", command, []) == TuneConfig()
    assert main({"tune": command}, ["tune", str(photographs)]) == 2
    assert "belong together" in capsys.readouterr().err
