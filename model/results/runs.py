"""Fine-tuning runs that may be compared: finished, from the same start, alike in all but the loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import UserError
from model.training.config import FinetuneConfig
from model.weights import Card, load_weights

__all__ = ["CONTROL", "Run", "of_study", "of_sweep", "require_alike", "require_untouched"]

CONTROL = "w=0"
"""The row of the run that goes on with MAE alone."""

# What of a configuration may differ between runs that are compared: the loss, and where they write.
_FREE = {"out", "resume", "overwrite", "loss", "q_weight", "q_weights", "q_definition", "q_eps", "q_offset"}
# What decides which photographs a run has kept from training, and what is measured of them.
_KEPT = ("holdout", "seed", "crop", "blur")


@dataclass(frozen=True)
class Run:
    """Weights of a finished run, and what they say of themselves."""

    weights: Path
    card: Card

    @property
    def config(self) -> Mapping[str, Any]:
        """As the run was configured."""
        return self.card.training["config"]

    @property
    def is_control(self) -> bool:
        """Whether it went on with MAE alone."""
        return self.card.loss.get("weight") == 0


def of_sweep(folder: Path) -> dict[str, Run]:
    """Row name, w=NUMBER -> run, of a folder that `finetune --q_weights` has filled, in order of w.

    Raises:
        UserError: if the control, w = 0, is not among them, or one is not finished.
    """
    runs = [_read(path) for path in folder.glob("w_*/weights.safetensors")]
    weights = {run.card.loss.get("weight"): run for run in runs}
    if 0 not in weights:
        raise UserError(
            f"--sweep {folder} holds no control (w_0/weights.safetensors); make it with "
            "`python -m model finetune ... --q_weights 0,0.001,0.01,0.05,0.1`"
        )
    if None in weights or len(weights) < len(runs):
        raise UserError(f"--sweep {folder} holds runs that are not of one sweep over w; move them elsewhere")
    return {f"w={weight:g}": weights[weight] for weight in sorted(weights)}


def of_study(folder: Path) -> dict[str, Run]:
    """Name of the folder -> run, the control first.

    Raises:
        UserError: if there are none, there is not exactly one control, or one is not finished.
    """
    runs = {path.parent.name: _read(path) for path in sorted(folder.glob("*/weights.safetensors"))}
    if not runs:
        raise UserError(f"--study {folder} holds no runs (NAME/weights.safetensors)")
    controls = [name for name, run in runs.items() if run.is_control]
    if len(controls) != 1:
        raise UserError(f"--study {folder} must hold one control, w = 0, and holds {len(controls)}")
    return dict(sorted(runs.items(), key=lambda one: not one[1].is_control))


def _read(path: Path) -> Run:
    _, card = load_weights(path)
    config = card.training.get("config", {})
    done, wanted = card.training.get("steps"), config.get("steps")
    if not config.get("epochs") and done != wanted:
        raise UserError(f"{path} is of an unfinished run: step {done} of {wanted}")
    return Run(path, card)


def require_alike(runs: Mapping[str, Run], start: Path) -> None:
    """Refuse runs that differ in more than the loss, or that did not begin with the weights at `start`.

    Raises:
        UserError: naming the option and its values.
    """
    # A run of an earlier version lacks the options that came later.
    defaults = FinetuneConfig().recorded()
    (first, one), *others = runs.items()
    for name, other in others:
        here, there = ({**defaults, **run.config} for run in (one, other))
        for key in here.keys() | there.keys():
            if key not in _FREE and here.get(key) != there.get(key):
                raise UserError(
                    f"{first} and {name} cannot be compared: --{key} {here.get(key)} and {there.get(key)}"
                )
    if Path(one.config["weights"]).name != start.name:
        raise UserError(f"{one.weights} began with {one.config['weights']}, not with {start.name}")


def require_untouched(run: Run, start: Card) -> None:
    """Refuse a run that was validated on photographs which the weights it began with were trained on.

    Raises:
        UserError: naming the option and its values.
    """
    before = start.training.get("config", {})
    if run.config["validation"] or not run.config["holdout"]:
        raise UserError(f"{run.weights} kept no photographs from training: --holdout")
    for key in _KEPT:
        if before.get(key) != run.config[key]:
            raise UserError(
                f"{run.weights} and its start kept different photographs from training: --{key} "
                f"{run.config[key]} and {before.get(key)}"
            )
    # A packed card has names without their folders.
    sources = [[Path(one).name for one in config["photographs"]] for config in (before, run.config)]
    if sources[0] != sources[1]:
        raise UserError(f"{run.weights} and its start are of different photographs: {sources}")
