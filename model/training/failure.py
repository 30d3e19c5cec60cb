"""What to say when a loss is no longer finite, or the GPU's memory does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object

from model.errors import UserError, memory_error
from model.training.config import TrainConfig
from model.training.step import Reading

if TYPE_CHECKING:
    from model.training.trainer import Trainer

__all__ = ["Diverged", "explain_failure", "memory_explained"]


class Diverged(UserError):
    """A loss or a gradient is no longer finite."""


_WORDS = {"grad_norm": "the gradient", "loss": "the loss"}


@torch.no_grad()
def explain_failure(trainer: "Trainer", reading: Reading) -> str:
    """One line: the term, the step, the crops at fault, the last good state and what may help.

    The weights have stood still since the failing step, so its crops are simply restored once more.

    Args:
        trainer: the run that failed.
        reading: with `failed` set.
    """
    config = trainer.config
    assert reading.failed is not None
    blurred, sharp = trainer.inputs.at(reading.failed)
    with trainer.accelerator.autocast():
        restored = torch.cat([trainer.stepper.network(one) for one in blurred.split(config.at_a_time)])
    per_crop = (restored.float() - sharp).abs().sum((1, 2, 3)) + blurred.sum((1, 2, 3))
    bad = torch.nonzero(~torch.isfinite(per_crop)).flatten().tolist()
    where = ""
    if len(bad) == len(per_crop):
        where = f", in all {len(bad)} crops"
    elif bad:
        batches = trainer.inputs.batches
        places = batches.plan.places(batches.first(reading.failed), batches.batch)[bad[0] : bad[0] + 1]
        name = batches.plan.images.names[int(places.image[0])]
        where = f", in the crop at x = {places.left[0]}, y = {places.top[0]} of {name}"
        where += f" and {len(bad) - 1} more" * (len(bad) > 1)
    if trainer.world > 1:
        # The crop may be another process's.
        where = next((one for one in gather_object([where]) if one), "")
    term = _WORDS.get(reading.wrong, f"the term {reading.wrong!r}") if reading.wrong else "the loss"
    last = trainer.checkpoints.last
    kept = f"the last good state is {last}" if last else "no checkpoint was due before"
    return (
        f"{term} is not finite at step {reading.failed + 1}{where}; {kept}; "
        f"a lower --lr than {config.lr:g} may help"
        + ("" if config.clip_norm else ", or --clip_norm 1")
        + (", or --precision float32" if trainer.accelerator.mixed_precision != "no" else "")
    )


@contextmanager
def memory_explained(config: TrainConfig, file: Path | None = None) -> Iterator[None]:
    """Name the options that a run takes less memory with, where a GPU's does not suffice.

    Args:
        config: the run's.
        file: where its options are to be changed, if not on the command line.

    Raises:
        UserError: for torch's error, which says how much was free.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        divisors = [n for n in range(config.accumulate + 1, config.batch + 1) if config.batch % n == 0]
        several = f"--accumulate {divisors[0]}, the same batch in as many parts, or " if divisors else ""
        advice = f"give {several}less than --batch {config.batch} or --crop {config.crop}"
        if config.memory != "stream":
            advice += ", or leave the photographs on the host by --memory stream"
        raise memory_error(error, advice + (f", in {file}" if file else "")) from None
