"""The targets a release must reach, as ratios of medians of one run: computed from its rows, never typed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .record import Timing

LARGE, SMALL, HUGE = (1, 1, 2048, 2048), (32, 1, 128, 128), (1, 1, 4096, 4096)

#: Workspace that may differ between two sizes without counting as growing with the image.
FIXED_BYTES = 4096

Who = tuple[str, str]
FUSED_Q, FUSED_MAE_Q = ("q", "cpp"), ("mae_q", "cpp")
PLAIN, REFINED, COMPILED, L1 = ("q", "plain"), ("q", "refined"), ("q", "compile"), ("l1_loss", "torch")


@dataclass(frozen=True)
class Target:
    """``above`` / ``below`` of the medians must be at least (">=") or at most ("<=") ``limit``."""

    text: str
    shape: tuple[int, int, int, int]
    mode: str
    above: Who
    below: Who
    relation: str
    limit: float

    def holds(self, ratio: float) -> bool:
        compare: Callable[[float, float], bool] = {">=": operator.ge, "<=": operator.le}[self.relation]
        return compare(ratio, self.limit)


@dataclass(frozen=True)
class Outcome:
    """One line of the section "Reach"; ``reached`` is None where the run did not measure it."""

    text: str
    wanted: str
    measured: str
    reached: bool | None


#: For the C++ engine on two CPU cores, float32. Plain is the faster of the two eager forms: harder to beat.
CPU_TARGETS = (
    Target("Q forward, speed-up over plain torch", LARGE, "forward", PLAIN, FUSED_Q, ">=", 40),
    Target("Q both, speed-up over plain torch", LARGE, "both", PLAIN, FUSED_Q, ">=", 25),
    Target("Q both, speed-up over torch.compile", LARGE, "both", COMPILED, FUSED_Q, ">=", 6),
    Target("Q both, time of l1_loss's", LARGE, "both", FUSED_Q, L1, "<=", 0.45),
    Target("MAE - w Q both, time of l1_loss's", LARGE, "both", FUSED_MAE_Q, L1, "<=", 1.0),
    Target("Q forward, speed-up over plain torch", SMALL, "forward", PLAIN, FUSED_Q, ">=", 10),
    Target("Q both, speed-up over plain torch", SMALL, "both", PLAIN, FUSED_Q, ">=", 8),
    Target("Q both, time of l1_loss's", SMALL, "both", FUSED_Q, L1, "<=", 1.0),
    Target("MAE - w Q both, time of l1_loss's", SMALL, "both", FUSED_MAE_Q, L1, "<=", 1.2),
)

#: Not demanded, but of interest: against the form that is as accurate as the engine, and larger images.
CPU_BESIDE = (
    Target("Q forward, speed-up over refined torch", LARGE, "forward", REFINED, FUSED_Q, ">=", 40),
    Target("Q both, speed-up over refined torch", LARGE, "both", REFINED, FUSED_Q, ">=", 25),
    Target("Q forward, speed-up over refined torch", SMALL, "forward", REFINED, FUSED_Q, ">=", 10),
    Target("Q both, speed-up over refined torch", SMALL, "both", REFINED, FUSED_Q, ">=", 8),
    # The same ratios where no cache holds the image, so that whoever passes over it again pays for it.
    Target("Q forward, speed-up over plain torch", HUGE, "forward", PLAIN, FUSED_Q, ">=", 40),
    Target("Q both, speed-up over plain torch", HUGE, "both", PLAIN, FUSED_Q, ">=", 25),
    Target("Q both, speed-up over torch.compile", HUGE, "both", COMPILED, FUSED_Q, ">=", 6),
    Target("Q both, time of l1_loss's", HUGE, "both", FUSED_Q, L1, "<=", 0.45),
    Target("MAE - w Q both, time of l1_loss's", HUGE, "both", FUSED_MAE_Q, L1, "<=", 1.0),
)


def outcomes(rows: Sequence[Timing], targets: Sequence[Target] = CPU_TARGETS) -> list[Outcome]:
    """Each target with what the rows say about it."""
    medians = {(r.kernel, r.provider, r.shape, r.mode): r.ms_p50 for r in rows if r.dtype == "float32"}
    found = []
    for target in targets:
        above, below = (
            medians.get((*who, target.shape, target.mode)) for who in (target.above, target.below)
        )
        size = "x".join(map(str, target.shape))
        wanted = f"{target.relation} {target.limit:g}"
        if above is None or below is None:
            found.append(Outcome(f"{size} {target.text}", wanted, "not measured", None))
        else:
            ratio = above / below
            found.append(Outcome(f"{size} {target.text}", wanted, f"{ratio:.3g}", target.holds(ratio)))
    return found


def backward_memory(rows: Sequence[Timing]) -> list[Outcome]:
    """Whether the backward pass of a fused engine allocates the gradient and nothing else that grows."""
    found = []
    for kernel, provider in (FUSED_Q, FUSED_MAE_Q):
        rest = {
            r.shape: r.extra_bytes_backward - 4 * r.n * r.c * r.h * r.w
            for r in rows
            if (r.kernel, r.provider, r.mode, r.dtype) == (kernel, provider, "both", "float32")
            and r.extra_bytes_backward is not None
        }
        text = f"{kernel} backward: bytes beyond the gradient, {LARGE[2]} -> {HUGE[2]} pixels a side"
        if LARGE in rest and HUGE in rest:
            grows = rest[HUGE] - rest[LARGE]
            measured = f"{rest[LARGE]} -> {rest[HUGE]}"
            found.append(Outcome(text, "does not grow", measured, grows <= FIXED_BYTES))
        else:
            found.append(Outcome(text, "does not grow", "not measured", None))
    return found
