"""The folder of a run.

config.yaml          the resolved configuration
log.csv, log.txt     the course of the run, for programs and for people
validation.csv       the scores of every validation
weights.safetensors  the newest weights
best.safetensors     the best ones of those validated
pictures/            blurred, restored and sharp, of the newest validation
report.html          all of it to look at
logs/                what trackers such as TensorBoard write
checkpoints/         what an unfinished run needs to go on
"""

import csv
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from model.errors import UserError
from model.training.config import FinetuneConfig, TrainConfig
from model.weights import Card, load_weights, replace_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    "RESULTS",
    "RunFolder",
    "earlier_results",
    "finished_card",
    "holds_checkpoint",
    "refuse_earlier_run",
    "refuse_earlier_sweep",
    "remove_results",
]

_WEIGHTS, _CHECKPOINTS = "weights.safetensors", "checkpoints"

RESULTS = "results.csv"
"""The table of a sweep."""

# Options that say nothing of what the weights learnt, or whose values the run itself settles.
_FREE = {
    *("photographs", "validation", "weights", "out", "then", "resume", "overwrite"),
    *("network", "network_args", "lpips_weights", "steps", "epochs", "epoch_crops"),
    *("log_every", "validate_every", "save_every", "keep", "trackers"),
    *("device", "precision", "compile", "memory"),
}


class RunFolder:
    """Files of one run; made on first use.

    Args:
        path: the folder; its parents are made too.

    Raises:
        UserError: if it cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {path}: {error.strerror or error}") from error
        self.config, self.log, self.text = path / "config.yaml", path / "log.csv", path / "log.txt"
        self.validation, self.report = path / "validation.csv", path / "report.html"
        self.weights, self.best = path / _WEIGHTS, path / "best.safetensors"
        self.checkpoints, self.pictures = path / _CHECKPOINTS, path / "pictures"

    @contextmanager
    def held(self) -> Iterator[None]:
        """While entered, no other run can have the folder; however a process ends, its system lets go of it.

        Raises:
            UserError: if another run has it.
        """
        if fcntl is None:
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.path} is in use by another run; wait for its end, or give another --out"
                ) from None
            except OSError:
                # A network's disk that locks no folders.
                pass
            yield
        finally:
            # By closing alone a process that was forked meanwhile would keep it.
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Save the resolved configuration."""
        replace_file(self.config, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())

    def start_logs(self) -> None:
        """Remove the logs and results of an earlier run in the same folder."""
        # With its weights there, this run would pass for finished.
        for file in (self.log, self.text, self.validation, self.report, self.best, self.weights):
            file.unlink(missing_ok=True)
        for picture in self.written_pictures():
            picture.unlink()
        shutil.rmtree(self.path / "logs", ignore_errors=True)

    def cut_logs(self, step: int) -> None:
        """Drop the lines after a step, which a resumed run will write again, and one that was cut short."""
        for log in (self.log, self.validation):
            if not log.is_file():
                continue
            # A full disk or a kill can leave half a line, which the next would be put behind.
            whole = log.read_bytes().rpartition(b"\n")[0].decode()
            header, *lines = list(csv.reader(io.StringIO(whole))) or [[]]
            if not header:
                log.unlink()
                continue
            kept = io.StringIO()
            lines = [line for line in lines if len(line) == len(header) and int(line[0]) <= step]
            csv.writer(kept).writerows([header, *lines])
            replace_file(log, kept.getvalue().encode())

    def append_row(self, row: Mapping[str, object]) -> None:
        """Add one line to log.csv; the first one brings the header."""
        _append_row(self.log, row)

    def append_validation(self, row: Mapping[str, object]) -> None:
        """Add one line to validation.csv."""
        _append_row(self.validation, row)

    def append_text(self, line: str) -> None:
        """Add one line with the time to log.txt."""
        _append(self.text, f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")

    def write_pictures(self, strips: Sequence[NDArray[np.uint8]]) -> None:
        """Replace the pictures of the newest validation: H x W uint8 each."""
        for index, strip in enumerate(strips):
            encoded = io.BytesIO()
            Image.fromarray(strip).save(encoded, "png")
            replace_file(self.pictures / f"{index:02d}.png", encoded.getvalue())

    def written_pictures(self) -> list[Path]:
        """The pictures there are, in order."""
        return sorted(self.pictures.glob("*.png"))


def _append_row(path: Path, row: Mapping[str, object]) -> None:
    content = io.StringIO()
    writer = csv.DictWriter(content, fieldnames=list(row))
    if not path.is_file():
        writer.writeheader()
    writer.writerow(row)
    _append(path, content.getvalue())


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def refuse_earlier_run(path: Path) -> None:
    """Protect what an earlier run has left in a folder.

    Raises:
        UserError: if there is an interrupted or a finished run.
    """
    if holds_checkpoint(path):
        raise UserError(f"{path} holds an interrupted run; --resume goes on, --overwrite starts anew")
    if (path / _WEIGHTS).is_file():
        raise UserError(f"{path} holds a finished run; give another --out, or --overwrite")


def refuse_earlier_sweep(path: Path) -> None:
    """Protect what an earlier sweep has left in a folder.

    Raises:
        UserError: if there is one.
    """
    if any(path.glob("w_*")):
        raise UserError(f"{path} holds an earlier sweep; --resume goes on, --overwrite starts anew")


def holds_checkpoint(path: Path) -> bool:
    """Whether a run that was interrupted can go on."""
    return any((path / _CHECKPOINTS).glob("step-*"))


def earlier_results(config: TrainConfig) -> list[Path]:
    """What an earlier run, or sweep, in the same folder has left that would pass for this one's."""
    names = [_WEIGHTS, _CHECKPOINTS]
    if isinstance(config, FinetuneConfig) and config.q_weights:
        names = [RESULTS, *(f"w_*/{name}" for name in names)]
    return [found for name in names for found in config.out.glob(name)]


def remove_results(paths: Iterable[Path]) -> None:
    """Remove what `earlier_results` has found."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def finished_card(config: TrainConfig) -> Card | None:
    """The card of the weights, if the configured run has taken all its steps.

    Weights alone do not show it: they are written at every validation.

    Raises:
        UserError: if they were made with other options.
    """
    if holds_checkpoint(config.out) or not (config.out / _WEIGHTS).is_file():
        return None
    _, card = load_weights(config.out / _WEIGHTS)
    done = card.training.get("steps", 0)
    made, here = card.training.get("config", {}), config.recorded()
    for name in made.keys() & here.keys() - _FREE:
        if made[name] != here[name]:
            raise UserError(
                f"{config.out} holds a run where {name} is {made[name]} and not {here[name]}: "
                "go on with the options it had, or give another out"
            )
    return card if done >= config.total_steps(card.training.get("processes", 1)) else None
