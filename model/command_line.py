"""From the words on the command line to a configuration, and from an error to one line."""

import contextlib
import difflib
import io
import json
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from model.errors import UserError, memory_error
from model.processes import first_to_say, processes

__all__ = ["Command", "load_config", "main", "parse"]

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass(frozen=True)
class Command:
    """One command: its configuration and its function, imported only when it is asked for."""

    summary: str
    config: str
    """module:class of the dataclass."""
    run: str
    """module:function that takes the configuration and returns the exit code, or None for 0."""
    pictures: str = ""
    """Field that takes the words which belong to no option; empty if there is none."""
    parallel: bool = False
    """Whether torchrun may start several processes for it."""
    lighter: str = "--device cpu"
    """What to give where a GPU's memory does not suffice."""


def _named(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


def _parser(name: str, command: Command) -> ArgumentParser:
    config = _named(command.config)
    parser = ArgumentParser(
        prog=f"python -m model {name}", description=command.summary, exit_on_error=False, default_env=False
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with any of these options; later words win."
    )
    if command.pictures:
        documented = "The same as --" + command.pictures
        parser.add_argument("words", nargs="*", metavar=command.pictures.upper(), help=documented)
    parser.add_class_arguments(config)
    return parser


def parse(name: str, command: Command, words: Sequence[str]) -> Any:
    """Make a command's configuration from its words.

    Options may be written with dashes or underscores, and a yes-or-no option may stand alone.

    Raises:
        UserError: for an unknown option or a value of the wrong kind, naming it and what would be right.
    """
    config = _named(command.config)
    parser = _parser(name, command)
    try:
        values = parser.parse_args(_normalised(words, config)).as_dict()
    except ArgumentError as error:
        raise UserError(_explain(error.message, config, name, command, words)) from None
    values.pop("config", None)
    loose = values.pop("words", None)
    if loose:
        values[command.pictures] = list(map(Path, loose))
    return config(**values)


def load_config(path: Path, name: str, command: Command) -> Any:
    """Read a saved configuration, refusing unknown keys.

    Raises:
        UserError: if the file is missing, is no YAML, or holds unknown keys or values of the wrong kind.
    """
    return parse(name, command, ["--config", str(path)])


def _normalised(words: Sequence[str], config: type) -> list[str]:
    """The words as jsonargparse takes them: underscores, a value for every switch, a list in one piece."""
    kinds = {item.name: str(item.type) for item in fields(config)}
    result: list[str] = []
    lists: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        word = "--out" + word[2:] if word == "-o" or word.startswith("-o=") else word
        if not word.startswith("--") or word == "--":
            result.append(word)
            continue
        option, equals, value = word[2:].partition("=")
        option = option.replace("-", "_")
        if "bool" in kinds.get(option, "") and not equals:
            value = rest.pop(0) if rest and rest[0].lower() in ("true", "false", "yes", "no") else "true"
            result.append(f"--{option}={value}")
        elif kinds.get(option, "").startswith("list["):
            # One option takes all words up to the next one, and may be repeated.
            given = lists.setdefault(option, [])
            taken = [value] if equals else []
            while not equals and rest and not rest[0].startswith("-"):
                taken.append(rest.pop(0))
            # A path may hold a comma; numbers and names may be separated by them.
            if "Path" not in kinds[option]:
                # Also as YAML writes it; [] empties a list that a file has set.
                bare = [one[1:-1] if one[:1] == "[" and one[-1:] == "]" else one for one in taken]
                taken = [part for one in bare for part in one.split(",") if part]
            given.extend(taken)
        else:
            result.append(f"--{option}{equals}{value}")
    return [*result, *(f"--{option}={_json(given, kinds[option])}" for option, given in lists.items())]


def _json(given: list[str], kind: str) -> str:
    """A list as JSON; of numbers where the words are such, else as text for jsonargparse to refuse."""
    if "float" in kind:
        with contextlib.suppress(ValueError):
            return json.dumps([float(word) for word in given])
    return json.dumps(given)


def _explain(message: str, config: type, name: str, command: Command, words: Sequence[str]) -> str:
    """jsonargparse's message in one line, with the nearest known option where one was unknown."""
    unknown = re.search(r"Option '([^']+)' is not accepted|unrecognized arguments: (.+)", message)
    if unknown:
        word = unknown[1] or unknown[2].split()[0]
        if not unknown[1] and not word.startswith("-"):
            together = f"give all {command.pictures} together" if command.pictures else "leave it away"
            return f"{word!r} belongs to no option; {together}"
        option = word.partition("=")[0].lstrip("-")
        near = difflib.get_close_matches(option.split(".")[0], [item.name for item in fields(config)], n=1)
        shown = option if unknown[1] else f"--{option}"
        hint = f"did you mean {near[0]!r}?" if near else f"`python -m model {name} --help` lists them"
        return f"unknown option {shown!r}; {hint}"
    wrong = re.search(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL)
    if wrong and "Expected a <class 'list'>" in wrong[2]:
        # Of words on the command line a list is made; only a file can hold something else.
        files = [after for before, after in pairwise(words) if before == "--config"]
        files += [word.partition("=")[2] for word in words if word.startswith("--config=")]
        given = wrong[2].partition("Got value: ")[2].strip()
        return f"{', '.join(files)}: {wrong[1]} must be a list: write {wrong[1]}: [{given}]"
    if wrong:
        reason = " ".join(wrong[2].split())
        union = re.search(r"Union subtypes .* Errors: - (.*) Given value type: .* Given value: (.*)", reason)
        if union:
            wanted = [one for one in union[1].split(" - ") if "NoneType" not in one]
            reason = f"{' or '.join(wanted)}. Got value: {union[2]}"
        reason = re.sub(r"<class '([\w.]*\.)?(\w+)'>", r"\2", reason).replace("typing.Literal", "one of ")
        reason = reason.replace("Expected a one of", "Expected one of")
        reason = reason.replace("Expected a int", "Expected an int")
        return f"--{wrong[1]}: {reason[0].lower()}{reason[1:]}"
    return " ".join(message.split())


def main(commands: dict[str, Command], words: Sequence[str]) -> int:
    """Run the command that the first word names; the exit code is 2 where the user gave something wrong."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(commands))
        return 0 if words else 2
    name, *rest = words
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A file's name that the terminal cannot show must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if name not in commands:
            near = difflib.get_close_matches(name, commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(commands)}"
            raise UserError(f"no command is called {name!r}; {hint}")
        command = commands[name]
        if processes() > 1 and not command.parallel:
            raise UserError(f"{name!r} runs in one process: start it by python -m model, not by torchrun")
        config = parse(name, command, rest)
        if getattr(config, "resume", False):
            _refuse_other_run(config.out, name, commands)
            config = _saved_config(config, name, command, rest)
        return _named(command.run)(config) or 0
    except UserError as error:
        _complain(f"error: {' '.join(str(error).split())}")
        return 2
    except RuntimeError as error:
        # torch's, which is not imported here: many commands end without it.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _complain(f"error: {memory_error(error, f'give {command.lighter}')}")
        return 2
    except BrokenPipeError:
        # The reader of our output has left, as `head` does.
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        _complain("interrupted")
        return 128 + signal.SIGINT


def _complain(text: str) -> None:
    """Say what went wrong; of several processes that it happened to, one does."""
    if first_to_say(text):
        print(text, file=sys.stderr, flush=True)


def _refuse_other_run(out: Path, name: str, commands: dict[str, Command]) -> None:
    """Say so where the run that is to go on is another command's: its options are those of the file."""
    saved = out / "config.yaml"
    values = None
    # What cannot be read is refused when it is loaded.
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        values = yaml.safe_load(saved.read_text("utf-8"))
    if not isinstance(values, dict):
        return
    known = {one: {item.name for item in fields(_named(command.config))} for one, command in commands.items()}
    strange = {one: len(names ^ values.keys()) for one, names in known.items() if "resume" in names}
    likely = min(strange, key=lambda one: (strange[one], one != name))
    if likely != name:
        raise UserError(f"{out} holds a run of {likely}: python -m model {likely} --resume --out {out}")


def _saved_config(config: Any, name: str, command: Command, words: Sequence[str]) -> Any:
    """The configuration of the run that is to go on, which the words must agree with."""
    saved = config.out / "config.yaml"
    if not saved.is_file():
        raise UserError(
            f"nothing to resume in {config.out}: it holds no config.yaml; name the run folder with --out"
        )
    previous = load_config(saved, name, command)
    given = parse(name, command, ["--config", str(saved), *words])
    for item in fields(config):
        here, there = getattr(given, item.name), getattr(previous, item.name)
        if item.name not in ("resume", "overwrite", "out") and not _agree(here, there):
            raise UserError(
                f"--resume goes on with what {saved} says, where {item.name} is {there} and not {here}: "
                f"leave --{item.name} away, or change it in that file"
            )
    previous.resume, previous.out = True, config.out
    return previous


def _agree(given: Any, saved: Any) -> bool:
    """Whether an option is that of the saved run, to whose dictionaries the run itself may have added."""
    if isinstance(given, dict) and isinstance(saved, dict):
        return {**saved, **given} == saved
    if isinstance(given, list) and isinstance(saved, list):
        return len(given) == len(saved) and all(map(_agree, given, saved))
    if isinstance(given, Path) and isinstance(saved, Path):
        return given.resolve() == saved.resolve()
    return given == saved


def _overview(commands: dict[str, Command]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in commands.items()]
    return "\n".join(
        [
            "usage: python -m model COMMAND ...",
            "",
            "Restores blurred photographs with networks fine-tuned by the sharpness metric Q.",
            "",
            *lines,
            "",
            "`python -m model COMMAND --help` lists a command's options. A YAML file can hold them too:",
            "--config FILE.",
        ]
    )
