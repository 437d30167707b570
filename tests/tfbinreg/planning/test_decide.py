import dataclasses

import pytest
import tf_keras as keras

from tfbinreg import Recipe, Rule, register_method
from tfbinreg.core.recipe import LayerSettings
from tfbinreg.frontend.normalize import normalize
from tfbinreg.methods import roster
from tfbinreg.network.added_layers import ChannelAffine, HardSwish
from tfbinreg.network.graph import trace
from tfbinreg.planning.decide import decide

layers = keras.layers
SIGNS = dataclasses.replace(
    roster.find("lsq", "weights"), name="signs", kernel_bits=(1,), channel_bits=(0, 1), about=None
)


def functional(wire, shape=(8, 8, 3)):
    """The graph of the model that `wire` makes from its input."""
    image = keras.Input(shape, name="image")
    return trace(keras.Model(image, wire(image), name="net"))


def conv(name, tensor, **options):
    return layers.Conv2D(4, 3, padding="same", name=name, **options)(tensor)


@pytest.fixture(scope="module")
def graph(float_net):
    return trace(normalize(float_net)[0])


def bits(plan, column):
    return {row["layer"]: row[column] for row in plan.rows() if row[column] is not None}


def settings(weight_bits=None, activation_bits=None, per_channel=None):
    return LayerSettings(
        weight_bits=weight_bits, activation_bits=activation_bits, per_channel=per_channel
    )


class TestBits:
    def test_first_and_last_kernels_stay_at_eight_bits(self, graph):
        plan = decide(graph, Recipe(weight_bits=2, activation_bits=3, signed_activation_bits=5))
        assert bits(plan, "weight_bits") == {
            "conv": 8, "depthwise": 2, "pointwise": 2, "head": 8
        }  # fmt: skip
        assert bits(plan, "activation_bits") == {
            "image": 8,  # input
            "conv_relu": 3,
            "depthwise_bn": 5,  # signed
            "add_relu": 3,
            "pointwise_relu": 3,
            "mean": 8,  # read by the last kernel
            "head": 8,  # output
        }

    def test_first_and_last_kernels_may_be_like_the_others(self, graph):
        recipe = Recipe(
            weight_bits=2, activation_bits=3, first_last_bits=None, input_bits=6, output_bits=7
        )
        plan = decide(graph, recipe)
        assert set(bits(plan, "weight_bits").values()) == {2}
        activations = bits(plan, "activation_bits")
        assert (activations["image"], activations["mean"], activations["head"]) == (6, 3, 7)

    def test_rules_win_over_the_edges_and_the_last_match_wins(self, graph):
        rules = [
            Rule(weight_bits=5, activation_bits=6),
            Rule(kind="Conv2D", weight_bits=4),
            Rule(layer="conv", weight_bits=3, activation_bits=7, per_channel=True),
        ]
        plan = decide(graph, Recipe(weight_bits=2, rules=rules))
        assert bits(plan, "weight_bits") == {
            "conv": 3, "depthwise": 5, "pointwise": 4, "head": 5
        }  # fmt: skip
        activations = bits(plan, "activation_bits")
        assert activations.pop("conv_relu") == 7  # named by the conv it is fused with
        assert set(activations.values()) == {6}
        axes = {plan.graph.nodes[index].name: k.axis for index, k in plan.kernels.items()}
        assert axes == {"conv": 3, "depthwise": None, "pointwise": None, "head": None}

    def test_per_channel_axes(self, graph):
        plan = decide(graph, Recipe(per_channel=True))
        axes = {plan.graph.nodes[index].name: k.axis for index, k in plan.kernels.items()}
        assert axes == {"conv": 3, "depthwise": 2, "pointwise": 3, "head": 1}

    def test_two_branches_from_the_input_are_both_first(self):
        graph = functional(lambda x: layers.Add()([conv("a", x), conv("b", conv("c", x))]))
        assert set(bits(decide(graph, Recipe(weight_bits=2)), "weight_bits").values()) == {8}


