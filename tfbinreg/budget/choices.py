"""The choice for a flash budget: bits for each kernel or channel, and the recipe with them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from tfbinreg.core.grid import MAX_BITS, WeightBits, bits_text
from tfbinreg.core.recipe import Recipe, Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """The choice for a kernel, and the reason.

    Attributes:
        layer: name of the layer.
        parameters: size of its kernel.
        bits: the chosen width, or that of each channel, 0 for a pruned channel.
        bytes: bytes of the packed kernel and the constants of its channels.
        sensitivity: by width, how far the outputs move when this kernel alone has that width: mean
            squared difference over the variance of the outputs. For channels it is an estimate.
        moved: the same at the chosen bits.
        fixed: whether a rule of the recipe had already set the bits.
    """

    layer: str
    parameters: int
    bits: WeightBits
    bytes: int
    sensitivity: Mapping[int, float]
    moved: float
    fixed: bool = False

    @property
    def fewest(self) -> int:
        """Bits of the kernel, or of the channel with the fewest."""
        return self.bits if isinstance(self.bits, int) else min(self.bits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlashBudget:
    """Bits per layer that fit a budget. `print` shows them as a table.

    Attributes:
        recipe: the recipe to quantize and train with.
        layers: the choices in layer order.
        limit: the budget in bytes.
    """

    recipe: Recipe
    layers: tuple[LayerChoice, ...]
    limit: int

    @property
    def bytes(self) -> int:
        """Packed weights and constants."""
        return sum(choice.bytes for choice in self.layers)

    @property
    def squeezed(self) -> tuple[str, ...]:
        """The layers with fewer than 8 bits, at least in some channels."""
        return tuple(c.layer for c in self.layers if c.fewest < MAX_BITS and not c.fixed)

    @property
    def moved(self) -> float:
        """How far the outputs move, assuming that the layers are independent."""
        return sum(choice.moved for choice in self.layers)

    def __str__(self) -> str:
        return f"{self.table()}\n{self.bytes} of {self.limit} bytes, estimated"

    def table(self) -> str:
        """The choices as text, a line for each layer.

        The effect of fewer bits in one layer alone is the mean squared difference of the outputs,
        as a share of their variance (`Sensitivity.moved`).
        """
        free = (choice.sensitivity for choice in self.layers if not choice.fixed)
        widths = sorted({width for own in free for width in own} - {MAX_BITS})
        header = (
            *("layer", "parameters", "bits", "bytes"),
            *(f"moved at {width} bits" for width in widths),
        )
        rows = [header]
        for choice in self.layers:
            moved = ["" if choice.fixed else f"{choice.sensitivity[w]:.2g}" for w in widths]
            bits = f"{bits_text(choice.bits)}{' (rule)' if choice.fixed else ''}"
            rows.append((choice.layer, str(choice.parameters), bits, str(choice.bytes), *moved))
        columns = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, columns, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def with_bits(recipe: Recipe, choices: Sequence[LayerChoice]) -> Recipe:
    """The recipe with added rules for the bits of the kernels that no rule had set."""
    free = {choice.layer: choice.bits for choice in choices if not choice.fixed}
    return dataclasses.replace(recipe, rules=(*recipe.rules, *bit_rules(free)))


def bit_rules(bits: Mapping[str, WeightBits]) -> tuple[Rule, ...]:
    """A rule for each width, and one for each kernel whose channels differ.

    Args:
        bits: bits of each kernel, by layer name.
    """
    return tuple(
        Rule(
            layer="|".join(re.escape(layer) for layer in bits if bits[layer] == own),
            weight_bits=own,
        )
        for own in sorted(set(bits.values()), key=lambda own: (isinstance(own, tuple), own))
    )
