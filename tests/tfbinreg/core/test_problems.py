import pytest

from tfbinreg.core.problems import Problem, RefusedError, raise_problems


def test_all_are_raised_at_once():
    problems = [Problem("a", "broken", "repair it"), Problem("b", "odd", "even it")]
    with pytest.raises(ValueError) as caught:
        raise_problems(problems, "do it")
    assert str(caught.value) == ("Cannot do it:\n  - a: broken; repair it\n  - b: odd; even it")
    raise_problems([], "do it")


def test_layers_with_the_same_problem_share_a_line_and_of_many_the_first_are_named():
    problems = [Problem(f"layer{i % 25}", "broken", "repair it") for i in range(50)]
    with pytest.raises(ValueError) as caught:
        raise_problems(problems, "do it")
    named = ", ".join(f"layer{i}" for i in range(20))
    assert str(caught.value) == f"Cannot do it:\n  - {named} and 5 more: broken; repair it"


def test_refused_layers_are_counted_by_kind_each_once():
    problems = [Problem(name, "broken", "repair it", kind="LSTM") for name in "abca"]
    problems += [Problem("d", "odd", "even it", kind="Dense"), Problem("rule", "x", "y")]
    with pytest.raises(RefusedError) as caught:
        raise_problems(problems, "do it")
    assert str(caught.value).splitlines()[-1] == "  refused: 3 LSTM, 1 Dense"
    assert caught.value.counts == {"LSTM": 3, "Dense": 1}
    assert caught.value.problems == tuple(problems)
