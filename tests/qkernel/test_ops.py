"""The registered operators: schema, fake tensors, tracing, compilation and export."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from qkernel import MAEQLoss, QLoss, mae_q_loss, q_loss, q_metric

from ..conftest import takes

OPS = torch.ops.qkernel
OPCHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def _tail(definition="zhu2010", n=8, eps=0.0, offset=None, weight=1.0, reduction="mean", engine="eager"):
    return definition, n, 1e-3, 1.0, eps, offset, weight, reduction, engine


def _images(*shape, dtype=torch.float32, device="cpu", requires_grad=False):
    ramp = torch.arange(shape[-1], device=device) / 8
    return (torch.rand(*shape, device=device) * 0.3 + ramp).to(dtype).requires_grad_(requires_grad)


def _samples(name, engine, device):
    """Arguments of one op: reductions, offsets, dtypes, channels, strides, with and without gradients."""
    offset = torch.tensor([1, 3], dtype=torch.int32, device=device)
    another_size = 5 if takes(engine, patch_size=5) else 4
    cases = [
        ((2, 1, 17, 26), torch.float32, True, _tail(engine=engine), torch.contiguous_format),
        (
            (2, 3, 17, 26),
            torch.float32,
            True,
            _tail("mmsp2024", another_size, engine=engine, weight=-0.5),
            torch.channels_last,
        ),
        (
            (1, 1, 16, 16),
            torch.float64 if takes(engine, torch.float64) else torch.float32,
            True,
            _tail("pythonq", 4, eps=0.01, offset=offset, engine=engine),
            None,
        ),
        ((3, 1, 20, 20), torch.bfloat16, True, _tail(reduction="none", engine=engine), None),
        ((2, 3, 16, 24), torch.float16, False, _tail(reduction="sum", offset=offset, engine=engine), None),
    ]
    for shape, dtype, requires_grad, tail, layout in cases:
        x = _images(*shape, dtype=dtype, device=device)
        target = _images(*shape, dtype=dtype, device=device)
        if layout is not None:
            x = x.contiguous(memory_format=layout)
        x.requires_grad_(requires_grad)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        grad_output = torch.rand(shape[:1] if tail[-2] == "none" else (), dtype=wide, device=device)
        pixel = ("charbonnier", 1e-2)
        yield {
            "q": (x, *tail),
            "q_grad": (grad_output, x, *tail),
            "pixel_q": (x, target, *pixel, *tail),
            "pixel_q_grad": (grad_output, x, target, *pixel, *tail),
        }[name]


@pytest.mark.parametrize("name", ["q", "q_grad", "pixel_q", "pixel_q_grad"])
def test_opcheck_finds_nothing(name, engine, device):
    op = getattr(OPS, name).default
    for arguments in _samples(name, engine, device):
        if name.endswith("grad"):
            # Tracing the second derivative takes 10 s a sample: below, once for each op.
            torch.library.opcheck(op, arguments, test_utils=OPCHECKS[:3])
            arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
        torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("name", ["q_grad", "pixel_q_grad"])
def test_opcheck_finds_nothing_in_the_second_derivative(name):
    """It is the reference's, whichever the engine."""
    arguments = list(_samples(name, "auto", "cpu"))[1]
    torch.library.opcheck(getattr(OPS, name).default, arguments, test_utils=OPCHECKS[3])


@pytest.mark.parametrize("name", ["q", "q_grad", "pixel_q", "pixel_q_grad"])
def test_fake_results_have_the_metadata_of_real_ones(name, engine, device):
    for arguments in _samples(name, engine, device):
        arguments = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
        real = getattr(OPS, name)(*arguments)
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
            result = getattr(OPS, name)(*fake)
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (real, result)), strict=True):
            assert (a.shape, a.dtype, a.stride(), a.device) == (b.shape, b.dtype, b.stride(), b.device)


@pytest.mark.parametrize("name", ["q", "pixel_q"])
def test_the_ops_own_autograd_equals_the_functions(name, engine, device):
    for arguments in _samples(name, engine, device):
        tensors = 1 if name == "q" else 2
        images = [a.detach().clone().requires_grad_() for a in arguments[:tensors]]
        rest = arguments[tensors:]
        value = getattr(OPS, name)(*images, *rest)
        value = value[0] if name == "pixel_q" else value
        definition, n, _, _, eps, offset, weight, reduction, chosen = rest[-9:]
        settings = {
            "definition": definition,
            "patch_size": n,
            "offset": (0, 0) if offset is None else offset,
            "reduction": reduction,
            "engine": chosen,
            "eps": eps,
        }
        others = [a.detach().clone().requires_grad_() for a in images]
        if name == "q":
            other = weight * q_metric(*others, **settings)
        else:
            other = mae_q_loss(*others, weight, *rest[:2], **settings)
        torch.testing.assert_close(value, other, rtol=1e-6, atol=0)
        grad_output = torch.ones_like(value)
        for a, b in zip(
            torch.autograd.grad(value, images, grad_output),
            torch.autograd.grad(other, others, grad_output),
            strict=True,
        ):
            # For half precision the weight is multiplied in on the other side of a rounding.
            torch.testing.assert_close(a, b, rtol=2 * torch.finfo(a.dtype).eps, atol=1e-8)


def _step(loss):
    def step(pred, target):
        value = loss(pred, target)
        return value, *torch.autograd.grad(value.sum(), pred)

    return step


