import pytest
import tf_keras as keras

from tfbinreg import Plan, Recipe, Rule
from tfbinreg.graph import trace
from tfbinreg.normalize import normalize
from tfbinreg.plan import Problem, decide, raise_problems
from tfbinreg.recipe import LayerSettings

layers = keras.layers


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


class TestProblems:
    def problems(self, wire, **recipe):
        return [str(problem) for problem in decide(functional(wire), Recipe(**recipe)).problems]

    def test_batch_norm_that_follows_no_kernel_or_one_with_other_readers(self):
        def wire(x):
            x = conv("a", x)
            x = layers.Add(name="sum")([x, layers.BatchNormalization(name="bn1")(x)])
            return layers.BatchNormalization(name="bn2")(x)

        for name, problem in zip(["bn1", "bn2"], self.problems(wire), strict=True):
            assert problem.startswith(f"{name}: BatchNormalization that cannot be folded; let it")

    def test_softmax_inside_and_a_rule_without_a_layer_are_both_listed(self):
        def wire(x):
            return conv("b", layers.Softmax(name="soft")(conv("a", x)))

        soft, rule = self.problems(wire, rules=[Rule(layer="c", weight_bits=2)])
        assert soft == "soft: Softmax inside the model; use it as the output only"
        assert rule.startswith("Rule(layer='c'")
        assert "matches no layer; correct the name or remove the rule" in rule

    def test_nothing_to_quantize(self):
        plan = decide(functional(layers.ReLU()), Recipe())
        (problem,) = map(str, plan.problems)
        assert problem.startswith("net: no layer has a kernel to quantize; add a Conv2D")
        assert str(plan).splitlines()[-1] == f"problem: {problem}"

    def test_all_are_raised_at_once(self):
        problems = [Problem("a", "broken", "repair it"), Problem("b", "odd", "even it")]
        with pytest.raises(ValueError) as caught:
            raise_problems(problems, "do it")
        assert str(caught.value) == ("Cannot do it:\n  - a: broken; repair it\n  - b: odd; even it")
        raise_problems([], "do it")


class TestTable:
    def test_every_layer_is_on_a_line(self, graph):
        plan = decide(graph, Recipe(weight_bits=2))
        assert isinstance(plan, Plan)
        header, *lines, total = str(plan).splitlines()
        assert header.split() == ["layer", "kind", "W", "A", "grid", "parameters", "bytes", "note"]
        assert [line.split()[0] for line in lines] == [node.name for node in graph.nodes]
        assert total == "186 weights in 141 packed bytes"  # 108 + 36 / 4 + 24 / 4 + 18
        assert all(len(line) <= 100 for line in str(plan).splitlines())

    def test_notes(self, graph):
        notes = {row["layer"]: row["note"] for row in decide(graph, Recipe()).rows()}
        assert notes["image"] == "model input"
        assert notes["conv"] == notes["conv_bn"] == "fused into conv_relu"
        assert notes["pool"] == "grid of add_relu"
        assert notes["mean"] == "input of the last kernel"
        assert notes["head"] == "model output"
        assert notes["head_softmax"] == "fixed grid of 1/256"
        notes = {row["layer"]: row["note"] for row in decide(graph, Recipe(), {}).rows()}
        assert set(notes.values()) == {"not quantized", "fixed grid of 1/256"}
