import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbinreg import Recipe, Rule

BITS = st.integers(2, 8)
FLAGS = st.none() | st.booleans()
WEIGHT_BITS = st.integers(0, 8)
RULES = st.builds(
    Rule,
    layer=st.sampled_from([".*", "conv[0-9]+", "head", r"a\.b", "ünï"]),
    kind=st.none() | st.sampled_from(["Conv2D", "Add"]),
    weight_bits=st.none() | WEIGHT_BITS | st.lists(WEIGHT_BITS, min_size=1, max_size=4),
    activation_bits=st.none() | BITS,
    per_channel=FLAGS,
    learned_offset=FLAGS,
    bin_weight=st.none() | st.floats(0.0, 10.0),
    skip=FLAGS,
)
RECIPES = st.builds(
    Recipe,
    weight_bits=st.integers(1, 8),
    activation_bits=BITS,
    signed_activation_bits=BITS,
    first_last_bits=st.none() | BITS,
    input_bits=BITS,
    output_bits=BITS,
    unsigned_input=FLAGS,
    per_channel=st.booleans(),
    learned_offset=st.booleans(),
    step_rate=st.floats(0.0, 1.0),
    float_activations=st.booleans(),
    rules=st.lists(RULES, max_size=3),
)


@given(RECIPES)
def test_json_round_trip(recipe):
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert hash(again) == hash(recipe)


def test_json_is_plain_data():
    fields = json.loads(Recipe(weight_bits=2, rules=[Rule(layer="head", weight_bits=8)]).to_json())
    assert fields["weight_bits"] == 2
    assert fields["rules"][0]["layer"] == "head"


def test_a_single_rule_is_no_sequence():
    with pytest.raises(ValueError, match="rules must be a sequence of Rules"):
        Recipe(rules=Rule(layer="head", weight_bits=8))


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_the_rate_of_the_steps_is_from_0_to_1(rate):
    with pytest.raises(ValueError, match=f"step_rate must be a number from 0 to 1, got {rate}"):
        Recipe(step_rate=rate)


