"""The methods by name."""

from __future__ import annotations

from tfbinreg.core.recipe import Recipe
from tfbinreg.methods.bin_regularization import BIN_REGULARIZATION
from tfbinreg.methods.contract import Method
from tfbinreg.methods.msqe import MSQE

_methods: dict[str, Method] = {method.name: method for method in (BIN_REGULARIZATION, MSQE)}


def register_method(method: Method) -> None:
    """Let recipes name a method of your own.

    Args:
        method: its name must be new.

    Raises:
        TypeError: if it is not a `Method`.
        ValueError: if there is one of that name already.
    """
    if not isinstance(method, Method):
        raise TypeError(f"A Method is expected, got {type(method).__name__}.")
    if _methods.setdefault(method.name, method) is not method:
        raise ValueError(f"There is a method {method.name!r} already: choose another name.")


def find(name: str, part: str) -> Method:
    """The method of this name, which must have the `part`, a field of `Method`.

    Raises:
        ValueError: listing the methods that have it.
    """
    method = _methods.get(name)
    if method is None or getattr(method, part) is None:
        others = " or ".join(with_part(part))
        raise ValueError(
            f"There is no method {name!r} with {part}: choose {others}, or register your own with "
            "tfbinreg.register_method."
        )
    return method


def check_methods(recipe: Recipe) -> None:
    """Raise ValueError if a recipe names a method or an option that there is not."""
    for name in recipe.penalties:
        find(name, "penalty")
    for name, options in recipe.options.items():
        if name not in _methods:
            raise ValueError(f"options are given for {name!r}, and there is no such method.")
        _methods[name].read_options(options)


def with_part(part: str) -> list[str]:
    """Names of the methods that have a part."""
    return [name for name, method in _methods.items() if getattr(method, part) is not None]