class TestGrids:
    def test_signs_limits_and_sharing(self, graph):
        plan = decide(graph, Recipe())
        grids = {graph.nodes[index].name: grid for index, grid in plan.grids.items()}
        assert {name for name, grid in grids.items() if grid.signed} == {
            "image", "depthwise_bn", "head"
        }  # fmt: skip
        assert grids["conv_relu"].upper_limit == 6
        assert grids["add_relu"].upper_limit is None
        assert [name for name, grid in grids.items() if grid.fixed] == ["image"]
        assert {graph.nodes[i].name: graph.nodes[o].name for i, o in plan.same_grid.items()} == {
            "pool": "add_relu"
        }
        assert {graph.nodes[index].name for index in plan.absorbed} == {
            "conv_relu", "add_relu", "pointwise_relu"
        }  # fmt: skip

    def test_a_relu_that_others_look_behind_is_not_absorbed(self):
        def wire(x):
            x = conv("a", x)
            return layers.Add(name="sum")([x, layers.ReLU(name="relu")(x)])

        plan = decide(functional(wire), Recipe())
        assert plan.absorbed == frozenset()
        names = [node.name for node in plan.graph.nodes]
        assert plan.same_grid == {names.index("relu"): names.index("a")}

    def test_a_norm_behind_no_kernel_starts_a_chain_of_its_own(self):
        def wire(x):
            x = conv("a", x)
            x = layers.Add(name="sum")([x, layers.BatchNormalization(name="bn1")(x)])
            return layers.ReLU(name="relu")(layers.BatchNormalization(name="bn2")(x))

        plan = decide(functional(wire), Recipe())
        names = [node.name for node in plan.graph.nodes]
        chains = [[names[i] for i in chain] for chain in plan.chains.values()]
        assert ["bn1"] in chains and ["bn2", "relu"] in chains and ["a"] in chains
        assert not plan.grids[names.index("relu")].signed

    def test_concatenated_tensors_share_one_grid(self):
        def wire(x):
            left, right = layers.ReLU(name="left")(conv("a", x)), conv("b", x)
            joined = layers.Concatenate(name="join")([left, layers.MaxPooling2D(1)(right)])
            return conv("c", layers.Concatenate(name="again")([joined, conv("d", joined)]))

        plan = decide(functional(wire), Recipe())
        names = [node.name for node in plan.graph.nodes]
        grid = plan.grids[names.index("left")]
        assert {names[i] for i in grid.nodes} == {"left", "b", "d"}
        assert all(plan.grids[index] is grid for index in grid.nodes)
        assert grid.signed and plan.absorbed == frozenset()
        assert plan.same_grid[names.index("again")] == grid.nodes[0]

    def test_unsigned_tensors_share_an_unsigned_grid(self):
        def wire(x):
            return layers.Concatenate()([layers.ReLU()(conv(n, x)) for n in "ab"])

        plan = decide(functional(wire), Recipe())
        (grid,) = {id(g): g for g in plan.grids.values() if len(g.nodes) == 2}.values()
        assert not grid.signed and len(plan.absorbed) == 2

    @pytest.mark.parametrize(
        ("start", "signed", "offset"),
        [("relu", False, False), ("linear", True, False), ("leaky", True, True)],
    )
    def test_a_shared_grid_may_feed_itself(self, start, signed, offset):
        """A sum of concatenated tensors is concatenated with them."""

        def wire(x):
            starts = {"relu": layers.ReLU(), "leaky": layers.LeakyReLU()}
            x = starts.get(start, layers.Dropout(0.5))(conv("a", x))
            total = layers.Add(name="total")([x, layers.Add(name="double")([x, x])])
            return conv("b", layers.Concatenate()([x, total]))

        graph = functional(wire)
        plan = decide(graph, Recipe())
        grid = plan.grids[[node.name for node in graph.nodes].index("total")]
        assert len(grid.nodes) == 2
        assert (grid.signed, grid.offset) == (signed, offset)

    @pytest.mark.parametrize("learned_offset", [True, False])
    def test_swish_like_outputs_get_a_learned_offset(self, learned_offset):
        def wire(x):
            x = conv("a", x)
            gate = layers.Activation("sigmoid", name="gate")(x)
            x = layers.Multiply(name="silu")([x, gate])
            x = HardSwish(name="hard")(conv("b", x))
            x = layers.LeakyReLU(name="leaky")(conv("c", x))
            x = layers.GlobalAveragePooling2D(name="mean")(x)
            return layers.Dense(2, name="d")(x)

        graph = functional(wire)
        plan = decide(graph, Recipe(learned_offset=learned_offset))
        offset = {graph.nodes[i].name for i, grid in plan.grids.items() if grid.offset}
        assert offset == ({"silu", "hard", "leaky", "mean"} if learned_offset else set())
        recipe = Recipe(
            learned_offset=learned_offset, rules=[Rule(layer="silu", learned_offset=False)]
        )
        offset = {
            graph.nodes[i].name for i, grid in decide(graph, recipe).grids.items() if grid.offset
        }
        assert "silu" not in offset
        (gate,) = [g for i, g in plan.grids.items() if graph.nodes[i].name == "gate"]
        assert gate.prescribed and not gate.signed and gate.bits == 8

    def test_a_prescribed_grid_at_the_output_is_left_to_the_file(self):
        def wire(x):
            x = layers.Activation("sigmoid", name="soft")(conv("a", x))
            return layers.Reshape((-1,))(x)

        plan = decide(functional(wire), Recipe())
        assert {plan.graph.nodes[i].name for i in plan.grids} == {"image", "a"}

    def test_sums_and_products_of_unsigned_tensors_are_unsigned(self):
        def wire(x):
            a, b = (layers.ReLU()(conv(name, x)) for name in "ab")
            return layers.Multiply(name="times")([layers.Add(name="plus")([a, b]), b])

        plan = decide(functional(wire), Recipe())
        assert [plan.graph.nodes[i].name for i, g in plan.grids.items() if g.signed] == ["image"]

    def test_constants_on_an_input_belong_to_the_input(self):
        def wire(x):
            return conv("b", conv("a", layers.ZeroPadding2D()(ChannelAffine(name="scaled")(x))))

        graph = functional(wire)
        plan = decide(graph, Recipe(weight_bits=2, unsigned_input=True))
        (grid,) = [g for i, g in plan.grids.items() if graph.nodes[i].name == "scaled"]
        assert (grid.fixed, grid.from_range, grid.signed) == (True, True, False)
        assert set(bits(plan, "weight_bits").values()) == {8}  # a is still the first kernel
        graph.nodes[1].layer.offset.assign([-1.0, 0.0, 0.0])
        plan = decide(graph, Recipe(unsigned_input=True))
        assert [g.signed for i, g in plan.grids.items() if graph.nodes[i].name == "scaled"] == [
            True
        ]


