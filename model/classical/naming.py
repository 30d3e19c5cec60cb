"""From words to objects: names with the nearest known one where they are wrong, and typed parameters."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from model.errors import UserError

__all__ = ["construct", "nearest", "parameters"]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to suggest for an unknown name: the one it resembles, else all there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def parameters(text: str) -> dict[str, str]:
    """Split `a=1,b=x` into its parts.

    Raises:
        UserError: if a part is no assignment.
    """
    result = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{part!r} is no parameter; write name=value, several with commas between them")
        result[name.strip()] = value.strip()
    return result


def construct(name: str, kind: type, given: Mapping[str, str]) -> Any:
    """Build a dataclass from the words for its fields.

    Args:
        name: what the user calls it, for messages.
        kind: a dataclass whose fields are int, float, str or Path.
        given: field -> word.

    Raises:
        UserError: for an unknown field, a word of the wrong kind, a missing field or an impossible value.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    values = {}
    for field, word in given.items():
        if field not in known:
            raise UserError(f"{name} has no parameter {field!r}; {nearest(field, known)}")
        try:
            values[field] = hints[field](word)
        except ValueError:
            wanted = {int: "a whole number", float: "a number"}.get(hints[field], hints[field].__name__)
            raise UserError(f"{name}: {field} must be {wanted}, got {word!r}") from None
    missing = [
        field.name for field in known.values() if field.default is MISSING and field.name not in values
    ]
    if missing:
        raise UserError(f"{name} needs {missing[0]}: {name}:{missing[0]}=...")
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
