"""Which engine runs: by name or not at all, and "auto" says so when only the slow one is left."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import qkernel.engines
from qkernel import Definition, MAEQLoss, QLoss, q_metric
from qkernel.engines import ENGINES, choose

from ..conftest import ENGINE_DEVICES

X = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + torch.arange(16) / 2
DEFINITION = QLoss().definition


@pytest.fixture(autouse=True)
def warn_again():
    qkernel.engines._warn_eager.cache_clear()
    yield
    qkernel.engines._warn_eager.cache_clear()


@pytest.fixture
def without_cpp(monkeypatch):
    monkeypatch.setattr(ENGINES["cpp"], "missing", lambda: "built without a C++ compiler")


def test_every_registered_engine_is_tested():
    assert set(ENGINES) <= set(ENGINE_DEVICES)


@pytest.mark.parametrize("name", ENGINES)
def test_engines_have_the_whole_interface(name):
    for member in ("missing", "refusal", "q", "q_grad", "pixel_q", "pixel_q_grad"):
        assert callable(getattr(ENGINES[name], member, None)), member
    assert ENGINES[name].missing() is None or isinstance(ENGINES[name].missing(), str)


def test_an_engine_asked_for_by_name_runs(engine, device):
    assert choose(engine, X.to(device), DEFINITION) is ENGINES[engine]


@pytest.mark.parametrize("call", [q_metric, lambda x, engine: QLoss(engine=engine)(x)])
def test_a_missing_engine_asked_for_by_name_is_an_error_that_says_why(without_cpp, call):
    with pytest.raises(RuntimeError, match=r"'cpp' is not available.*built without a C\+\+ compiler"):
        call(X, engine="cpp")


def test_a_missing_engine_is_an_error_in_the_fused_loss_too(without_cpp):
    with pytest.raises(RuntimeError, match="'cpp' is not available"):
        MAEQLoss(engine="cpp")(X, X)


def test_an_unknown_engine_is_an_error_that_lists_the_others():
    with pytest.raises(ValueError, match=r"unknown engine 'fortran'.*'auto'.*'cpp'.*'eager'"):
        q_metric(X, engine="fortran")


def test_an_input_an_engine_cannot_take_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(ENGINES["cpp"], "missing", lambda: None)
    monkeypatch.setattr(ENGINES["cpp"], "refusal", lambda x, d, target: "patches of 8 are too square")
    with pytest.raises(ValueError, match="'cpp' cannot take this input: patches of 8 are too square"):
        q_metric(X, engine="cpp")


@pytest.mark.parametrize("engine", ["cpp"], indirect=True)
def test_auto_takes_the_compiled_engine_on_the_cpu(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", X, DEFINITION) is ENGINES["cpp"]
        assert q_metric(X) == q_metric(X, engine="cpp") > 0


def test_auto_with_only_eager_left_warns_once_with_the_reason(without_cpp):
    with pytest.warns(
        UserWarning, match="slower.*cpp: built without a C\\+\\+ compiler.*engine='eager'"
    ) as seen:
        first = q_metric(X)
        second = q_metric(X)
        QLoss()(X.clone().requires_grad_()).backward()
    assert len(seen) == 1 and seen[0].filename == __file__
    assert first == second == q_metric(X, engine="eager")


@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_warning_names_the_users_line(without_cpp, requires_grad):
    x = X.clone().requires_grad_(requires_grad)
    with pytest.warns(UserWarning, match="slower") as seen:
        MAEQLoss()(x, X)
    assert seen[0].filename == __file__


def test_auto_falls_back_where_an_engine_refuses_the_input(monkeypatch):
    monkeypatch.setattr(ENGINES["cpp"], "missing", lambda: None)
    monkeypatch.setattr(ENGINES["cpp"], "refusal", lambda x, d, target: "no such patches")
    with pytest.warns(UserWarning, match="cpp: no such patches"):
        assert choose("auto", X, DEFINITION) is ENGINES["eager"]


def test_auto_sees_the_target_too(monkeypatch):
    """Triton, the first choice for patches of 16, takes no double precision; CUDA does."""
    for name in ("cuda", "triton"):
        monkeypatch.setattr(ENGINES[name], "missing", lambda: None)
    monkeypatch.setattr(ENGINES["cuda"], "refusal", lambda x, d, target: None)
    monkeypatch.setattr(ENGINES["triton"], "_too_old", lambda device: None)
    with FakeTensorMode():
        x = torch.empty(1, 1, 32, 32, device="cuda")
        chosen = [choose("auto", x, Definition(patch_size=16), t) for t in (None, x.half(), x.double())]
        with pytest.raises(ValueError, match=r"'triton' cannot take this input: .* not torch\.float64"):
            choose("triton", x, DEFINITION, x.double())
    assert chosen == [ENGINES["triton"], ENGINES["triton"], ENGINES["cuda"]]


def test_the_fused_loss_shows_its_target_to_the_engines(monkeypatch):
    monkeypatch.setattr(ENGINES["cpp"], "missing", lambda: None)
    monkeypatch.setattr(ENGINES["cpp"], "refusal", lambda x, d, target: f"no {target.dtype} target")
    x = X.clone().requires_grad_()
    with pytest.warns(UserWarning, match="cpp: no torch.float64 target"):
        MAEQLoss()(x, X.double()).backward()
    assert x.grad.isfinite().all()


def test_eager_asked_for_by_name_does_not_warn(without_cpp):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q_metric(X, engine="eager")


def test_engines_agree_with_each_other(engine, device):
    x = torch.rand(2, 3, 40, 72).to(device)
    for definition in ("zhu2010", "mmsp2024", "pythonq"):
        torch.testing.assert_close(
            q_metric(x, definition, delta=0.9, engine=engine),
            q_metric(x, definition, delta=0.9, engine="eager"),
            rtol=1e-5,
            atol=0,
        )
