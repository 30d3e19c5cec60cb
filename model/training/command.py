"""`python -m model train` and `finetune`."""

import shlex

from model.progress import say
from model.training.config import FinetuneConfig, TrainConfig
from model.training.trainer import train

__all__ = ["run"]


def run(config: TrainConfig) -> None:
    """Train as configured, and say what to do with the weights."""
    outcome = train(config)
    if not outcome.finished:
        return
    weights = shlex.quote(str(outcome.weights))
    say(f"restore a photograph with: python -m model deblur photo.jpg --weights {weights}")
    if not isinstance(config, FinetuneConfig):
        folders = shlex.join(map(str, config.photographs))
        say(f"sharpen it with Q:         python -m model finetune {folders} --weights {weights}")
