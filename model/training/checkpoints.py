"""Checkpoints: all that a run needs to go on, each a folder that is there whole or not at all."""

import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from model.errors import UserError

__all__ = ["Checkpoints"]


class Checkpoints:
    """The folders `step-00001000`, ... of a run.

    Accelerate writes network, optimiser, scaler, random generators and what is registered with it; it is
    written beside, flushed to the disk and then renamed.

    Args:
        folder: where they lie.
        accelerator: what is saved; every process must call the same methods.
        keep: how many, the newest, are kept.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, keep: int = 2) -> None:
        self.folder, self.accelerator, self.keep = folder, accelerator, keep

    @staticmethod
    def found(folder: Path) -> list[Path]:
        """The whole checkpoints in a folder, the oldest first."""
        if not folder.is_dir():
            return []
        names = [path for path in folder.iterdir() if re.fullmatch(r"step-\d+", path.name)]
        return sorted(names, key=lambda path: int(path.name.partition("-")[2]))

    @property
    def last(self) -> Path | None:
        """The newest one."""
        return next(iter(reversed(self.found(self.folder))), None)

    def save(self, step: int) -> Path:
        """Write a checkpoint and drop those beyond `keep`.

        Raises:
            UserError: if it cannot be written (disk full); the ones before are still there.
        """
        target = self.folder / f"step-{step:08d}"
        partial = self.folder / f".{target.name}.partial"
        failure = None
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(partial), safe_serialization=True)
        except (OSError, RuntimeError) as error:
            failure = self._reason(error)
        failure = self._agree(failure)
        if failure is None and self.accelerator.is_main_process:
            try:
                _flush(partial)
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)
            except OSError as error:
                failure = error.strerror or str(error)
        if failure is not None:
            if self.accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            kept = f"; the last good state is {self.last}" if self.last else ""
            raise UserError(f"cannot write the checkpoint {target}: {failure}{kept}")
        if self.accelerator.is_main_process:
            for old in self.found(self.folder)[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
        return target

    def _reason(self, error: Exception) -> str:
        """Why a checkpoint could not be written, in a line."""
        text = str(getattr(error, "strerror", None) or error).strip().splitlines()[0]
        # torch reports a full disk so, safetensors as an OSError.
        if "inline_container" in text or "PytorchStreamWriter" in text:
            free = shutil.disk_usage(self.folder).free / 2**20
            return f"a file could not be written, and its disk has {free:.0f} MiB left; make room"
        return text

    def _agree(self, failure: str | None) -> str | None:
        """What failed in any process, told to all."""
        if self.accelerator.num_processes == 1:
            return failure
        told = [failure]
        for rank in range(self.accelerator.num_processes):
            one = [failure]
            broadcast_object_list(one, from_process=rank)
            told += one
        return next((each for each in told if each), None)

    def restore(self) -> Path:
        """Load the newest checkpoint.

        Raises:
            UserError: if there is none, or it does not fit or cannot be read.
        """
        last = self.last
        if last is None:
            raise UserError(
                f"{self.folder.parent} holds no interrupted run (no {self.folder.name}); "
                "start one without --resume"
            )
        failure = None
        try:
            self.accelerator.load_state(str(last))
        except Exception as error:  # whatever the unpicklers of several formats meet
            failure = [*str(error).strip().splitlines(), repr(error)][0]
        failure = self._agree(failure)
        if failure is not None:
            raise UserError(f"{last} cannot be loaded, or belongs to another configuration: {failure}")
        return last

    def clear(self) -> None:
        """Remove all: the run is finished."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Ask the disk to have the files, before a name says that they are there."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
