"""Describes what users call: names and signatures of the packages, flags of the commands.

    python tests/public_api.py

writes tests/public_api.txt, with which test_public_api.py compares the code. A changed line there
is a change for users, and belongs in CHANGELOG.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import pathlib
import types
from collections.abc import Iterator
from typing import Any

from absl.flags import argparse_flags

import tfbinreg
import tflite_tools
from tflite_tools.commands import arguments

SNAPSHOT = pathlib.Path(__file__).with_suffix(".txt")
_OURS = ("tfbinreg", "tflite_tools")
_NO_DEFAULTS = ("None", "False", "[]", argparse.SUPPRESS)


def described() -> str:
    """The whole text."""
    modules = {"tfbinreg": tfbinreg, "tflite_tools": tflite_tools}
    lines = [line for name, module in modules.items() for line in _package(name, module)]
    return "\n".join([*lines, *_commands(), ""])


def _package(name: str, module: types.ModuleType) -> Iterator[str]:
    for public in sorted(module.__all__):
        value = getattr(module, public)
        if isinstance(value, types.ModuleType):
            yield from _functions(f"{name}.{public}", value)
        elif inspect.isclass(value):
            yield from _class(f"{name}.{public}", value)
        else:
            yield f"{name}.{public}{_signature(value) if callable(value) else ''}"


def _functions(name: str, module: types.ModuleType) -> Iterator[str]:
    for public, value in sorted(vars(module).items()):
        if inspect.isfunction(value) and value.__module__ == module.__name__ and public[0] != "_":
            yield f"{name}.{public}{_signature(value)}"


def _class(name: str, cls: Any) -> Iterator[str]:
    """How it is made, what it is derived from, and its members that no library prescribes."""
    foreign = [base for base in cls.__mro__ if not base.__module__.startswith(_OURS)]
    made = "" if issubclass(cls, Exception) else _signature(cls.__init__)
    yield f"{name}{made}" + (f" is a {foreign[0].__name__}" if foreign[0] is not object else "")
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    known = {member for base in foreign for member in vars(base)} | {f.name for f in fields}
    for member in sorted(set(dir(cls)) - known):
        if not member.startswith("_"):
            yield f"{name}.{member}{_member(inspect.getattr_static(cls, member))}"


def _member(value: Any) -> str:
    if isinstance(value, property):
        return f" -> {_annotation(inspect.signature(value.fget).return_annotation)}"
    if isinstance(value, (classmethod, staticmethod)):
        return f"{_signature(value.__func__)} {type(value).__name__}"
    return _signature(value) if inspect.isfunction(value) else ""


def _signature(function: Any) -> str:
    """As `str(inspect.signature(...))`, whose quotes and names of modules depend on the Python."""
    signature = inspect.signature(function)
    written: list[str] = []
    kinds, previous = inspect.Parameter, None
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if previous == kinds.POSITIONAL_ONLY and parameter.kind != previous:
            written.append("/")
        starred = previous in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL)
        if parameter.kind == kinds.KEYWORD_ONLY and not starred:
            written.append("*")
        written.append(_parameter(parameter))
        previous = parameter.kind
    result = _annotation(signature.return_annotation)
    return f"({', '.join(written)})" + (f" -> {result}" if result else "")


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    annotation = _annotation(parameter.annotation)
    text = f"{stars}{parameter.name}" + (f": {annotation}" if annotation else "")
    if parameter.default is parameter.empty:
        return text
    return f"{text} = {parameter.default!r}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    if isinstance(annotation, str):
        return annotation.strip("'\"")
    return getattr(annotation, "__name__", None) or str(annotation)


def _commands() -> Iterator[str]:
    parser, commands = arguments._build()
    # Of absl, and of whatever is imported and defines some.
    others = {flag for a in argparse_flags.ArgumentParser()._actions for flag in a.option_strings}
    for name, command in ((arguments.PROGRAM, parser), *sorted(commands.items())):
        for action in command._actions:
            if not isinstance(action, argparse._SubParsersAction) and not (
                others & set(action.option_strings)
            ):
                yield f"$ {name} {_flag(action)}"


def _flag(action: argparse.Action) -> str:
    """Its names, and in brackets what `add_argument` was told."""
    names = ", ".join(action.option_strings) or str(action.metavar)
    told = {
        "required": action.required and bool(action.option_strings),
        "hidden": action.help is argparse.SUPPRESS,
        "repeated": isinstance(action, argparse._AppendAction),
        "no value": action.nargs == 0,
        f"one of {', '.join(map(str, action.choices or ()))}": action.choices is not None,
        f"default {action.default!r}": str(action.default) not in _NO_DEFAULTS,
    }
    facts = "; ".join(text for text, is_so in told.items() if is_so)
    return f"{names} ({facts})" if facts else names


if __name__ == "__main__":
    SNAPSHOT.write_text(described())
