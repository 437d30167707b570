"""The methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfbinreg.core.recipe import Recipe
from tfbinreg.methods.alq import ALQ
from tfbinreg.methods.bin_regularization import BIN_REGULARIZATION
from tfbinreg.methods.bsq import BSQ
from tfbinreg.methods.contract import GridSpec, KernelSpec, Method
from tfbinreg.methods.cpq import CPQ
from tfbinreg.methods.dampening import DAMPENING
from tfbinreg.methods.freezing import FREEZING
from tfbinreg.methods.gdrq import GDRQ
from tfbinreg.methods.kure import KURE
from tfbinreg.methods.lapq import LAPQ
from tfbinreg.methods.lsq import LSQ
from tfbinreg.methods.mirror_descent import MIRROR_DESCENT
from tfbinreg.methods.msqe import MSQE
from tfbinreg.methods.tqt import TQT
from tfbinreg.methods.trs import TRS
from tfbinreg.methods.tsq import TSQ

_methods: dict[str, Method] = {
    method.name: method
    for method in (
        *(LSQ, TQT, GDRQ, TSQ, ALQ, BSQ, CPQ, MIRROR_DESCENT),
        *(BIN_REGULARIZATION, MSQE, DAMPENING, KURE, FREEZING, TRS, LAPQ),
    )
}


def register_method(method: Method) -> None:
    """Register a method of your own, so that recipes can name it.

    Args:
        method: a method with a new name.

    Raises:
        TypeError: if it is not a `Method`.
        ValueError: if a method of that name already exists.
    """
    if not isinstance(method, Method):
        raise TypeError(f"A Method is expected, got {type(method).__name__}.")
    if _methods.setdefault(method.name, method) is not method:
        raise ValueError(f"There is a method {method.name!r} already: choose another name.")


def find(name: str, part: str) -> Method:
    """The method of this name; it must have the `part`, a field of `Method`.

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
    """Raise ValueError if a recipe names a method or an option that does not exist."""
    for name in (recipe.method, *(rule.method for rule in recipe.rules)):
        if name is not None:
            find(name, "weights")
            find(name, "activations")
    for name in recipe.penalties:
        if find(name, "penalty").strength is not None:
            raise ValueError(
                f"Penalty {name!r} comes with the kernels of method {name!r}: give Recipe(method="
                f"{name!r}) or a Rule with it, and leave it out of the penalties."
            )
    for name in recipe.updates:
        find(name, "update")
    if recipe.solver is not None:
        find(recipe.solver, "fit")
    for name, options in recipe.options.items():
        if name not in _methods:
            raise ValueError(f"options are given for {name!r}, and there is no such method.")
        _methods[name].read_options(options)


def weight_quantizer(name: str, spec: KernelSpec, options: Mapping[str, Any] | None) -> Any:
    """The quantizer of a kernel by the method of this name, with options in a recipe's form."""
    method: Any = find(name, "weights")
    return method.weights(spec, method.read_options(options or {}))


def bits_problem(name: str, spec: KernelSpec) -> str | None:
    """Why the method of this name does not support kernels of these bits; None if it does, or if
    there is no such method.
    """
    method = _methods.get(name)
    if method is None:
        return None
    if spec.channel_bits is None:
        return (
            None if spec.bits in method.kernel_bits else f"{name!r} has no {spec.bits}-bit kernels"
        )
    wrong = sorted({*spec.channel_bits} - {*method.channel_bits})
    if not wrong:
        return None
    if not any(spec.channel_bits):
        return f"{name!r} prunes no kernels"
    if not method.channel_bits:
        return f"{name!r} gives the channels of a kernel the same bits"
    return f"{name!r} has no channels of {', '.join(map(str, wrong))} bits in a kernel of several"


def kernel_problem(name: str, spec: KernelSpec, options: Mapping[str, Any] | None) -> str | None:
    """Why the method of this name cannot quantize a kernel, for a reason other than its bits; None
    if it can, or if there is no such method.
    """
    method = _methods.get(name)
    if method is None or method.kernel_problem is None:
        return None
    return method.kernel_problem(spec, method.read_options(options or {}))


def folds(name: str) -> bool:
    """Whether the method of this name trains kernels with normalizations folded in; True if there
    is no such method."""
    method = _methods.get(name)
    return method is None or method.folds


def grid_problem(name: str, spec: GridSpec, options: Mapping[str, Any] | None) -> str | None:
    """Why the method of this name cannot quantize an activation; None if it can, or if there is no
    such method."""
    method = _methods.get(name)
    if method is None or method.grid_problem is None:
        return None
    return method.grid_problem(spec, method.read_options(options or {}))


def activation_quantizer(name: str, spec: GridSpec, options: Mapping[str, Any] | None) -> Any:
    """The quantizer of an activation by the method of this name."""
    method: Any = find(name, "activations")
    return method.activations(spec, method.read_options(options or {}))


def options_of(recipe: Recipe, method: Method) -> Any:
    """A method's options in a recipe."""
    return method.read_options(recipe.options.get(method.name, {}))


def penalties_of(recipe: Recipe) -> tuple[str, ...]:
    """Names of the penalties in the loss: the recipe's own, and those of its methods."""
    methods = (recipe.method, *(rule.method for rule in recipe.rules))
    own = [name for name in methods if name in _methods and _methods[name].strength is not None]
    return tuple(dict.fromkeys((*recipe.penalties, *own)))


def solver_of(recipe: Recipe) -> Method:
    """The method whose `fit` a recipe uses: its solver, else its method.

    Raises:
        ValueError: if neither has one.
    """
    if recipe.solver is None and find(recipe.method, "weights").fit is None:
        others = " or ".join(with_part("fit")) or "none so far"
        raise ValueError(
            f"Method {recipe.method!r} leaves nothing to solve: name a solver in "
            f"Recipe(solver=...), {others}."
        )
    return find(recipe.solver or recipe.method, "fit")


def methods() -> list[Method]:
    """All methods."""
    return list(_methods.values())


def with_part(part: str) -> list[str]:
    """Names of the methods that a recipe can name for a part. A penalty that comes with a method's
    own quantizers is not one of them.
    """
    return [
        name
        for name, method in _methods.items()
        if getattr(method, part) is not None and (part != "penalty" or method.strength is None)
    ]
