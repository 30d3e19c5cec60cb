"""`bench variants`: all but what needs a GPU."""

from __future__ import annotations

import shutil

import pytest
import torch

from bench import __main__, cuda_inspect, record, variants
from bench.limits import Measured
from qkernel.engines import cuda as engine


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["old"], "a version is NAME=FOLDER, the name a word but cuda or triton, not 'old'"),
        (["a-b=."], "a version is NAME=FOLDER, the name a word but cuda or triton, not 'a-b=.'"),
        (["cuda=."], "a version is NAME=FOLDER, the name a word but cuda or triton, not 'cuda=.'"),
        (["old=nowhere"], "nowhere has no csrc/cuda/engine.cu"),
    ],
)
def test_what_is_no_version_is_an_error_in_one_line(words, message, capsys):
    assert __main__.main(["variants", *words]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so(capsys):
    assert __main__.main(["variants", f"here={record.ROOT}"]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_every_version_is_a_module_of_its_own_and_runs_only_while_it_is_used(tmp_path):
    built = cuda_inspect.built_module()
    if built is None:
        pytest.skip("built without the CUDA toolkit")
    paths = [shutil.copy(built, tmp_path / f"{name}.so") for name in "ab"]
    a, b = (variants.load(name, path) for name, path in zip("ab", paths, strict=True))
    before = engine._cuda
    assert len({id(a), id(b), id(before)}) == 3
    few = before.few_patches()
    assert a.set_few_patches(7) == few and (a.few_patches(), b.few_patches()) == (7, few)

    class Step:
        def loss(self, pred, target):
            ran.append(engine._cuda)
            return pred.sum()

    ran = []
    pixels = torch.rand(2, 1, 1, 8, 8)
    inputs = variants.Inputs.of(*pixels, torch.float32, "cpu")
    step = variants.Variant("q", "a", Step().loss, 1, a).step(inputs, "both")
    step()
    # Once when the step was made.
    assert ran == [a, a] and engine._cuda is before


def test_the_report_has_a_column_for_each_version():
    row = Measured("q", "a", "forward", "float32", 1, 1, 64, 64, "photo", ms_p50=0.0123, share_of_copy=0.9)
    other = Measured("q", "b", "forward", "float32", 1, 1, 64, 64, "photo", note="RuntimeError: too new")
    text = variants.report([row, other], ["a", "b"], record.machine("cpu"))
    assert "## Times\n\n| microseconds (of a copy's bandwidth) | a | b |" in text
    assert "| QLoss 1x1x64x64 float32 forward | 12.3 (90.0%) | RuntimeError: too new |" in text


class _Loss:
    """Of a version that computes something else where its images are ``wrong``."""

    def __init__(self, wrong=None):
        self.wrong = wrong

    def __call__(self, pred, target):
        value = (pred * pred).sum()
        return value * 1.01 if self.wrong and self.wrong(pred) else value


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.shape[-1] == 1032 and x.is_contiguous(),
        lambda x: x.dtype == torch.bfloat16,
        lambda x: not x.is_contiguous(),
    ],
)
def test_a_version_that_computes_something_else_is_not_measured(wrong, monkeypatch):
    made = {"right": _Loss(), "wrong": _Loss(wrong)}

    def losses(name, module):
        return [variants.Variant("q", name, made[name], 1, engine._cuda)]

    monkeypatch.setattr(variants, "losses", losses)
    modules = dict.fromkeys(("right", "wrong"), engine._cuda)
    with pytest.raises(variants.UserError, match="wrong computes something else for q of"):
        variants.check(modules, "cpu")
    made["wrong"] = _Loss()
    variants.check(modules, "cpu")