LOSSES = {
    "QLoss": lambda engine: QLoss(0.5, "pythonq", 4, engine=engine),
    "QLoss none": lambda engine: QLoss(reduction="none", offset=(1, 2), engine=engine),
    "MAEQLoss": lambda engine: MAEQLoss(0.1, engine=engine),
    "MAEQLoss charbonnier": lambda engine: MAEQLoss(0.1, "charbonnier", definition="mmsp2024", engine=engine),
}


@pytest.mark.parametrize("name", LOSSES)
def test_compiled_without_a_break_equals_eager(name, engine, device):
    """Forward and backward, traced by Dynamo and AOTAutograd; a change of size is no new graph."""
    torch._dynamo.reset()
    loss = LOSSES[name](engine)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=False):
        for size in ((2, 1, 24, 33), (3, 1, 40, 25), (4, 1, 17, 48)):
            target = _images(*size, device=device)
            pred = [_images(*size, device=device, requires_grad=True) for _ in range(2)]
            with torch.no_grad():
                pred[1].copy_(pred[0])
            with torch._dynamo.config.patch(error_on_recompile=size[0] != 2):
                values = compiled(pred[0], target), loss(pred[1], target)
            torch.testing.assert_close(*values, rtol=1e-6, atol=0)
            for value in values:
                value.sum().backward()
            torch.testing.assert_close(pred[0].grad, pred[1].grad, rtol=1e-5, atol=1e-9)


def test_inductor_compiles_a_network_with_the_loss(engine, device):
    torch._dynamo.reset()
    network = torch.nn.Conv2d(1, 1, 3, padding=1).to(device)
    loss = MAEQLoss(0.1, return_terms=True, engine=engine)

    def step(x, target):
        value, terms = loss(network(x) + x, target)
        return value, terms["pixel"], terms["q"]

    x, target = _images(2, 1, 24, 40, device=device), _images(2, 1, 24, 40, device=device)
    results = []
    for function in (step, torch.compile(step, fullgraph=True)):
        network.zero_grad()
        values = function(x, target)
        values[0].backward()
        results.append((*(v.detach() for v in values), network.weight.grad.clone()))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_target_gradient_compiles_too(engine, device):
    torch._dynamo.reset()
    loss = MAEQLoss(0.1, engine=engine)
    pred, target = (_images(1, 3, 16, 24, device=device, requires_grad=True) for _ in range(2))
    want = torch.autograd.grad(loss(pred, target), (pred, target))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(pred, target), (pred, target)), want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
def test_the_metric_compiles_for_pictures(engine, device, dtype):
    torch._dynamo.reset()
    picture = (torch.rand(3, 20, 28) * 30 + torch.arange(28) * 8).to(device, dtype)
    compiled = torch.compile(
        lambda x: q_metric(x, data_range=255.0, reduction="none", engine=engine),
        fullgraph=True,
        backend="aot_eager",
    )
    want = q_metric(picture, data_range=255.0, engine=engine)
    assert want > 0
    torch.testing.assert_close(compiled(picture), want)


def test_a_schedule_of_weights_in_a_tensor_is_one_graph():
    torch._dynamo.reset()
    loss = QLoss(engine="eager")
    compiled = torch.compile(lambda x, w: w * loss(x), fullgraph=True, backend="eager")
    x = _images(1, 1, 16, 24)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(10):
            torch.testing.assert_close(compiled(x, torch.tensor(0.1 * step)), 0.1 * step * loss(x))


def test_wrong_arguments_are_refused_under_compile_too():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: q_loss(x, engine="eager"), backend="aot_eager")
    with pytest.raises(Exception, match="smaller than one patch"):
        compiled(torch.rand(1, 1, 7, 7))


@pytest.mark.parametrize("make", [QLoss, MAEQLoss])
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_programs_compute_the_loss(make, dynamic, engine, device):
    loss = make(0.1, engine=engine)
    x, y = _images(2, 1, 24, 32, device=device), _images(2, 1, 24, 32, device=device)
    shapes = None
    if dynamic:
        batch, height = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("height", min=8, max=4096)
        shapes = ({0: batch, 2: height}, {0: batch, 2: height})
    program = torch.export.export(loss, (x, y), dynamic_shapes=shapes)
    sizes = ((2, 1, 24, 32), (5, 1, 50, 32)) if dynamic else ((2, 1, 24, 32),)
    for size in sizes:
        x, y = _images(*size, device=device), _images(*size, device=device)
        torch.testing.assert_close(program.module()(x, y), loss(x, y))


def test_make_fx_traces_the_loss_and_its_gradient(engine, device):
    step = _step(MAEQLoss(0.1, engine=engine))
    pred, target = (
        _images(2, 1, 16, 24, device=device, requires_grad=True),
        _images(2, 1, 16, 24, device=device),
    )
    # The tracer sees only its own thread, and a GPU's backward passes have one of theirs.
    with torch.autograd.set_multithreading_enabled(False):
        traced = make_fx(step, tracing_mode="fake")(pred, target)
    called = {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
    assert {"qkernel.pixel_q.default", "qkernel.pixel_q_grad.default"} <= called
    for a, b in zip(traced(pred, target), step(pred, target), strict=True):
        torch.testing.assert_close(a, b)


def test_ops_work_under_inference_mode_and_no_grad(engine, device):
    x = _images(1, 1, 16, 16, device=device, requires_grad=True)
    want = q_metric(x, engine=engine)
    assert want.requires_grad
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            got = q_metric(x, engine=engine)
            assert got == want and not got.requires_grad
