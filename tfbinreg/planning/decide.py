"""Decide, before anything is touched, what happens to each layer and why."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from tfbinreg.core.problems import Problem
from tfbinreg.core.recipe import LayerSettings, Recipe
from tfbinreg.network.graph import Graph, Node
from tfbinreg.network.layer_kinds import KINDS, Kind, Role, activation_name, fixed_grid, relu_limit
from tfbinreg.planning.plan import GridPlan, KernelPlan, Plan

_CHAIN_HEADS = (Role.INPUT, Role.KERNEL, Role.NORM, Role.MERGE, Role.FIXED)
# The paper's start value 2 mean|v| / sqrt(qmax) suits few levels. At 8 bits it spans some 20 means:
# most codes would never be used, so from here on a step starts from the range of the data.
_FEW_BITS = 4
_FUSED_LIMITS = (None, 6)  # upper limits of a ReLU that TFLite can fuse


def decide(
    graph: Graph,
    recipe: Recipe,
    annotated: Mapping[str, LayerSettings | None] | None = None,
) -> Plan:
    """Plan the quantization of a normalized model.

    Args:
        graph: layer graph of a model that `normalize` returned.
        recipe: bits per layer.
        annotated: for a model annotated layer by layer, the annotated layers and their settings,
            which win over the recipe's; None quantizes every layer.
    """
    return _Decision(graph, recipe, annotated).plan()


class _Decision:
    """The steps of `decide`, over one graph. A grid is known by its leader, the first of the chain
    ends that share it."""

    def __init__(
        self,
        graph: Graph,
        recipe: Recipe,
        annotated: Mapping[str, LayerSettings | None] | None,
    ) -> None:
        self.graph, self.recipe, self.annotated = graph, recipe, annotated
        self.kinds: list[Kind] = [KINDS[node.kind] for node in graph.nodes]
        self.roles = [kind.role for kind in self.kinds]
        self.chains = self._fused_chains()
        self.leader: dict[int, int] = {}  # chain end -> a chain end whose grid it shares
        self.owner = self._grid_owners()
        self.groups: dict[int, list[int]] = {}
        for tail in sorted(self.chains):
            self.groups.setdefault(self._find(tail), []).append(tail)
        self.inner = self._feeding_operations()
        self.first, self.last = self._first_and_last_kernels()

    def plan(self) -> Plan:
        kernels = {
            node.index: self._kernel(node)
            for node in self.graph.nodes
            if self.roles[node.index] is Role.KERNEL and self._selected(node)
        }
        grids: dict[int, GridPlan] = {}
        for leader, tails in self.groups.items():
            if self._wants_grid(leader, tails, kernels):
                grid = self._grid(leader, tails)
                grids.update(dict.fromkeys(tails, grid))
        fused = {index for chain in self.chains.values() for index in chain}
        same = {
            index: self._find(owner)
            for index, owner in self.owner.items()
            if index not in fused and self._find(owner) in grids
        }
        skipped = frozenset(
            index for chain in self.chains.values() for index in chain if self._settings(chain).skip
        )
        plan = Plan(self.graph, kernels, self.chains, grids, same, skipped)
        return dataclasses.replace(plan, problems=tuple(self._problems(plan)))

    def _selected(self, node: Node) -> bool:
        if self._settings([node.index]).skip:
            return False
        return self.annotated is None or node.name in self.annotated

    def _fused_chains(self) -> dict[int, tuple[int, ...]]:
        """Chains kernel [-> BatchNormalization] [-> ReLU] and so on, by their last node."""
        chains: dict[int, tuple[int, ...]] = {}
        fused: set[int] = set()
        for node in self.graph.nodes:
            if self.roles[node.index] not in _CHAIN_HEADS or node.index in fused:
                continue
            chain = [node.index]
            if self.roles[node.index] in (Role.KERNEL, Role.NORM):
                while self._follower(chain[-1], Role.NORM) is not None:
                    chain.append(self.graph.consumers(chain[-1])[0].index)
            while self._is_augmented(chain[-1]) and self._is_input(chain):
                chain.append(self.graph.consumers(chain[-1])[0].index)
            if self.kinds[node.index].fuses_relu:
                relu = self._follower(chain[-1], Role.RELU)
                chain += [] if relu is None else [relu]
            chains[chain[-1]] = tuple(chain)
            fused.update(chain)
        return chains

    def _is_input(self, chain: Sequence[int]) -> bool:
        """Whether a chain is a model input, or constants applied to one."""
        head = self.graph.nodes[chain[0]]
        if self.roles[head.index] is Role.INPUT:
            return True
        acting = [i for i in chain if not self.kinds[i].augments]
        if any(self.graph.nodes[i].kind != "ChannelAffine" for i in acting):
            return False
        (source,) = head.inputs
        while self.roles[source] is Role.SAME:
            (source,) = self.graph.nodes[source].inputs
        return self.roles[source] is Role.INPUT

    def _is_augmented(self, index: int) -> bool:
        """Whether the only user of a node is augmentation."""
        follower = self.graph.sole_consumer(index)
        return follower is not None and self.kinds[follower.index].augments

    def _follower(self, index: int, role: Role) -> int | None:
        """The only user of a node, if it has this role."""
        follower = self.graph.sole_consumer(index)
        return follower.index if follower and self.roles[follower.index] is role else None

    def _grid_owners(self) -> dict[int, int]:
        """For each node the chain end whose grid its output lies on."""
        owner: dict[int, int] = {}
        for node in self.graph.nodes:
            if node.index in self.chains:
                owner[node.index] = node.index
            elif node.inputs:
                sources = [owner.get(index, index) for index in node.inputs]
                owner[node.index] = sources[0]
                if self.roles[node.index] is Role.JOIN:
                    for source in sources[1:]:
                        self._unite(sources[0], source)
        return owner

    def _find(self, tail: int) -> int:
        while tail in self.leader:
            tail = self.leader[tail]
        return tail

    def _unite(self, one: int, other: int) -> None:
        first, second = sorted((self._find(one), self._find(other)))
        if first != second:
            self.leader[second] = first

    def _source(self, index: int) -> int:
        """The leader of the grid that the first input of a node lies on."""
        producer = self.graph.nodes[index].inputs[0]
        return self._find(self.owner.get(producer, producer))

    def _sources(self, index: int) -> list[int]:
        inputs = self.graph.nodes[index].inputs
        return [self._find(self.owner.get(producer, producer)) for producer in inputs]

    def _feeding_operations(self) -> set[int]:
        """Nodes whose results are used by more than the outputs of the model."""
        feeding: set[int] = set()
        for node in reversed(self.graph.nodes):
            if self.roles[node.index] is not Role.SAME or node.index in feeding:
                feeding.update(node.inputs)
        return feeding

    def _first_and_last_kernels(self) -> tuple[set[int], set[int]]:
        kernels = [i for i, role in enumerate(self.roles) if role is Role.KERNEL]
        first = {i for i in kernels if self._is_input_grid(self._source(i))}
        feeds: set[int] = set()  # nodes from which a kernel is reached
        for node in reversed(self.graph.nodes):
            if self.roles[node.index] is Role.KERNEL or node.index in feeds:
                feeds.update(node.inputs)
        return first, {i for i in kernels if i not in feeds}

    def _is_input_grid(self, tail: int) -> bool:
        """Whether a grid is that of a model input, or of constants applied to one."""
        return self._is_input(self.chains.get(tail, (tail,)))

    def _settings(self, chain: Iterable[int]) -> LayerSettings:
        """Rules for a fused chain, then its annotations; of several the last wins."""
        nodes = [self.graph.nodes[index] for index in chain]
        merged = self.recipe.settings(*[(node.name, node.kind) for node in nodes])
        for node in nodes:
            settings = (self.annotated or {}).get(node.name)
            if settings is not None:
                changes = {k: v for k, v in dataclasses.asdict(settings).items() if v is not None}
                merged = dataclasses.replace(merged, **changes)
        return merged

    def _kernel(self, node: Node) -> KernelPlan:
        settings = self._settings([node.index])
        bits = settings.weight_bits
        if bits is None:
            edge = node.index in self.first | self.last
            keep = self.recipe.first_last_bits if edge else None
            bits = keep or self.recipe.weight_bits
        kind = self.kinds[node.index]
        kernel = getattr(node.layer, kind.kernel or "")
        axis = kind.channel_axis if settings.per_channel else None
        chain = next(chain for chain in self.chains.values() if chain[0] == node.index)
        norms = tuple(index for index in chain if self.roles[index] is Role.NORM)
        return KernelPlan(
            node=node.index,
            bits=bits,
            axis=axis,
            parameters=int(np.prod(kernel.shape)),
            norms=norms if self.recipe.fold_batch_norm else None,
            bias_bits=self.recipe.bias_bits,
            bin_weight=settings.bin_weight,
            penalty_weights=settings.penalty_weights,
            method=settings.method or self.recipe.method,
        )

    def _wants_grid(self, leader: int, tails: list[int], kernels: Mapping[int, Any]) -> bool:
        if self.roles[leader] is Role.FIXED and leader not in self.inner:
            return False
        settings = [self._settings(self.chains[tail]) for tail in tails]
        if self.recipe.float_activations:
            return any(own.activation_bits is not None for own in settings)
        if all(own.skip for own in settings):
            return False
        chains = [index for tail in tails for index in self.chains[tail]]
        if any(self._selected(self.graph.nodes[i]) for i in chains):
            return True
        return any(self._source(kernel) == leader for kernel in kernels)

    def _grid(self, leader: int, tails: list[int]) -> GridPlan:
        if self.roles[leader] is Role.FIXED:
            return GridPlan(
                nodes=(leader,),
                bits=8,
                signed=fixed_grid(self.graph.nodes[leader].layer).signed,
                prescribed=True,
                reason="fixed output grid",
            )
        signed, given = leader in self._signed, self._is_input_grid(leader)
        bits, reason = max(self._grid_bits(tail, signed) for tail in tails)
        return GridPlan(
            nodes=tuple(tails),
            bits=bits,
            signed=signed,
            offset=leader in self._lopsided and self._may_have_offset(tails),
            upper_limit=self._common_limit(tails),
            from_range=bits > _FEW_BITS or given or any(self._is_output(tail) for tail in tails),
            fixed=given,
            method=self._methods(tails)[0],
            reason=reason,
        )

    def _methods(self, tails: Iterable[int]) -> list[str]:
        """The methods that are wanted for the tensors on a grid, each once."""
        wanted = [self._settings(self.chains[tail]).method for tail in tails]
        return list(dict.fromkeys(method or self.recipe.method for method in wanted))

    def _may_have_offset(self, tails: Iterable[int]) -> bool:
        return all(self._settings(self.chains[tail]).learned_offset for tail in tails)

    def _common_limit(self, tails: Iterable[int]) -> float | None:
        nodes = [self.graph.nodes[tail] for tail in tails]
        limits = {
            relu_limit(node.layer) if self.roles[node.index] is Role.RELU else None
            for node in nodes
        }
        return limits.pop() if len(limits) == 1 else None

    @functools.cached_property
    def _signed(self) -> set[int]:
        """Leaders of the grids with a tensor that can be negative.

        A grid may hold what is computed from another tensor on it, so they are found in rounds.
        """
        signed: set[int] = set()
        while True:
            found = {
                leader
                for leader, tails in self.groups.items()
                if any(self._chain_signed(tail, signed) for tail in tails)
            }
            if found == signed:
                return signed
            signed = found

    def _chain_signed(self, tail: int, signed: AbstractSet[int]) -> bool:
        """Whether a chain's result can be negative if grids with negative numbers are `signed`."""
        head = self.chains[tail][0]
        if self.roles[head] is Role.INPUT:
            return not self.recipe.unsigned_input
        if self.roles[tail] is Role.RELU:
            return False
        if self.roles[head] is Role.FIXED:
            return fixed_grid(self.graph.nodes[head].layer).signed
        keeps = self.kinds[head].keeps_sign or (
            self._is_input_grid(tail) and self._is_growing(self.chains[tail])
        )
        return not keeps or any(source in signed for source in self._sources(head))

    def _is_growing(self, chain: Iterable[int]) -> bool:
        """Whether ChannelAffines make no number negative that was not."""
        layers = [self.graph.nodes[index].layer for index in chain]
        return all(np.all(w >= 0) for layer in layers for w in layer.get_weights())

    @functools.cached_property
    def _lopsided(self) -> set[int]:
        """Leaders of the signed grids all of whose tensors reach far on the positive side only."""
        lopsided = set(self._signed)
        while True:
            found = {
                leader
                for leader in lopsided
                if all(self._chain_lopsided(tail, lopsided) for tail in self.groups[leader])
            }
            if found == lopsided:
                return lopsided
            lopsided = found

    def _chain_lopsided(self, tail: int, lopsided: AbstractSet[int]) -> bool:
        """The same for a chain's result, if this is true of the grids `lopsided`."""
        head = self.chains[tail][0]
        if self.roles[tail] is Role.RELU or self.kinds[head].lopsided or self._self_gated(head):
            return True
        if self.roles[head] is Role.FIXED or not self.kinds[head].keeps_sign:
            return False
        return all(s in lopsided or s not in self._signed for s in self._sources(head))

    def _self_gated(self, index: int) -> bool:
        """Whether a node is x * sigmoid(x)."""
        node = self.graph.nodes[index]
        if node.kind != "Multiply":
            return False
        return any(
            gate.kind == "Activation"
            and activation_name(gate.layer) == "sigmoid"
            and gate.inputs[0] in node.inputs
            for gate in (self.graph.nodes[i] for i in node.inputs)
        )

    def _grid_bits(self, tail: int, signed: bool) -> tuple[int, str]:
        recipe, leader = self.recipe, self._find(tail)
        asked = self._settings(self.chains[tail]).activation_bits
        feeds_last = any(self._source(kernel) == leader for kernel in self.last)
        if asked is not None:
            return asked, "set by a rule"
        if self._is_input_grid(tail):
            return recipe.input_bits, "model input"
        if self._is_output(tail):
            return recipe.output_bits, "model output"
        if feeds_last and recipe.first_last_bits is not None:
            return max(recipe.first_last_bits, recipe.activation_bits), "input of the last kernel"
        if signed:
            return recipe.signed_activation_bits, "signed activation"
        return recipe.activation_bits, "unsigned activation"

    def _is_output(self, tail: int) -> bool:
        """Whether the model's outputs, before a softmax, lie on the grid behind node `tail`."""
        leader = self._find(tail)
        for index in self.graph.outputs:
            owner = self._find(self.owner.get(index, index))
            if self.roles[owner] is Role.FIXED:
                owner = self._source(owner)
            if owner == leader:
                return True
        return False

    def _problems(self, plan: Plan) -> Iterable[Problem]:
        if Role.KERNEL not in self.roles:
            remedy = "add a Conv2D, DepthwiseConv2D or Dense"
            yield Problem(self.graph.name, "no layer has a kernel to quantize", remedy)
        absorbed = plan.absorbed
        for node in self.graph.nodes:
            if self.roles[node.index] is not Role.RELU or node.index in absorbed:
                continue
            limit = relu_limit(node.layer)
            on_grid = node.index in plan.grids or node.index in plan.same_grid
            if limit not in _FUSED_LIMITS and on_grid:
                what = f"ReLU up to {limit:g} that shares its grid with tensors without this limit"
                yield Problem(node.name, what, "use a ReLU or a ReLU6 there")
        for grid in dict.fromkeys(plan.grids.values()):
            methods = self._methods(grid.nodes)
            if len(methods) > 1 and not grid.prescribed:
                what = f"shares its grid with tensors of other methods ({', '.join(methods)})"
                remedy = "give all of them one method"
                yield Problem(self.graph.nodes[grid.nodes[0]].name, what, remedy)
        pairs = [(node.name, node.kind) for node in self.graph.nodes]
        for rule in self.recipe.unmatched(pairs):
            yield Problem(str(rule), "matches no layer", "correct the name or remove the rule")