def test_numpy_bits_are_bits():
    recipe = Recipe(
        weight_bits=np.int64(3),
        first_last_bits=np.int32(4),
        rules=[Rule(activation_bits=np.uint8(5))],
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe == Recipe(weight_bits=3, first_last_bits=4, rules=[Rule(activation_bits=5)])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"bits": 2}', '{"rules": [3]}', '{"rules": [{"bits": 2}]}'],
)
def test_other_json_is_no_recipe(text):
    with pytest.raises(ValueError, match="Not a recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize("bits", [1, 9, "two", True, 0, 4.5])
@pytest.mark.parametrize(
    "field",
    ["activation_bits", "signed_activation_bits", "input_bits", "output_bits",
     "first_last_bits"],
)  # fmt: skip
def test_wrong_bits_are_named(field, bits):
    with pytest.raises(ValueError, match=f"{field} must be an integer from 2 to 8"):
        Recipe(**{field: bits})


def test_kernels_of_a_recipe_have_one_to_eight_bits():
    assert Recipe(weight_bits=np.int64(1)).weight_bits == 1
    for bits in (9, "two", True, 4.5, (2, 4)):
        with pytest.raises(ValueError, match="weight_bits must be an integer from 1 to 8"):
            Recipe(weight_bits=bits)
    with pytest.raises(ValueError, match="would prune every kernel: prune layers or channels by"):
        Recipe(weight_bits=0)


def test_a_rule_has_bits_for_each_channel():
    rule = Rule(layer="conv", weight_bits=[2, np.int64(0), 8])
    assert rule == Rule(layer="conv", weight_bits=(2, 0, 8))
    recipe = Recipe(rules=[rule, Rule(layer="head", weight_bits=0)])
    assert json.loads(recipe.to_json())["rules"][0]["weight_bits"] == [2, 0, 8]
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe and hash(again) == hash(recipe)
    assert again.settings(("conv", "Conv2D")).weight_bits == (2, 0, 8)
    assert again.settings(("head", "Dense")).weight_bits == 0
    with pytest.raises(ValueError, match=r"Rule weight_bits\[1\] must be an integer from 0 to 8"):
        Rule(weight_bits=(2, 9))


@pytest.mark.parametrize("field", ["weight_bits", "activation_bits"])
def test_wrong_bits_of_a_rule_are_named(field):
    with pytest.raises(ValueError, match=f"Rule {field} must be"):
        Rule(**{field: 9})
    with pytest.raises(ValueError, match=f"Rule {field} must be"):
        Recipe.from_json(json.dumps({"rules": [{field: 9}]}))


def test_wrong_pattern_is_shown():
    with pytest.raises(ValueError, match=r"layer='conv\(' is no regular expression"):
        Rule(layer="conv(")


def test_a_rule_matches_the_whole_name():
    rule = Rule(layer="conv.", kind="Conv2D")
    assert rule.matches("conv1", "Conv2D")
    assert not rule.matches("conv10", "Conv2D")
    assert not rule.matches("a_conv1", "Conv2D")
    assert not rule.matches("conv1", "Dense")
    assert Rule().matches("anything", "AtAll")


def test_of_the_rules_that_match_the_last_wins_field_by_field():
    recipe = Recipe(
        rules=[
            Rule(weight_bits=2, activation_bits=4, per_channel=True),
            Rule(layer="head", weight_bits=8),
            Rule(kind="Dense", per_channel=False),
        ]
    )
    head = recipe.settings(("head", "Dense"))
    assert (head.weight_bits, head.activation_bits, head.per_channel) == (8, 4, False)
    conv = recipe.settings(("conv", "Conv2D"))
    assert (conv.weight_bits, conv.activation_bits, conv.per_channel) == (2, 4, True)


def test_fused_layers_take_the_last_rule_whichever_of_them_it_names():
    general, own = Rule(activation_bits=6), Rule(layer="conv", activation_bits=4)
    fused = [("conv", "Conv2D"), ("bn", "BatchNormalization"), ("relu", "ReLU")]
    assert Recipe(rules=[general, own]).settings(*fused).activation_bits == 4
    assert Recipe(rules=[own, general]).settings(*fused).activation_bits == 6


def test_without_rules_only_the_granularity_is_said():
    settings = Recipe(per_channel=True).settings(("conv", "Conv2D"))
    assert settings.weight_bits is None
    assert settings.activation_bits is None
    assert settings.per_channel is True


def test_unmatched_rules_are_found():
    typo, good = Rule(layer="haed", weight_bits=8), Rule(layer="head", weight_bits=8)
    layers = [("conv", "Conv2D"), ("head", "Dense")]
    assert Recipe(rules=[typo, good]).unmatched(layers) == [typo]
    assert Recipe(rules=[Rule(layer="head", kind="Conv2D")]).unmatched(layers)


@pytest.mark.parametrize("options", [{}, {"fold_batch_norm": True, "float_activations": True}])
def test_biases_of_few_bits_need_folded_kernels_and_grids(options):
    with pytest.raises(ValueError, match="bias_bits needs fold_batch_norm"):
        Recipe(bias_bits=8, **options)


def test_wrong_stored_bits():
    with pytest.raises(ValueError, match="stored_bits must be 4 or 8, got 5"):
        Recipe(stored_bits=5)
    with pytest.raises(ValueError, match="bias_bits needs stored_bits=8"):
        Recipe(stored_bits=4, bias_bits=8, fold_batch_norm=True)
    assert Recipe.from_json(Recipe(stored_bits=4).to_json()).stored_bits == 4


def test_wrong_bias_bits():
    with pytest.raises(ValueError, match="bias_bits must be an integer from 2 to 8"):
        Recipe(bias_bits=16, fold_batch_norm=True)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_wrong_bin_weights(weight):
    with pytest.raises(ValueError, match="bin_weight must be a number from 0 on"):
        Rule(bin_weight=weight)


def test_penalty_weights():
    weights = {"msqe": 2.0, "bin_regularization": 0.5}
    recipe = Recipe(rules=[Rule(layer="a", penalty_weights=weights), Rule(kind="Add")])
    settings = recipe.settings(("a", "Dense"))
    assert [settings.penalty_weight(name) for name in (*weights, "other")] == [2.0, 0.5, 1.0]
    assert Rule(bin_weight=3.0) == Rule(bin_weight=3.0, penalty_weights=None)
    assert Recipe.from_json(recipe.to_json()) == recipe and hash(recipe)
    with pytest.raises(ValueError, match=r"penalty_weights\['msqe'\] must be a number from 0 on"):
        Rule(penalty_weights={"msqe": -1.0})
    with pytest.raises(ValueError, match=r"bin_weight=1\.0 contradicts penalty_weights"):
        Rule(bin_weight=1.0, penalty_weights={"bin_regularization": 2.0})


def test_penalties_and_options():
    recipe = Recipe(penalties=["msqe", "msqe"]).with_options("msqe", detach_step=False)
    assert recipe.penalties == ("msqe",)
    assert recipe.with_options("msqe", more=1).options == {
        "msqe": {"detach_step": False, "more": 1}
    }
    with pytest.raises(ValueError, match=r"a sequence of names: \('msqe',\)"):
        Recipe(penalties="msqe")


def test_recipes_come_as_objects_dicts_text_and_files(tmp_path):
    recipe = Recipe(weight_bits=2, rules=[Rule(layer="head", weight_bits=8)])
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json())
    as_dict = {"weight_bits": 2, "rules": [{"layer": "head", "weight_bits": 8}]}
    with_rule = {"weight_bits": 2, "rules": recipe.rules}
    for source in (recipe, as_dict, with_rule, recipe.to_json(), path, str(path)):
        assert Recipe.from_data(source) == recipe
    assert set(as_dict) == {"weight_bits", "rules"}  # left alone
    assert Recipe.from_data(None) == Recipe()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"weight_bit": 2}, ValueError, "Not a recipe: .*'weight_bit': did you mean 'weight_bits'"),
        (
            {"rules": [{"of": 2}]},
            ValueError,
            "Not a recipe: a Rule has no field 'of'; it has layer",
        ),
        ('{"weight_bits": 2', ValueError, "Not a recipe"),
        ("nowhere.json", ValueError, "No recipe can be read from 'nowhere.json'"),
        (4, TypeError, "a dict of its fields, JSON text or the path of a JSON file, got int"),
    ],
)
def test_what_is_no_recipe_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        Recipe.from_data(source)
