"""`python -m model train` and `finetune`."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from model.command_line import Command, load_config
from model.errors import UserError
from model.processes import processes
from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig
from model.training.earlier_stage import CROPS, differences
from model.training.engine import choose_precision, device_of_process, installed_trackers, process_group
from model.training.failure import memory_explained
from model.training.losses import build_loss
from model.training.run_folder import (
    earlier_results,
    finished_card,
    holds_checkpoint,
    refuse_earlier_run,
    refuse_earlier_sweep,
)
from model.training.start import continued, starting_network
from model.training.sweep import sweep
from model.training.trainer import Outcome, train

__all__ = ["run"]

_FINETUNE = Command("", config="model.training.config:FinetuneConfig", run="", pictures="photographs")


def run(config: TrainConfig) -> int:
    """Train as configured, then the second stage if one is named, and say what to do with the weights.

    Returns:
        The exit code: 1 if a run of a sweep diverged.
    """
    with process_group(config.device):
        return _run(config)


def _run(config: TrainConfig) -> int:
    second = _second_stage(config)
    # A second stage from other weights than this run will make.
    replaced = earlier_results(second) if second and config.overwrite and not config.resume else []
    if isinstance(config, FinetuneConfig) and config.q_weights:
        return _swept(config)
    weights = _one_stage(config, replaced)
    if weights is None:
        return 0
    if second is not None:
        second.overwrite = config.overwrite
        if config.resume:
            second.resume = bool(second.q_weights or holds_checkpoint(second.out) or finished_card(second))
            # Killed before its first checkpoint, or not begun.
            second.overwrite = not second.resume
        if second.q_weights:
            return _swept(second, config.then)
        weights = _one_stage(second, file=config.then)
        if weights is None:
            return 0
    shown = shlex.quote(str(weights))
    say(f"look at                    {weights.parent / 'report.html'}")
    say(f"restore a photograph with: python -m model deblur photo.jpg --weights {shown}")
    if second is None and not isinstance(config, FinetuneConfig):
        folders = shlex.join(map(str, config.photographs))
        say(f"sharpen it with Q:         python -m model finetune {folders} --weights {shown}")
    return 0


def _saved(config: TrainConfig) -> Path | None:
    """The file whose options a run that goes on has."""
    return config.out / "config.yaml" if config.resume else None


def _swept(config: FinetuneConfig, file: Path | None = None) -> int:
    with memory_explained(config, _saved(config) or file):
        return int(None in (sweep(config) or {}).values())


def _one_stage(config: TrainConfig, replaced: Sequence[Path] = (), file: Path | None = None) -> Path | None:
    """The weights of a finished run, whose options `file` has; None where it was interrupted."""
    if config.resume and finished_card(config):
        weights = config.out / "weights.safetensors"
        say(f"finished before: {weights}")
        return weights
    with memory_explained(config, _saved(config) or file):
        outcome: Outcome = train(config, replaced=replaced)
    return outcome.weights if outcome.finished else None


def _second_stage(config: TrainConfig) -> FinetuneConfig | None:
    """The configuration that --then names, checked before the first stage takes its hours."""
    if config.then is None:
        return None
    if isinstance(config, FinetuneConfig):
        raise UserError("--then belongs to `train`: it names the fine-tuning that follows")
    second: FinetuneConfig = load_config(config.then, "finetune", _FINETUNE)
    second.photographs = second.photographs or config.photographs
    second.weights = _first_weights(config, second)
    second.check()
    if processes() > 1 and device_of_process(second.device).type != device_of_process(config.device).type:
        raise UserError(
            f"several processes do both stages on one kind of device, not on {config.device} and then on "
            f"{second.device}; give the second the same device: in {config.then}"
        )
    if second.out == config.out:
        raise UserError(
            f"both stages would write to {config.out}; give the second another out: in {config.then}"
        )
    _try_out(config, second)
    if differing := differences(second, config.recorded(), (*CROPS, "crop", "seed", "holdout", "validation")):
        say(f"the second stage, {config.then}, differs from the first: {differing}")
    return second


def _first_weights(config: TrainConfig, second: FinetuneConfig) -> Path:
    """Those of the first stage that the second starts from: the newest, or the best if its file says so."""
    newest, best = config.out / "weights.safetensors", config.out / "best.safetensors"
    if second.weights is None or second.weights.resolve() == newest.resolve():
        return newest
    if second.weights.resolve() != best.resolve():
        raise UserError(
            f"{config.then} names {second.weights}, but --then starts from the first stage's: "
            f"leave weights away there, or give {best}"
        )
    if not (config.validation or config.holdout):
        raise UserError(
            f"{config.then} starts from {best}, which only validation makes: "
            "give the first stage --holdout or --validation"
        )
    return best


def _try_out(config: TrainConfig, second: FinetuneConfig) -> None:
    """Find what would fail when the first stage is over."""
    if not (config.resume or config.overwrite):
        (refuse_earlier_sweep if second.q_weights else refuse_earlier_run)(second.out)
    for path in (*second.photographs, *second.validation):
        if not path.exists():
            raise UserError(f"{path}, which {config.then} names, does not exist")
    build_loss(second)
    installed_trackers(second)
    choose_precision(second.precision, device_of_process(second.device))
    config.check()
    # Copies: a start notes the network and its arguments.
    first = dataclasses.replace(config)
    network = starting_network(first)
    continued(network, first.network, first.network_args, dataclasses.replace(second))
