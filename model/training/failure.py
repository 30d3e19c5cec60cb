"""What to say when a loss is no longer finite: which term, in which step, on which crop."""

from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object

from model.errors import UserError
from model.training.step import Reading

if TYPE_CHECKING:
    from model.training.trainer import Trainer

__all__ = ["Diverged", "explain_failure"]


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
        restored = trainer.stepper.network(blurred)
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
