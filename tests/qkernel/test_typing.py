"""Type hints: they reach who installs the package, and the overloads say what the function takes."""

from __future__ import annotations

import inspect
import tomllib
import typing
from pathlib import Path

import qkernel
from qkernel import functional, mae_q_loss


def test_the_package_is_marked_as_typed():
    assert (Path(qkernel.__file__).parent / "py.typed").is_file()
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"] == {"qkernel": ["py.typed"]}


def test_overloads_take_what_the_function_takes():
    parameters = list(inspect.signature(mae_q_loss).parameters)
    overloads = typing.get_overloads(mae_q_loss)
    assert [inspect.signature(o).return_annotation for o in overloads] == [
        "Tensor",
        "tuple[Tensor, dict[str, Tensor]]",
        "Tensor | tuple[Tensor, dict[str, Tensor]]",
    ]
    for overload in overloads:
        *names, settings = inspect.signature(overload).parameters
        assert settings == "settings"
        assert [*names, *functional._QSettings.__annotations__] == parameters
