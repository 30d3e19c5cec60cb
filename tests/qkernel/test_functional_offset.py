"""The patch grid's offset as data: random, restorable, fresh at every call, also when compiled."""

from __future__ import annotations

import pytest
import torch

from qkernel import MAEQLoss, QLoss, mae_q_loss, q_loss, q_metric

# Noise at a threshold near 0: every patch counts, so that every grid has its own value.
X = torch.rand(1, 1, 40, 44, generator=torch.Generator().manual_seed(0))
ALL = {"definition": "mmsp2024", "delta": 0.999}


def _values_by_offset(engine, device, size=(16, 16)):
    x = X[..., : size[0], : size[1]].to(device)
    limits = [min(7, s - 8) for s in size]
    return {
        # In a tensor, as "random" draws it: Triton rounds otherwise where there is no offset at all.
        (dy, dx): q_metric(
            x, offset=torch.tensor([dy, dx], dtype=torch.int32, device=device), engine=engine, **ALL
        ).item()
        for dy in range(limits[0] + 1)
        for dx in range(limits[1] + 1)
    }


def _random_state(device):
    """Of the default generator that draws for this device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _restore(state, device):
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


@pytest.mark.parametrize("size", [(16, 16), (10, 15), (8, 9)])
def test_random_offsets_reach_every_grid_that_fits_and_no_other(engine, device, size):
    by_offset = _values_by_offset(engine, device, size)
    values = {round(value, 7): offset for offset, value in by_offset.items()}
    assert len(values) == len(by_offset), "the values tell the offsets apart"
    x = X[..., : size[0], : size[1]].to(device)
    seen = set()
    for _ in range(12 * len(values)):
        got = q_metric(x, offset="random", engine=engine, **ALL).item()
        seen.add(values[round(got, 7)])
    # 12 draws for each: the chance that one of 64 is missed is 64 exp(-12), 4e-4, and the seed is fixed.
    assert seen == set(by_offset)


def test_random_offsets_come_from_the_default_generator_and_are_restorable(engine, device):
    x = X.to(device)
    state = _random_state(device)
    first = [q_metric(x, offset="random", engine=engine, **ALL).item() for _ in range(5)]
    _restore(state, device)
    assert first == [q_metric(x, offset="random", engine=engine, **ALL).item() for _ in range(5)]
    assert len(set(first)) > 1
    torch.manual_seed(7)
    one = q_metric(x, offset="random", engine=engine, **ALL)
    torch.manual_seed(7)
    assert one == q_metric(x, offset="random", engine=engine, **ALL)


def test_a_fixed_offset_draws_nothing(engine, device):
    state = _random_state(device)
    q_metric(X.to(device), offset=(1, 2), engine=engine)
    assert torch.equal(state, _random_state(device))


def test_the_backward_uses_the_grid_of_its_forward(engine, device):
    for loss in (
        lambda x: q_loss(x, offset="random", delta=0.999, engine=engine),
        lambda x: mae_q_loss(x, torch.zeros_like(x), 0.5, offset="random", delta=0.999, engine=engine),
    ):
        for _ in range(5):
            x = X.to(device).clone().requires_grad_()
            value = loss(x)
            loss(X.to(device))
            (gradient,) = torch.autograd.grad(value, x)
            # Q is homogeneous of degree 1 in contrast (Euler): <x, dQ/dx> = Q on that grid and no other.
            torch.testing.assert_close((gradient * x).sum(), value, rtol=1e-4, atol=1e-6)


def test_a_tensor_offset_may_change_after_the_forward_only_at_ones_peril(engine, device):
    x = X.to(device).clone().requires_grad_()
    offset = torch.tensor([2, 3], dtype=torch.int32, device=device)
    value = q_metric(x, offset=offset, engine=engine, **ALL)
    offset.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("offset", [(8, 0), (0, 9), (-1, 0), (0, -50), (50, 50), (7, 40)])
def test_an_offset_out_of_range_that_was_not_checked_gives_no_number(offset):
    """As where its values cannot be read: on a GPU, and in a compiled function."""
    offset = torch.tensor(offset, dtype=torch.int32)
    settings = ("zhu2010", 8, 1e-3, 1.0, 0.0, offset, 1.0, "mean", "eager")
    assert torch.ops.qkernel.q(X, *settings).isnan()
    assert torch.ops.qkernel.pixel_q(X, X, "l1", 1e-3, *settings)[0].isnan()


def test_an_image_of_one_patch_has_one_grid(engine, device):
    x = X[..., :8, :8].to(device)
    want = q_metric(x, engine=engine, **ALL)
    for _ in range(5):
        got = q_metric(x, offset="random", engine=engine, **ALL)
        if engine == "triton":
            # Without an offset it takes its path for aligned rows, which adds in another order.
            torch.testing.assert_close(got, want, rtol=1e-5, atol=0)
        else:
            assert got == want


@pytest.mark.parametrize("make", [QLoss, MAEQLoss])
def test_compiled_losses_draw_a_fresh_grid_at_every_call(make):
    loss = make(offset="random", engine="eager", **ALL)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x = X[..., :16, :16]
    values = [compiled(x, x).item() for _ in range(20)]
    assert len(set(values)) > 5
    # The same draws as without compilation, so that a run can be repeated either way.
    torch.manual_seed(3)
    got = [compiled(x, x).item() for _ in range(5)]
    torch.manual_seed(3)
    assert got == pytest.approx([loss(x, x).item() for _ in range(5)], rel=1e-6)


def test_an_exported_loss_draws_a_grid_that_fits_pictures_of_other_sizes():
    sides = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    program = torch.export.export(
        QLoss(offset="random", **ALL), (torch.rand(1, 1, 32, 48),), dynamic_shapes=(sides,)
    ).module()
    high, wide = torch.rand(1, 1, 64, 9), torch.rand(1, 1, 8, 40)
    for x in (high, wide):
        values = {program(x).item() for _ in range(12)}
        assert len(values) > 2 and all(-1 < value < 0 for value in values)


def test_inductor_draws_a_fresh_grid_at_every_call(engine, device):
    loss = QLoss(offset="random", engine=engine, **ALL)
    compiled = torch.compile(loss, fullgraph=True)
    x = X[..., :16, :16].to(device)
    allowed = [-v for v in _values_by_offset(engine, device).values()]
    values = [compiled(x).item() for _ in range(12)]
    assert len(set(values)) > 3
    assert all(min(abs(v - a) for a in allowed) < 1e-6 for v in values)
