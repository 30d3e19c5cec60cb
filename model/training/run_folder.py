"""The folder of a run: config.yaml, log.csv, log.txt, weights.safetensors; state.pt while unfinished."""

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from model.errors import UserError
from model.weights import replace_file

__all__ = ["RunFolder", "refuse_earlier_run"]

_WEIGHTS, _STATE = "weights.safetensors", "state.pt"


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
        self.weights, self.state = path / _WEIGHTS, path / _STATE

    def write_config(self, values: Mapping[str, Any]) -> None:
        """Save the resolved configuration."""
        replace_file(self.config, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())

    def start_log(self) -> None:
        """Empty the logs of an earlier run in the same folder."""
        for file in (self.log, self.text):
            file.unlink(missing_ok=True)

    def cut_log(self, step: int) -> None:
        """Drop the lines after a step, which a resumed run will write again."""
        if not self.log.is_file():
            return
        with self.log.open(newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
        kept = io.StringIO()
        csv.writer(kept).writerows([header, *(line for line in lines if int(line[0]) <= step)])
        replace_file(self.log, kept.getvalue().encode())

    def append_row(self, row: Mapping[str, object]) -> None:
        """Add one line to log.csv; the first one brings the header."""
        fresh = not self.log.is_file()
        with self.log.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def append_text(self, line: str) -> None:
        """Add one line with the time to log.txt."""
        with self.text.open("a") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Save what an interrupted run needs to go on, atomically."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        replace_file(self.state, buffer.getvalue())

    def read_state(self) -> dict[str, Any]:
        """Load what `write_state` saved.

        Raises:
            UserError: if there is none, or it is damaged.
        """
        if not self.state.is_file():
            raise UserError(
                f"{self.path} holds no interrupted run (no {self.state.name}); start one without --resume"
            )
        try:
            return torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever its unpickler meets
            raise UserError(f"{self.state} cannot be read: {error}") from error


def refuse_earlier_run(path: Path) -> None:
    """Protect what an earlier run has left in a folder.

    Raises:
        UserError: if there is an interrupted or a finished run.
    """
    if (path / _STATE).is_file():
        raise UserError(f"{path} holds an interrupted run; --resume goes on, --overwrite starts anew")
    if (path / _WEIGHTS).is_file():
        raise UserError(f"{path} holds a finished run; give another --out, or --overwrite")