class TestAnnotated:
    def test_only_annotated_layers_and_what_their_kernels_read(self, graph):
        plan = decide(graph, Recipe(), {"pointwise": settings(weight_bits=2, activation_bits=5)})
        assert bits(plan, "weight_bits") == {"pointwise": 2}
        assert bits(plan, "activation_bits") == {"add_relu": 8, "pointwise_relu": 5}

    def test_annotations_win_over_rules_and_leave_the_rest_to_them(self, graph):
        annotated = {node.name: None for node in graph.nodes}
        annotated["conv"] = settings(weight_bits=3)
        annotated["head"] = settings(per_channel=False)
        recipe = Recipe(per_channel=True, rules=[Rule(weight_bits=5, activation_bits=6)])
        plan = decide(graph, recipe, annotated)
        assert bits(plan, "weight_bits") == {
            "conv": 3, "depthwise": 5, "pointwise": 5, "head": 5
        }  # fmt: skip
        assert set(bits(plan, "activation_bits").values()) == {6}
        axes = {plan.graph.nodes[index].name: k.axis for index, k in plan.kernels.items()}
        assert axes == {"conv": 3, "depthwise": 2, "pointwise": 3, "head": None}


class TestSkipped:
    def test_a_rule_leaves_a_layer_float(self, graph):
        recipe = Recipe(rules=[Rule(layer="pointwise", skip=True)])
        plan = decide(graph, recipe)
        assert set(bits(plan, "weight_bits")) == {"conv", "depthwise", "head"}
        assert "pointwise_relu" not in bits(plan, "activation_bits")
        notes = {row["layer"]: row["note"] for row in plan.rows()}
        assert notes["pointwise"] == notes["pointwise_relu"] == "skipped by a rule"
        again = [*recipe.rules, Rule(kind="Conv2D", skip=False)]
        assert "pointwise" in bits(decide(graph, Recipe(rules=again)), "weight_bits")

    def test_float_activations_but_for_those_a_rule_names(self, graph):
        rules = [Rule(layer="conv", activation_bits=4)]
        plan = decide(graph, Recipe(float_activations=True, rules=rules))
        assert bits(plan, "activation_bits") == {"conv_relu": 4}


class TestProblems:
    def problems(self, wire, **recipe):
        return [str(problem) for problem in decide(functional(wire), Recipe(**recipe)).problems]

    def test_a_rule_without_a_layer(self):
        (rule,) = self.problems(lambda x: conv("a", x), rules=[Rule(layer="c", weight_bits=2)])
        assert rule.startswith("Rule(layer='c'")
        assert "matches no layer; correct the name or remove the rule" in rule

    def test_a_limited_relu_on_a_shared_signed_grid(self):
        def wire(x):
            gate = layers.ReLU(1.0, name="gate")(conv("a", x))
            return layers.Concatenate()([gate, conv("b", x)])

        (problem,) = self.problems(wire)
        assert problem.startswith("gate: ReLU up to 1 that shares its grid")

    def test_nothing_to_quantize(self):
        plan = decide(functional(layers.ReLU()), Recipe())
        (problem,) = map(str, plan.problems)
        assert problem.startswith("net: no layer has a kernel to quantize; add a Conv2D")
        assert str(plan).splitlines()[-1] == f"problem: {problem}"


