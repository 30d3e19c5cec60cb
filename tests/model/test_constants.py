"""What is made once and looked up in every step."""

import subprocess
import sys

import torch

from model.data.constants import constant
from tests.model.conftest import ROOT


def test_it_is_made_once_for_each_of_its_arguments():
    made = []
    look_up = constant(lambda size: made.append(size) or torch.ones(size))
    assert look_up(2) is look_up(2) and look_up(3).shape == (3,) and made == [2, 3]


def test_what_was_kept_can_be_trained_through():
    look_up = constant(lambda: torch.ones(3))
    with torch.inference_mode():
        look_up()
    weight = torch.ones(3, requires_grad=True)
    (look_up() * weight).sum().backward()
    assert weight.grad.tolist() == [1, 1, 1]


def test_commands_that_compile_nothing_do_not_wait_for_the_compiler():
    """torch._dynamo and scipy.stats take longer to import than torch."""
    program = (
        "import sys, model.photo.command, model.evaluation.command, model.training.command;"
        "sys.exit(', '.join({'torch._dynamo', 'scipy.stats'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
