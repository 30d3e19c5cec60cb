"""Q as loss modules, to drop into a training loop."""

from __future__ import annotations

from torch import Tensor, nn

from . import checks, engines, functional
from .definition import Definition
from .offsets import Offset, check_offset


class _Sharpness(nn.Module):
    """What both losses hold: the definition of Q, its weight, and how images are reduced."""

    def __init__(
        self,
        weight: float,
        definition: str,
        patch_size: int,
        delta: float,
        data_range: float,
        eps: float,
        offset: Offset,
        reduction: str,
        engine: str,
    ) -> None:
        super().__init__()
        self.definition = Definition(definition, patch_size, delta, data_range, eps)
        self.weight = checks.check_weight(weight)
        self.reduction = checks.check_reduction(reduction)
        self.engine = engines.check_name(engine)
        check_offset(offset, patch_size)
        if isinstance(offset, Tensor):
            # Goes where the module goes.
            self.register_buffer("offset", offset, persistent=False)
        else:
            self.offset = offset

    def _settings(self) -> dict:
        d = self.definition
        return {
            "weight": self.weight,
            "definition": d.name,
            "patch_size": d.patch_size,
            "delta": d.delta,
            "data_range": d.data_range,
            "eps": d.eps,
            "offset": self.offset,
            "reduction": self.reduction,
            "engine": self.engine,
        }

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._settings().items())


class QLoss(_Sharpness):
    """-``weight`` * Q(pred): a loss that falls as the picture gets sharper.

    Add it to a pixel loss, or take `MAEQLoss`, which fuses the two. ``loss(pred)`` and ``loss(pred, target)``
    are the same: Q needs no reference.

    Args:
        weight: of Q; a number. It does not carry over between definitions. A schedule may set ``loss.weight``
            at every step, but under torch.compile every number is a new graph: there, multiply by a tensor,
            ``pixel_loss + w * QLoss()(pred)``.
        definition: "zhu2010", "mmsp2024" or "pythonq"; see `Definition`.
        patch_size: side of the square patches, at least 3; 4, 8 and 16 are fastest.
        delta: significance level of the coherence threshold, between 0 and 1 (exclusive).
        data_range: the value of white.
        eps: smoothing of the singular values, in gradient per pixel and units of ``data_range``. A little
            (0.001) keeps nearly flat patches from being pushed as hard as edges; 0 is the published metric.
        offset: first row and column (dy, dx) of the patch grid, a tensor of two integers, which goes with the
            module from device to device, or "random", which draws anew at every call and keeps a network from
            locking on to one grid.
        reduction: over images: "mean", "sum" or "none".
        engine: "auto", or the name of one.

    Shape: pred N x {1, 3} x H x W (RGB is turned to luma), in float32, float64, bfloat16 or float16; the loss
    is float32 (float64 for float64), a scalar, or N values with reduction "none".

    Raises:
        TypeError, ValueError: for arguments outside these, where an image need not be known when it is made.

    Source: Zhu and Milanfar, IEEE TIP 19(12), 2010; eqs. 2-5 and 7 of the paper.
    """

    def __init__(
        self,
        weight: float = 1.0,
        definition: str = "zhu2010",
        patch_size: int = 8,
        delta: float = 1e-3,
        data_range: float = 1.0,
        eps: float = 0.0,
        offset: Offset = (0, 0),
        reduction: str = "mean",
        engine: str = "auto",
    ) -> None:
        super().__init__(weight, definition, patch_size, delta, data_range, eps, offset, reduction, engine)

    def forward(self, pred: Tensor, target: Tensor | None = None) -> Tensor:
        return functional.q_loss(pred, **self._settings())


class MAEQLoss(_Sharpness):
    """mean |pred - target| - ``weight`` * Q(pred), fused in one pass over the images (eq. 7 of the paper).

    Args:
        weight: of Q; 0 is the pixel loss alone. See `QLoss` for one that changes under torch.compile.
        pixel: "l1" (MAE), "mse" or "charbonnier", averaged over each image.
        charbonnier_eps: of sqrt(d^2 + charbonnier_eps^2), in the pixels' units.
        return_terms: return (loss, {"pixel": ..., "q": ...}): the terms detached, unweighted and still on the
            device, for logging without a second pass.

    See `QLoss` for the other arguments. RGB: the pixel term on all channels, Q on the luma. The target gets
    its gradient too, where it asks for one.

    Shape: pred and target N x {1, 3} x H x W, alike; their floating-point dtypes may differ.

    Source: eq. 7 of the paper.
    """

    def __init__(
        self,
        weight: float = 0.01,
        pixel: str = "l1",
        charbonnier_eps: float = 1e-3,
        return_terms: bool = False,
        definition: str = "zhu2010",
        patch_size: int = 8,
        delta: float = 1e-3,
        data_range: float = 1.0,
        eps: float = 0.0,
        offset: Offset = (0, 0),
        reduction: str = "mean",
        engine: str = "auto",
    ) -> None:
        super().__init__(weight, definition, patch_size, delta, data_range, eps, offset, reduction, engine)
        self.pixel = checks.check_pixel(pixel)
        self.charbonnier_eps = checks.check_charbonnier_eps(charbonnier_eps)
        self.return_terms = checks.check_return_terms(return_terms)

    def _settings(self) -> dict:
        return {
            **super()._settings(),
            "pixel": self.pixel,
            "charbonnier_eps": self.charbonnier_eps,
            "return_terms": self.return_terms,
        }

    def forward(self, pred: Tensor, target: Tensor) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        return functional.mae_q_loss(pred, target, **self._settings())
