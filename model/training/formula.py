"""A loss as people write it, `l1 + 0.01*q + 0.1*lpips`, read into weighted terms."""

import math
import re
from dataclasses import dataclass

from model.classical.naming import nearest
from model.errors import UserError

__all__ = ["ALIASES", "PIXEL_TERMS", "TERMS", "Term", "parse_loss", "written"]

PIXEL_TERMS = ("l1", "mse", "charbonnier")
"""Terms that the fused kernel computes together with Q."""
TERMS = (*PIXEL_TERMS, "q", "ssim", "sobel", "lpips")
ALIASES = {"mae": "l1"}

# A plus sign that does not belong to an exponent, as in 1e+2.
_PLUS = re.compile(r"(?<![0-9.][eE])\+")
_TERM = re.compile(r"(?:(?P<weight>[^*]*?)\s*\*)?\s*(?P<name>[A-Za-z]\w*)")


@dataclass(frozen=True)
class Term:
    """One summand: a key of `TERMS` and its weight, not negative."""

    name: str
    weight: float = 1.0


def parse_loss(text: str) -> tuple[Term, ...]:
    """Read `[WEIGHT*]NAME + ...`.

    Q enters with a minus sign, which is not written: `l1+0.01*q` is MAE - 0.01 Q. A term of weight 0 is
    measured and logged only.

    Raises:
        UserError: naming the term that cannot be read, is unknown (with the nearest known name), appears
            twice, or has a weight that is no number from 0 on; or if no term has a weight above 0.
    """
    terms: list[Term] = []
    for part in _PLUS.split(text):
        term = _term(part.strip(), text)
        if any(term.name == other.name for other in terms):
            raise UserError(f"--loss {text}: {term.name} appears twice")
        terms.append(term)
    if not any(term.weight for term in terms):
        raise UserError(f"--loss {text}: all weights are 0, so that there is nothing to learn")
    return tuple(terms)


def _term(part: str, text: str) -> Term:
    found = _TERM.fullmatch(part)
    # A minus sign behind a name, and not in a number such as 1e-3.
    if re.search(r"\b[A-Za-z]\w*\s*-", part):
        raise UserError(
            f"--loss {text}: cannot read {part!r}; terms are summed, and q is subtracted by itself: "
            "l1+0.01*q is MAE - 0.01 Q"
        )
    if found is None:
        raise UserError(f"--loss {text}: cannot read the term {part!r}; write WEIGHT*NAME, e.g. 0.1*lpips")
    name = found["name"].lower()
    name = ALIASES.get(name, name)
    if name not in TERMS:
        raise UserError(
            f"--loss {text}: no term is called {found['name']!r}; {nearest(name, [*TERMS, *ALIASES])}"
        )
    try:
        weight = 1.0 if found["weight"] is None else float(found["weight"])
    except ValueError:
        raise UserError(f"--loss {text}: the weight of {name}, {found['weight']!r}, is no number") from None
    if not (math.isfinite(weight) and weight >= 0):
        hint = "; q is subtracted by itself" if name == "q" else ""
        raise UserError(f"--loss {text}: the weight of {name} must not be negative, got {weight:g}{hint}")
    return Term(name, weight)


def written(terms: tuple[Term, ...]) -> str:
    """The terms as `parse_loss` reads them, one way of writing for each loss: `l1+0.01*q`."""
    return "+".join(term.name if term.weight == 1 else f"{term.weight:g}*{term.name}" for term in terms)
