"""What the Triton engine says where it cannot run, and that qkernel does without it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from qkernel import Definition
from qkernel.engines import triton as engine


def test_cpu_tensors_are_refused_with_a_way_out():
    assert "engine='cpp'" in engine.refusal(torch.zeros(1, 1, 8, 8), Definition())


class _OnGPU:
    """As much of a CUDA tensor as a refusal looks at."""

    device = torch.device("cuda", 0)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


@pytest.mark.parametrize(
    ("dtype", "patch_size", "words"),
    [(torch.float64, 8, "torch.float64"), (torch.float32, 5, "4, 8 or 16, not 5")],
)
def test_what_the_kernels_cannot_do_is_refused_with_a_way_out(dtype, patch_size, words):
    reason = engine.refusal(_OnGPU(dtype), Definition(patch_size=patch_size))
    assert words in reason and "engine='eager'" in reason


def test_old_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    engine._too_old.cache_clear()
    assert "Tesla V100 has compute capability 7.0" in engine.refusal(_OnGPU(torch.float32), Definition())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 0))
    engine._too_old.cache_clear()
    assert engine.refusal(_OnGPU(torch.float32), Definition()) is None
    engine._too_old.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_engine_is_missing_with_a_way_out():
    assert "engine='cpp'" in engine.missing()


def test_an_old_triton_is_missing_with_a_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    old = type(sys)("triton")
    old.__version__ = "3.5.1"
    for module, words in ((old, "not 3.5.1"), (None, "pip install 'qkernel[triton]'")):
        monkeypatch.setitem(sys.modules, "triton", module)
        engine.missing.cache_clear()
        assert words in engine.missing()
    engine.missing.cache_clear()


def test_qkernel_works_without_triton():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, qkernel\n"
        "from qkernel.engines import triton as engine\n"
        "assert engine.missing()\n"
        "assert qkernel.q_metric(torch.rand(16, 16), engine='eager').isfinite()\n"
        "assert not any(name.startswith('qkernel.engines.triton_kernels') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_double_precision_target_is_refused():
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="not torch\\.float64"):
        engine.pixel_q(x, x.double(), "l1", 1e-3, Definition(), None, 0.1, "mean")
