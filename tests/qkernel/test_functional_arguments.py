"""Wrong arguments are refused early, in words that name the value and the way out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from qkernel import MAEQLoss, QLoss, mae_q_loss, q_loss, q_map, q_metric

GREY = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))


def _refused(error, words, function, *arguments, **keywords):
    with pytest.raises(error) as raised:
        function(*arguments, **keywords)
    for word in words:
        assert word in str(raised.value), f"{word!r} is not in {raised.value}"


def _mae(x, **keywords):
    return mae_q_loss(x, x, **keywords)


LOSSES = {"q_loss": q_loss, "mae_q_loss": _mae, "QLoss": QLoss(), "MAEQLoss": lambda x: MAEQLoss()(x, x)}
METRICS = {"q_metric": q_metric, "q_map": q_map}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    "x, error, words",
    [
        (GREY[0], ValueError, ("N x 1 x H x W", "(1, 16, 24)")),
        (GREY[0, 0], ValueError, ("N x 1 x H x W", "(16, 24)")),
        (GREY[None], ValueError, ("N x 1 x H x W", "(1, 2, 1, 16, 24)")),
        (torch.rand(1, 2, 16, 16), ValueError, ("N x 3 x H x W", "(1, 2, 16, 16)")),
        (torch.rand(1, 16, 16, 3), ValueError, ("N x 3 x H x W", "(1, 16, 16, 3)")),
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), TypeError, ("uint8", "x.float() / 255")),
        (torch.zeros(1, 1, 16, 16, dtype=torch.int64), TypeError, ("int64", "float32")),
        (torch.zeros(1, 1, 16, 16, dtype=torch.bool), TypeError, ("bool",)),
        (torch.zeros(1, 1, 16, 16, dtype=torch.complex64), TypeError, ("complex64",)),
        (torch.rand(1, 1, 7, 16), ValueError, ("7 x 16", "smaller than one patch", "8 x 8")),
        (torch.rand(1, 3, 16, 7), ValueError, ("16 x 7", "smaller than one patch", "8 x 8")),
        (torch.rand(1, 1, 0, 0), ValueError, ("0 x 0", "smaller than one patch")),
        (np.zeros((1, 1, 16, 16)), TypeError, ("torch.Tensor", "ndarray")),
        (None, TypeError, ("torch.Tensor", "NoneType")),
        ([[1.0]], TypeError, ("torch.Tensor", "list")),
    ],
)
def test_losses_refuse_what_is_no_batch_of_float_images(loss, x, error, words):
    _refused(error, words, loss, x)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    "x, error, words",
    [
        (GREY[None], ValueError, ("H x W", "(1, 2, 1, 16, 24)")),
        (GREY[0, 0, 0], ValueError, ("H x W", "(24,)")),
        (torch.tensor(1.0), ValueError, ("H x W", "()")),
        (torch.rand(16, 16, 3), ValueError, ("1 or 3 channels", "16", "before height and width")),
        (torch.rand(1, 4, 16, 16), ValueError, ("1 or 3 channels", "4")),
        (torch.zeros(16, 16, dtype=torch.int32), TypeError, ("int32", "uint8")),
        (torch.zeros(16, 16, dtype=torch.bool), TypeError, ("bool", "uint8")),
        (torch.zeros(7, 16), ValueError, ("7 x 16", "smaller than one patch")),
        (np.zeros((16, 16)), TypeError, ("torch.Tensor", "ndarray")),
        ("photo.jpg", TypeError, ("torch.Tensor", "str")),
    ],
)
def test_metrics_refuse_what_is_no_picture(metric, x, error, words):
    _refused(error, words, metric, x)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_eight_bit_pictures_have_no_other_data_range(metric):
    picture = torch.zeros(16, 16, dtype=torch.uint8)
    _refused(ValueError, ("uint8", "255", "1023"), metric, picture, data_range=1023.0)


EVERYWHERE = {
    "q_metric": q_metric,
    "q_map": q_map,
    "q_loss": q_loss,
    "mae_q_loss": _mae,
    "QLoss": lambda x, **k: QLoss(**k)(x),
    "MAEQLoss": lambda x, **k: MAEQLoss(**k)(x, x),
}


@pytest.mark.parametrize("function", EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize(
    "keywords, error, words",
    [
        ({"definition": "zhu2011"}, ValueError, ("'zhu2011'", "zhu2010", "mmsp2024", "pythonq")),
        ({"patch_size": 2}, ValueError, ("at least 3", "2")),
        ({"patch_size": 8.5}, TypeError, ("patch_size", "8.5")),
        ({"patch_size": 17}, ValueError, ("16 x 24", "17 x 17")),
        ({"delta": 0}, ValueError, ("delta", "between 0 and 1", "0")),
        ({"delta": 1.5}, ValueError, ("delta", "between 0 and 1", "1.5")),
        ({"data_range": 0.0}, ValueError, ("data_range", "positive", "0.0")),
        ({"eps": -1.0}, ValueError, ("eps", "-1.0")),
        ({"offset": (8, 0)}, ValueError, ("offset dy", "between 0 and 7", "8")),
        ({"offset": (0, -1)}, ValueError, ("offset dx", "between 0 and 7", "-1")),
        ({"offset": (1, 2, 3)}, ValueError, ("offset", "(1, 2, 3)", "'random'")),
        ({"offset": 3}, ValueError, ("offset", "3", "'random'")),
        ({"offset": None}, ValueError, ("offset", "None", "'random'")),
        ({"offset": (0.5, 0)}, ValueError, ("offset", "(0.5, 0)")),
        ({"offset": (math.nan, 0)}, ValueError, ("offset", "nan")),
        ({"offset": "rand"}, ValueError, ("offset", "'rand'", "'random'")),
        ({"offset": torch.tensor([0, 9])}, ValueError, ("offset dx", "between 0 and 7", "9")),
        ({"offset": torch.tensor([1, 2, 3])}, ValueError, ("offset", "two integers", "(3,)")),
        ({"offset": torch.tensor([1.0, 2.0])}, ValueError, ("offset", "two integers", "float32")),
        ({"offset": torch.tensor([True, False])}, ValueError, ("offset", "two integers", "bool")),
    ],
)
def test_every_function_and_module_refuses_the_same_settings(function, keywords, error, words):
    _refused(error, words, function, GREY, **keywords)


@pytest.mark.parametrize("function", EVERYWHERE.values(), ids=EVERYWHERE)
def test_offsets_must_leave_a_patch_of_the_image(function):
    words = ("offset dy", "between 0 and 2", "3", "10 x 24")
    _refused(ValueError, words, function, GREY[..., :10, :], offset=(3, 0))


@pytest.mark.parametrize("function", [f for f in EVERYWHERE if f != "q_map"])
@pytest.mark.parametrize(
    "keywords, error, words",
    [
        ({"reduction": "average"}, ValueError, ("'average'", "mean", "sum", "none")),
        ({"reduction": None}, ValueError, ("None", "mean", "sum", "none")),
        ({"engine": "metal"}, ValueError, ("'metal'", "'auto'", "'eager'", "'cpp'")),
    ],
)
def test_reductions_and_engines_are_refused(function, keywords, error, words):
    _refused(error, words, EVERYWHERE[function], GREY, **keywords)


@pytest.mark.parametrize("function", ["q_loss", "mae_q_loss", "QLoss", "MAEQLoss"])
@pytest.mark.parametrize(
    "weight, error", [(math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_weights_are_refused(function, weight, error):
    _refused(error, ("weight", str(weight)), EVERYWHERE[function], GREY, weight=weight)


@pytest.mark.parametrize("function", ["mae_q_loss", "MAEQLoss"])
@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"pixel": "huber"}, ("'huber'", "l1", "mse", "charbonnier")),
        ({"charbonnier_eps": 0.0}, ("charbonnier_eps", "positive", "0.0")),
        ({"charbonnier_eps": -1e-3}, ("charbonnier_eps", "-0.001")),
        ({"charbonnier_eps": math.nan}, ("charbonnier_eps", "nan")),
    ],
)
def test_pixel_terms_are_refused(function, keywords, words):
    _refused(ValueError, words, EVERYWHERE[function], GREY, **keywords)


@pytest.mark.parametrize("make", [QLoss, MAEQLoss])
@pytest.mark.parametrize(
    "keywords, error",
    [
        ({"definition": "x"}, ValueError),
        ({"patch_size": 1}, ValueError),
        ({"delta": 2}, ValueError),
        ({"data_range": -1}, ValueError),
        ({"eps": -1}, ValueError),
        ({"weight": math.nan}, ValueError),
        ({"reduction": "max"}, ValueError),
        ({"offset": "rand"}, ValueError),
        ({"offset": (9, 9)}, ValueError),
        ({"offset": (0, -1)}, ValueError),
        ({"offset": (4, 4), "patch_size": 4}, ValueError),
        ({"offset": None}, ValueError),
        ({"offset": torch.zeros(2)}, ValueError),
        ({"engine": "cuad"}, ValueError),
        ({"weight": torch.tensor(0.1)}, TypeError),
    ],
)
def test_modules_refuse_settings_when_they_are_made(make, keywords, error):
    with pytest.raises(error):
        make(**keywords)


@pytest.mark.parametrize("function", ["mae_q_loss", "MAEQLoss"])
@pytest.mark.parametrize(
    "keywords, words",
    [
        ({"charbonnier_eps": "1"}, ("charbonnier_eps", "a number", "'1'")),
        ({"charbonnier_eps": True}, ("charbonnier_eps", "a number", "True")),
        ({"return_terms": "no"}, ("return_terms", "True or False", "'no'")),
    ],
)
def test_pixel_terms_of_a_wrong_type_are_refused(function, keywords, words):
    _refused(TypeError, words, EVERYWHERE[function], GREY, **keywords)
    if function == "MAEQLoss":
        _refused(TypeError, words, MAEQLoss, **keywords)


SHAPES_FOR_METRIC = [
    ((2, 2, 1, 16, 24), "x.flatten(0, 1)"),
    ((8, 32, 40), "x[:, None] is a batch of 8 grey pictures"),
    ((32, 40, 3), "x.movedim(-1, -3)"),
    ((2, 32, 40, 3), "x.movedim(-1, -3)"),
    ((4, 32, 40), "without alpha, x[:3]"),
    ((2, 4, 32, 40), "without alpha, x[:, :3]"),
]
SHAPES_FOR_LOSSES = [
    ((2, 2, 1, 16, 24), "pred.flatten(0, 1)"),
    ((2, 32, 40, 3), "pred.movedim(-1, -3)"),
    ((32, 40, 3), "pred.movedim(-1, -3)[None]"),
    ((3, 16, 24), "pred[None]"),
    ((8, 32, 40), "pred[:, None] is a batch of 8 grey pictures"),
    ((16, 24), "pred[None, None]"),
    ((2, 4, 32, 40), "without alpha, pred[:, :3]"),
    ((4, 32, 40), "without alpha, pred[:3][None]"),
]


@pytest.mark.parametrize(
    "function, shape, hint",
    [(q_metric, *case) for case in SHAPES_FOR_METRIC] + [(q_loss, *case) for case in SHAPES_FOR_LOSSES],
)
def test_the_way_out_of_a_wrong_shape_is_one(function, shape, hint):
    x = torch.rand(shape)
    _refused(ValueError, (hint,), function, x)
    name = "x" if function is q_metric else "pred"
    expression = hint.removeprefix("without alpha, ").split(" is ")[0]
    assert function(eval(expression, {name: x})).isfinite()


@pytest.mark.parametrize(
    "dtype, hint",
    [
        (torch.uint16, "for uint16 pictures, x.float() / 65535"),
        (torch.int32, "for int32 pictures, x.float() / white"),
        (torch.float8_e5m2, "x.float()"),
    ],
)
@pytest.mark.parametrize("function", [q_metric, q_loss])
def test_the_way_out_of_a_wrong_dtype(function, dtype, hint):
    _refused(TypeError, (str(dtype), hint), function, torch.zeros(1, 1, 16, 16).to(dtype))


@pytest.mark.parametrize("function", [q_metric, q_loss])
def test_the_way_out_of_numpy_and_pillow(function):
    name = "x" if function is q_metric else "pred"
    for picture in (np.zeros((16, 16)), Image.new("RGB", (16, 16))):
        _refused(TypeError, (f"torch.from_numpy(numpy.array({name}))",), function, picture)


def test_the_target_needs_no_gradient_and_a_float():
    target = (GREY * 255).byte()
    with pytest.raises(
        TypeError, match=r"target must be float32.*for uint8 pictures, x.float\(\) / 255"
    ) as raised:
        mae_q_loss(GREY, target)
    assert "gradient" not in str(raised.value)


def test_the_way_out_of_a_weight_in_a_tensor():
    _refused(TypeError, ("pixel_loss - weight * q_metric(pred)",), MAEQLoss, torch.tensor(0.1))


def test_pred_and_target_must_be_alike():
    _refused(ValueError, ("same shape", "(2, 1, 16, 24)", "(1, 1, 16, 24)"), mae_q_loss, GREY, GREY[:1])
    _refused(ValueError, ("same shape", "(2, 3, 16, 24)"), mae_q_loss, GREY, GREY.expand(2, 3, 16, 24))
    _refused(ValueError, ("same device", "cpu", "meta"), mae_q_loss, GREY, GREY.to("meta"))
    _refused(TypeError, ("target", "uint8"), mae_q_loss, GREY, (GREY * 255).byte())
    _refused(TypeError, ("target", "NoneType"), mae_q_loss, GREY, None)
    _refused(TypeError, ("pred", "int64"), mae_q_loss, GREY.long(), GREY)


def test_an_offset_tensor_must_be_on_the_images_device():
    offset = torch.zeros(2, dtype=torch.int32, device="meta")
    _refused(ValueError, ("offset", "device", "cpu", "meta"), q_metric, GREY, offset=offset)


def test_the_target_of_qloss_is_ignored():
    loss = QLoss(delta=0.999)
    assert loss(GREY) == loss(GREY, None) == loss(GREY, torch.rand(1)) < 0


@pytest.mark.parametrize("offset", [[1, 2], torch.tensor([1, 2]), torch.tensor([1, 2], dtype=torch.uint8)])
def test_offsets_come_as_pairs_or_integer_tensors(offset):
    want = q_metric(GREY, delta=0.999, offset=(1, 2))
    assert q_metric(GREY, delta=0.999, offset=offset) == want != q_metric(GREY, delta=0.999)
