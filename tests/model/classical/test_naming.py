"""From `name:field=value` to a method, and every mistake in one line."""

import pytest

from model.classical import CLASSICAL
from model.classical.denoisers import DENOISERS
from model.classical.mlm import ModifiedLevenbergMarquardt
from model.classical.naming import construct, nearest, parameters
from model.errors import UserError


def test_words_become_typed_parameters():
    given = parameters("iterations=7, damping=2.5")
    assert construct("mlm", CLASSICAL["mlm"], given) == ModifiedLevenbergMarquardt(7, 2.5)
    assert construct("mlm", CLASSICAL["mlm"], parameters("")) == ModifiedLevenbergMarquardt()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("iteration=7", r"^mlm has no parameter 'iteration'; did you mean 'iterations'\?$"),
        ("iterations=7.5", r"^mlm: iterations must be a whole number, got '7\.5'$"),
        ("damping=much", "^mlm: damping must be a number, got 'much'$"),
        ("iterations=-1", "^mlm: iterations must be at least 0, got -1$"),
        ("damping=nan", "^mlm: damping must be at least 0, got nan$"),
        ("7", "^'7' is no parameter; write name=value"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        construct("mlm", CLASSICAL["mlm"], parameters(words))


def test_nearest_or_all():
    assert nearest("mlmm", CLASSICAL) == "did you mean 'mlm'?"
    assert nearest("?", ["a", "b"]) == "known: a, b"


def test_every_method_says_what_it_must_be_told():
    told = {name: str(kind.knows) for name, kind in CLASSICAL.items()}
    assert {name for name in told if told[name] == "calls the blur"} == {"al", "mlm", "mrl"}
    assert {name for name in told if told[name] == "blind"} == set(DENOISERS)
