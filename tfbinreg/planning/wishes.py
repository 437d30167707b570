"""What rules and annotations set for each layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from tfbinreg.core.recipe import LayerSettings, Recipe
from tfbinreg.network.graph import Graph


@dataclasses.dataclass(frozen=True)
class Wishes:
    """The wishes for the layers of a model.

    Attributes:
        graph: of the model.
        recipe: bits for the whole of it, and rules.
        annotated: for a model annotated layer by layer, the annotated layers and their settings,
            which win over the recipe's; None if every layer is to be quantized.
    """

    graph: Graph
    recipe: Recipe
    annotated: Mapping[str, LayerSettings | None] | None = None

    def settings(self, chain: Iterable[int]) -> LayerSettings:
        """Rules for layers that are one operation, then its annotations; the last one wins."""
        nodes = [self.graph.nodes[index] for index in chain]
        merged = self.recipe.settings(*[(node.name, node.kind) for node in nodes])
        for node in nodes:
            settings = (self.annotated or {}).get(node.name)
            if settings is not None:
                changes = {k: v for k, v in dataclasses.asdict(settings).items() if v is not None}
                merged = dataclasses.replace(merged, **changes)
        return merged

    def selects(self, index: int) -> bool:
        """Whether a layer is to be quantized."""
        if self.settings([index]).skip:
            return False
        return self.annotated is None or self.graph.nodes[index].name in self.annotated

    def methods(self, chains: Iterable[Iterable[int]]) -> list[str]:
        """The methods requested for operations, each once."""
        wanted = [self.settings(chain).method or self.recipe.method for chain in chains]
        return list(dict.fromkeys(wanted))
