"""`Recipe`: how many bits each layer gets, as plain data.

Ordered rules select layers by name or class; if several rules match a layer, the last one that sets
a field wins. A recipe is saved with the model and in the file made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from tfbinreg.core.grid import MIN_BITS, WeightBits, check_bits, check_weight_bits
from tfbinreg.core.target import LITERT, check_target
from tfbinreg.core.weight_starts import STARTS

# What users give in place of a recipe (`Recipe.from_data`).
RecipeData: TypeAlias = "Recipe | Mapping[str, Any] | str | os.PathLike[str] | None"
LSQ = "lsq"  # the default method
BIN_REGULARIZATION = "bin_regularization"  # the penalty that every model has


def _set_bits(owner: Any, field: str, what: str, least: int = MIN_BITS) -> None:
    """Check the bits in a frozen dataclass, and store them as an int that JSON supports."""
    object.__setattr__(owner, field, check_bits(getattr(owner, field), what, least))


def check_penalty_weights(
    bin_weight: float | None, penalty_weights: Mapping[str, float] | None
) -> None:
    """Raise ValueError unless the factors of penalties are finite and not negative.

    Args:
        bin_weight: factor of the bin regularization, None if not set.
        penalty_weights: factors of any penalties, by name.
    """
    given = dict(penalty_weights or {})
    named = {f"penalty_weights[{name!r}]": weight for name, weight in given.items()}
    for what, weight in {"bin_weight": bin_weight, **named}.items():
        if weight is not None and not 0.0 <= weight < float("inf"):
            raise ValueError(f"{what} must be a number from 0 on, got {weight!r}.")
    if bin_weight is not None and given.get(BIN_REGULARIZATION, bin_weight) != bin_weight:
        raise ValueError(f"bin_weight={bin_weight!r} contradicts penalty_weights={given!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Settings for the layers it matches; None leaves a setting unchanged.

    Attributes:
        layer: regular expression that must match the whole layer name.
        kind: class name of the layer ("Conv2D", "Add", ...); None for any class.
        weight_bits: 0 to 8. 1 keeps only the sign of a weight; 0 prunes the layer: its kernel is 0
            and is no longer trained. A sequence gives one number for each output channel; for a
            depthwise kernel, one for each input channel, whose outputs share it. The kernel then
            has a step per channel.
        activation_bits: bits of the layer's output grid, 2 to 8.
        per_channel: whether the kernel has a step per output channel.
        learned_offset: whether the layer's output may have a learned offset (LSQ+).
        bin_weight: factor of the kernel's part in the bin regularization; 0 excludes the kernel.
        penalty_weights: the same for any penalty, by name.
        method: name of the method that quantizes the kernel and the output.
        skip: whether the kernel and the output stay float. Such a model can be trained but not
            converted.
    """

    layer: str = ".*"
    kind: str | None = None
    weight_bits: WeightBits | None = None
    activation_bits: int | None = None
    per_channel: bool | None = None
    learned_offset: bool | None = None
    bin_weight: float | None = None
    penalty_weights: Mapping[str, float] | None = None
    method: str | None = None
    skip: bool | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.layer)
        except re.error as error:
            raise ValueError(
                f"Rule layer={self.layer!r} is no regular expression: {error}."
            ) from None
        if self.weight_bits is not None:
            bits = check_weight_bits(self.weight_bits, "Rule weight_bits")
            object.__setattr__(self, "weight_bits", bits)
        if self.activation_bits is not None:
            _set_bits(self, "activation_bits", "Rule activation_bits")
        check_penalty_weights(self.bin_weight, self.penalty_weights)

    def matches(self, name: str, kind: str) -> bool:
        """Whether the rule applies to the layer `name` of class `kind`."""
        return self.kind in (None, kind) and re.fullmatch(self.layer, name) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """What rules or an annotation set for a layer; None for fields that they do not set."""

    weight_bits: WeightBits | None
    activation_bits: int | None
    per_channel: bool | None
    learned_offset: bool | None = None
    bin_weight: float | None = None
    penalty_weights: Mapping[str, float] | None = None
    method: str | None = None
    skip: bool | None = None

    def penalty_weight(self, penalty: str) -> float:
        """The factor of the kernel's part in a penalty."""
        if penalty == BIN_REGULARIZATION and self.bin_weight is not None:
            return self.bin_weight
        return (self.penalty_weights or {}).get(penalty, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Bits for a whole model.

    Attributes:
        weight_bits: bits of every kernel except the first and the last, 1 to 8. Rules can also
            prune, and give channels their own bits.
        activation_bits: bits of unsigned activations (after ReLU-like layers).
        signed_activation_bits: bits of signed activations (linear outputs, sums without ReLU).
        first_last_bits: bits of the first and last kernels and of the last one's input (the LSQ
            convention); None treats them like the others.
        input_bits: bits of the model's inputs.
        output_bits: bits of the model's outputs.
        unsigned_input: whether the inputs have no negative values; None lets `quantize_apply`
            determine it from the calibration data, and means signed without such data.
        per_channel: whether kernels have one step per output channel instead of one per tensor.
        learned_offset: whether signed activations that extend far on the positive side only (swish,
            leaky ReLU, ...) get a grid with a learned offset (LSQ+) instead of a symmetric one.
        fold_batch_norm: whether normalizations after a kernel are folded into it during training
            already (`FoldedKernel`), so that the folded kernel has one step.
        bias_bits: bits of the biases, 2 to 8, as multiples of a power of two of the accumulator's
            unit; None for 32. Requires `fold_batch_norm`.
        stored_bits: 8, or 4 for models that are deployed as INT4 files. With 4, kernels of 4 bits
            and fewer are the same integers in the INT4 file as in the int8 file, so both compute
            the same bits, with coarser biases in both.
        weight_start: where the weight steps start: "mse", "lsq" or "range" (`start_step`).
        step_rate: factor, 0 to 1, by which `fit` moves the learned steps and offsets
            (`step_variables`) more slowly than the optimizer would; 0 keeps them as calibrated.
            Adam moves a number by its rate, regardless of the size of its gradient. For the effect
            on accuracy see docs/study.md.
        method: name of the method that quantizes weights and activations.
        penalties: names of the penalties that are added to the loss, each at strength 0 until a
            callback (`BinRegularization`, `PenaltySchedule`) raises it.
        updates: names of the methods that act on the kernels after each step of the optimizer,
            in this order: "freezing", "trs".
        solver: name of the method that `tfbinreg.solve` runs; None for `method`, if it has a
            solver.
        options: options of methods by method name, for instance
            {"bin_regularization": {"detach_step": False}}.
        float_activations: whether activations stay float, for studies of weights alone. Such a
            model can be trained but not converted.
        target: whose integers inference follows after `finalize`, bit for bit: "litert"
            (LiteRT with XNNPACK, which rounds once) or "tflm" (TFLM, CMSIS-NN and the generated C,
            which round twice).
        rules: exceptions, applied in order; they override everything above.
    """

    weight_bits: int = 4
    activation_bits: int = 8
    signed_activation_bits: int = 8
    first_last_bits: int | None = 8
    input_bits: int = 8
    output_bits: int = 8
    unsigned_input: bool | None = None
    per_channel: bool = False
    learned_offset: bool = True
    fold_batch_norm: bool = False
    bias_bits: int | None = None
    stored_bits: int = 8
    weight_start: str = "mse"
    step_rate: float = 1.0
    method: str = LSQ
    penalties: tuple[str, ...] = (BIN_REGULARIZATION,)
    updates: tuple[str, ...] = ()
    solver: str | None = None
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    float_activations: bool = False
    target: str = LITERT
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if self.weight_bits == 0:
            raise ValueError(
                "weight_bits of a recipe cannot be 0, which would prune every kernel: prune layers "
                "or channels by rules."
            )
        _set_bits(self, "weight_bits", "weight_bits", least=1)
        for field in ("activation_bits", "signed_activation_bits", "input_bits", "output_bits"):
            _set_bits(self, field, field)
        if self.first_last_bits is not None:
            _set_bits(self, "first_last_bits", "first_last_bits")
        if self.bias_bits is not None:
            _set_bits(self, "bias_bits", "bias_bits")
            if not self.fold_batch_norm or self.float_activations:
                raise ValueError(
                    "bias_bits needs fold_batch_norm and quantized activations: the unit of a bias "
                    "is made of the steps of the inputs and of the folded kernel."
                )
        if self.stored_bits not in (4, 8):
            raise ValueError(f"stored_bits must be 4 or 8, got {self.stored_bits!r}.")
        if self.stored_bits == 4 and self.bias_bits is not None:
            raise ValueError("bias_bits needs stored_bits=8, whose unit it is made for.")
        if self.weight_start not in STARTS:
            raise ValueError(
                f"weight_start must be one of {', '.join(STARTS)}, got {self.weight_start!r}."
            )
        if not 0.0 <= self.step_rate <= 1.0:
            raise ValueError(f"step_rate must be a number from 0 to 1, got {self.step_rate!r}.")
        check_target(self.target)
        for field in ("penalties", "updates"):
            names = getattr(self, field)
            if isinstance(names, str):
                raise ValueError(f"{field} must be a sequence of names: ({names!r},).")
            object.__setattr__(self, field, tuple(dict.fromkeys(names)))
        object.__setattr__(self, "options", {name: dict(own) for name, own in self.options.items()})
        if isinstance(self.rules, Rule):
            raise ValueError("rules must be a sequence of Rules: (rule,) or [rule].")
        object.__setattr__(self, "rules", tuple(self.rules))

    def with_options(self, method: str, **options: Any) -> Recipe:
        """The same recipe with options of a method set; those not given stay."""
        own = {**self.options.get(method, {}), **options}
        return dataclasses.replace(self, options={**self.options, method: own})

    def __hash__(self) -> int:
        return hash(self.to_json())

    def settings(self, *layers: tuple[str, str]) -> LayerSettings:
        """What the rules set for layers that are fused into one, given as (name, class) pairs.

        A rule that matches one of them applies to all.
        """
        merged: dict[str, Any] = {
            "weight_bits": None,
            "activation_bits": None,
            "per_channel": self.per_channel,
            "learned_offset": self.learned_offset,
            "bin_weight": None,
            "penalty_weights": None,
            "method": self.method,
            "skip": None,
        }
        for rule in self.rules:
            if any(rule.matches(*layer) for layer in layers):
                merged.update(
                    {key: getattr(rule, key) for key in merged if getattr(rule, key) is not None}
                )
        return LayerSettings(**merged)

    def unmatched(self, layers: list[tuple[str, str]]) -> list[Rule]:
        """The rules that match none of the (name, class) pairs: most likely a typo."""
        return [rule for rule in self.rules if not any(rule.matches(*layer) for layer in layers)]

    def to_json(self) -> str:
        """JSON text that `from_json` reads back to an equal recipe."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read `to_json` text.

        Raises:
            ValueError: if the text is not a JSON object with these fields.
        """
        try:
            return cls._from_fields(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"Not a recipe: {error}.") from None

    @classmethod
    def from_data(cls, source: RecipeData) -> Recipe:
        """A recipe from any form in which users can write one.

        Args:
            source: a Recipe, a dict of its fields, JSON text, or the path of a JSON file; None for
                the default recipe.

        Raises:
            TypeError: if it is none of these.
            ValueError: if the file does not exist or does not contain a recipe.
        """
        if source is None:
            return cls()
        if isinstance(source, Recipe):
            return source
        if isinstance(source, Mapping):
            return cls._from_fields(source)
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(
                "recipe must be a Recipe, a dict of its fields, JSON text or the path of a JSON "
                f"file, got {type(source).__name__}."
            )
        text = os.fspath(source)
        return cls.from_json(text if text.lstrip().startswith("{") else _read(text))

    @classmethod
    def _from_fields(cls, fields: Any) -> Recipe:
        if not isinstance(fields, Mapping):
            raise ValueError(f"Not a recipe: {type(fields).__name__} instead of named fields.")
        try:
            own = dict(fields)
            _check_fields(cls, own)
            for rule in own.get("rules", ()):
                if isinstance(rule, Mapping):
                    _check_fields(Rule, rule)
            rules = [
                rule if isinstance(rule, Rule) else Rule(**rule) for rule in own.pop("rules", ())
            ]
            return cls(rules=tuple(rules), **own)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"Not a recipe: {error}.") from None


def _check_fields(cls: Any, given: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that is not a field, and suggest the closest one."""
    fields = [field.name for field in dataclasses.fields(cls)]
    for name in given:
        if name not in fields:
            close = difflib.get_close_matches(str(name), fields, n=1)
            meant = f": did you mean {close[0]!r}?" if close else f"; it has {', '.join(fields)}."
            raise ValueError(f"Not a recipe: a {cls.__name__} has no field {name!r}{meant}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"No recipe can be read from {path!r}: {error}.") from None
