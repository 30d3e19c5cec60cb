"""The commands as a user types them: one-line errors, exit codes, and a Ctrl-C that saves."""

import os
import signal
import subprocess
import sys

import pytest
import yaml

from model.__main__ import COMMANDS
from model.command_line import main, parse
from model.errors import UserError
from tests.model.conftest import ROOT

TINY = ["--network_args.widths=[4,8]", "--network_args.depth=1", "--device=cpu", "--crop=32", "--batch=2"]


def failed(capsys, *words: object) -> str:
    """Run a command that must fail, and return its one line."""
    assert main(COMMANDS, [str(word) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_command_of_one_process_refuses_several(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "'evaluate' runs in one process" in failed(capsys, "evaluate", "photographs")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_s_configuration_is_read_and_written(name):
    config = parse(name, COMMANDS[name], [])
    assert config == type(config)()


def test_unknown_option_names_the_nearest(capsys):
    assert "unknown option '--stepz'; did you mean 'steps'?" in failed(capsys, "train", "--stepz", 4)


def test_unknown_key_in_a_file_names_the_nearest(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text("wieght_decay: 0.1\n")
    message = failed(capsys, "train", "--config", tmp_path / "run.yaml")
    assert "unknown option 'wieght_decay'; did you mean 'weight_decay'?" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no command is called 'trian'; did you mean 'train'?"),
        (["train", "--steps", "many"], "--steps: expected an int. Got value: many"),
        (["finetune", "--q_definition", "zhu"], "zhu2010"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train"], "no photographs given"),
        (["train", "nowhere"], "nowhere does not exist"),
        (["finetune", "nowhere"], "no weights to start from"),
        (["evaluate"], "no photographs given"),
        (["evaluate", "x", "--crop", "5"], "--crop must be 0 or at least 11"),
        (["deblur", "photo.jpg", "--sharpness", "2"], "--sharpness must be from 0 to 1, got 2.0"),
        (["deblur", "photo.jpg", "--sharpness", "much"], "--sharpness: expected a float. Got value: much"),
        (
            ["deblur", "photo.jpg", "--blur", "so so"],
            "--blur: expected one of ['focus', 'box']. Got value: so so",
        ),
        (["deblur"], "no photographs given"),
        (["demo", "--steps", "0"], "--steps must be positive, got 0"),
        (["train", "--resume", "--out", "nowhere"], "nothing to resume in nowhere"),
    ],
)
def test_wrong_words_are_one_line(capsys, words, message):
    assert message in failed(capsys, *words)


def test_stray_word_is_no_option(capsys):
    message = failed(capsys, "finetune", "one", "--weights", "w", "two")
    assert message == "error: 'two' belongs to no option; give all photographs together"


@pytest.mark.parametrize(
    ("name", "value"), [("trackers", "none"), ("only", "output"), ("photographs", "pics")]
)
def test_what_must_be_a_list_in_a_file_is_shown_as_one(capsys, tmp_path, name, value):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{name}: {value}\n")
    message = f"error: {file}: {name} must be a list: write {name}: [{value}]"
    assert failed(capsys, "finetune", "--config", file) == message
    assert failed(capsys, "finetune", f"--config={file}") == message


@pytest.mark.parametrize(
    ("made", "other"), [("finetune", "train"), ("train", "finetune"), ("compare", "train")]
)
def test_run_of_another_command_is_named(capsys, tmp_path, made, other):
    values = parse(made, COMMANDS[made], []).recorded()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    message = f"{tmp_path} holds a run of {made}: python -m model {made} --resume --out {tmp_path}"
    assert message in failed(capsys, other, "--resume", "--out", tmp_path)
    # Also where an older version knew fewer options.
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(list(values.items())[3:])))
    assert message in failed(capsys, other, "--resume", "--out", tmp_path)


def test_photographs_behind_a_link_are_spoken_of(capsys, photographs, tmp_path):
    (tmp_path / "link").symlink_to(photographs)
    assert f"not behind the link {tmp_path / 'link'}: give the folder itself" in failed(
        capsys, "train", tmp_path
    )


def test_dashes_bare_switches_and_later_words(tmp_path):
    (tmp_path / "run.yaml").write_text("steps: 7\nbatch: 3\nphotographs: [one, two]\n")
    config = parse(
        "train",
        COMMANDS["train"],
        ["--config", str(tmp_path / "run.yaml"), "--augment", "--log-every=9", "--batch", "5"],
    )
    assert (config.steps, config.batch, config.augment, config.log_every) == (7, 5, True, 9)
    assert [str(path) for path in config.photographs] == ["one", "two"]


def test_saved_configuration_can_be_given_back(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.recorded()))
    assert parse("train", COMMANDS["train"], ["--config", str(path)]) == config


def test_help_names_every_command_and_option(capsys):
    assert main(COMMANDS, ["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)
    with pytest.raises(SystemExit) as left:
        main(COMMANDS, ["finetune", "--help"])
    assert left.value.code == 0
    assert "w, the weight of the sharpness metric Q" in " ".join(capsys.readouterr().out.split())


def test_error_is_a_user_error_not_a_bare_exception():
    with pytest.raises(UserError):
        parse("train", COMMANDS["train"], ["--steps", "x"])


def test_process_fails_without_a_traceback(run_model, tmp_path):
    process = run_model("evaluate", tmp_path, "--weights", tmp_path / "none.safetensors")
    assert process.returncode == 2
    assert process.stderr.startswith("error: there are no weights at")
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_says_how_to_go_on(run_model, photographs, tmp_path, number):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "model", "train", str(photographs), f"--out={out}", *TINY, "--steps=1000000",
         "--log_every=1"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        # The first line is printed before the first step; the log appears with it.
        assert "1000000 steps" in process.stdout.readline()
        while not (out / "log.csv").is_file():
            assert process.poll() is None
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert f"stopped by {number.name} after step " in output
    assert f"go on with: python -m model train --resume --out {out}" in output
    done = int(output.partition("after step ")[2].split()[0])

    if number == signal.SIGTERM:
        return
    # What it says must work; the saved configuration is shortened, so that it comes to an end.
    saved = yaml.safe_load((out / "config.yaml").read_text())
    (out / "config.yaml").write_text(yaml.safe_dump({**saved, "steps": done + 2}))
    for steps in (5, 10_000):  # which is the default
        other = run_model("train", "--resume", "--out", out, "--steps", steps)
        assert other.returncode == 2
        assert f"where steps is {done + 2} and not {steps}: leave --steps away" in other.stderr
    # What it has anyhow may be said again, also as it was written at first.
    same = "--steps", done + 2, "--photographs", os.path.relpath(saved["photographs"][0], ROOT)
    resumed = run_model("train", "--resume", "--out", out, *same)
    assert resumed.returncode == 0, resumed.stderr
    assert f"from step {done}" in resumed.stdout
    assert f"finished {done + 2} steps" in resumed.stdout


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (["--q_weights", "0,0.1"], [0, 0.1]),
        (["--q_weights", "0", "0.1"], [0, 0.1]),
        (["--q_weights=[0, 0.1]"], [0, 0.1]),
        (["--q_weights", "[]"], []),
        ([], [0.5]),
    ],
)
def test_a_list_on_the_command_line_replaces_that_of_a_file(tmp_path, words, weights):
    (tmp_path / "recipe.yaml").write_text("q_weights: [0.5]\n")
    config = parse("finetune", COMMANDS["finetune"], ["--config", str(tmp_path / "recipe.yaml"), *words])
    assert config.q_weights == weights