class TestFewBits:
    def test_a_kernel_of_one_bit_or_none(self, graph):
        rules = [Rule(layer="pointwise", weight_bits=1), Rule(layer="depthwise", weight_bits=0)]
        plan = decide(graph, Recipe(rules=rules))
        assert not plan.problems
        assert bits(plan, "weight_bits")["pointwise"] == 1
        assert bits(plan, "weight_bits")["depthwise"] == "0, 4 pruned"
        rows = {row["layer"]: row["bytes"] for row in plan.rows()}
        assert (rows["pointwise"], rows["depthwise"]) == (3, 0)

    def test_channels_have_bits_of_their_own_and_a_step_each(self, graph):
        rules = [
            Rule(layer="conv", weight_bits=(0, 1, 8, 4)),
            Rule(layer="depthwise", weight_bits=(2, 2, 2, 2)),
        ]
        plan = decide(graph, Recipe(rules=rules))
        assert not plan.problems
        specs = {plan.graph.nodes[index].name: k.spec for index, k in plan.kernels.items()}
        conv, depthwise = specs["conv"], specs["depthwise"]
        assert (conv.bits, conv.channel_bits, conv.axis) == (8, (0, 1, 8, 4), 3)
        assert (depthwise.bits, depthwise.channel_bits, depthwise.axis) == (2, None, 2)
        assert bits(plan, "weight_bits")["conv"] == "0-8, 1 pruned"
        assert "0-8, 1 pruned" in str(plan)
        rows = {row["layer"]: row["bytes"] for row in plan.rows()}
        assert rows["conv"] == -(-27 * (0 + 1 + 8 + 4) // 8)

    def test_every_reason_is_given_at_once(self, graph):
        rules = [
            Rule(layer="conv", weight_bits=(2, 4)),
            Rule(layer="depthwise", weight_bits=1),
            Rule(layer="pointwise", weight_bits=0),
            Rule(layer="head", weight_bits=(2, 4, 8)),
        ]
        problems = {}
        for problem in map(str, decide(graph, Recipe(method="tqt", rules=rules)).problems):
            problems.setdefault(problem.split(":")[0], []).append(problem)
        assert ["bits for 2 channels, and its kernel has 4" in p for p in problems["conv"]] == [
            True, False
        ]  # fmt: skip
        assert "'tqt' has no 1-bit kernels" in problems["depthwise"][0]
        assert "'tqt' prunes no kernels" in problems["pointwise"][0]
        assert "'tqt' gives the channels of a kernel the same bits" in problems["head"][0]

    def test_a_method_says_which_bits_it_has(self, graph):
        register_method(SIGNS)
        rules = [Rule(layer="conv", weight_bits=(0, 1, 1, 1))]
        plan = decide(
            graph, Recipe(weight_bits=1, first_last_bits=None, method="signs", rules=rules)
        )
        assert not plan.problems
        rules = [Rule(layer="conv", weight_bits=(0, 1, 3, 2)), Rule(layer="head", weight_bits=2)]
        problems = decide(
            graph, Recipe(weight_bits=1, first_last_bits=None, method="signs", rules=rules)
        ).problems
        assert [str(problem).split(";")[0] for problem in problems] == [
            "conv: 'signs' has no channels of 2, 3 bits in a kernel of several",
            "head: 'signs' has no 2-bit kernels",
        ]

    def test_no_output_is_cut_off(self, graph):
        for layer, cut in [("head", True), ("conv", True), ("depthwise", False)]:
            rules = [Rule(layer=layer, weight_bits=0)]
            problems = decide(graph, Recipe(rules=rules)).problems
            assert len(problems) == cut
            if cut:
                assert f"{layer}: pruned as a whole it leaves the output 'head' without any" in str(
                    problems[0]
                )


def test_an_input_that_nothing_takes_is_a_problem():
    image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="extra")
    plan = decide(trace(keras.Model([image, extra], conv("conv", image))), Recipe())
    assert [str(p) for p in plan.problems] == ["extra: no layer takes this input; leave it out"]
