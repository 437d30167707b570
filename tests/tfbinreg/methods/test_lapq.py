"""LAPQ: steps that lower the loss on some labelled samples."""

import contextlib
import dataclasses
import io
import itertools

import numpy as np
import pytest
import reference
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.methods import lapq, lapq_search
from tfbinreg.methods.lapq import LapqOptions
from tfbinreg.training.solver_data import Checkpoint
from tfbinreg.training.solver_model import solver_view
from tflite_tools.schema.codes import read_codes

layers = keras.layers
CLASSES, SEEN = 4, 128
FAST = {"p_count": 3, "powell_iterations": 1, "max_evaluations": 25}


def samples(count, seed):
    """Noisy pictures of a few kinds, and which."""
    random = np.random.default_rng(seed)
    kinds = np.random.default_rng(0).normal(size=(CLASSES, 6, 6, 2))
    labels = random.integers(0, CLASSES, count)
    pictures = kinds[labels] * random.uniform(0.3, 1.5, (count, 1, 1, 1))
    return (pictures + 1.5 * random.normal(size=pictures.shape)).astype(np.float32), labels


DATA = samples(SEEN, 1)


@pytest.fixture(scope="module")
def source():
    """A net that was trained, with and without a normalization behind its kernels."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            layers.Input((6, 6, 2), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(6.0, name="relu"),
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            layers.Flatten(name="flat"),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(CLASSES, name="head"),
        ],
        name="net",
    )
    net.compile(keras.optimizers.Adam(0.01), loss())
    net.fit(*samples(512, 2), 64, epochs=6, verbose=0)
    return net


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def quantized(source, options=FAST, weight_bits=2, **fields):
    recipe = tfbinreg.Recipe(
        weight_bits=weight_bits,
        **{"activation_bits": 4, "solver": "lapq", "options": {"lapq": options}, **fields},
    )
    model = tfbinreg.quantize_apply(source, recipe, calibration_data=DATA[0])
    model.compile(keras.optimizers.Adam(0.001), loss(), ["accuracy"])
    return model


def view_of(model, tell=print):
    inputs, labels = ([part[:64], part[64:]] for part in DATA)
    return solver_view(model, inputs, labels, Checkpoint(None, ""), tell)


def steps(model):
    return {site.name: np.copy(site.grid().scale) for site in (
        *kernel_sites(model), *activation_sites(model)
    )}  # fmt: skip


def measured(model, data):
    return model.evaluate(*data, verbose=0)[0]


KINDS = {
    "folded": {"fold_batch_norm": True},
    "W4A4": {"weight_bits": 4},
    "channel": {"per_channel": True},
}
SLOW = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What LAPQ did to a model.

    Attributes:
        model: afterwards.
        before: its steps before.
        losses: on the seen samples and on others, before.
        report: what `solve` returned.
        lines: what it printed.
        told: what a progress bar was told.
    """

    model: object
    before: dict
    losses: tuple
    report: object
    lines: list
    told: list


UNSEEN = samples(400, 3)


def outcome(source, checkpoint=None, **fields):
    model = quantized(source, **fields)
    before, printed = steps(model), io.StringIO()
    losses = measured(model, DATA), measured(model, UNSEEN)
    told = []
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(lapq, "_SECONDS", 0.0)
        report = tfbinreg.solve(
            model, DATA, checkpoint=checkpoint, advance=lambda *now: told.append(now)
        )
    return Outcome(model, before, losses, report, printed.getvalue().splitlines(), told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("phases")


@pytest.fixture(scope="module")
def solved(source, folder):
    return outcome(source, folder)


def check(found):
    parts = found.report.parts
    assert parts[0].before == pytest.approx(found.losses[0], rel=1e-4)
    ends = [parts[0].before, *(part.after for part in parts)]
    assert [part.before for part in parts] == ends[:-1]
    assert all(later <= earlier for earlier, later in itertools.pairwise(ends))
    assert measured(found.model, DATA) == pytest.approx(ends[-1], rel=1e-4)
    assert ends[-1] < 0.97 * found.losses[0]
    assert measured(found.model, UNSEEN) < found.losses[1]
    after = steps(found.model)
    still = {name for name in after if np.all(after[name] == found.before[name])}
    assert {"conv", "head", "image_grid", "head_grid"} <= still < set(after)
    assert [part.name.split(",")[0] for part in parts] == ["steps by p", "Powell", "biases"]


@pytest.mark.slow
def test_no_phase_raises_the_loss_and_unseen_samples_gain(solved):
    check(solved)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=SLOW) for kind in KINDS])
def test_the_same_for_other_grids(source, kind):
    check(outcome(source, **KINDS[kind]))


@pytest.mark.slow
def test_progress_is_told(solved):
    told = [line for line in solved.lines if "evaluation " in line]
    assert told[0].startswith("lapq, steps by p: evaluation 1 of about 4, least loss ")
    assert any(line.startswith("lapq, Powell: evaluation 7 of about 25, ") for line in told)
    assert all(line.endswith(" s left") for line in told)
    ends = [line for line in solved.lines if line not in told]
    assert ends == [f"lapq, {part}" for part in solved.report.parts]
    shares = [share for share, _ in solved.told]
    assert len(shares) == len(told) and shares == sorted(shares)
    assert shares[0] == pytest.approx(1 / 29) and shares[-1] <= 1.0
    assert solved.told[-1][1].startswith("lapq, Powell, least loss ")


def same(model, other):
    for mine, yours in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, yours)


@pytest.mark.slow
def test_it_goes_on_from_a_checkpoint(source, solved, folder, monkeypatch):
    monkeypatch.setattr(lapq, "powell", None)  # they are not called
    monkeypatch.setattr(lapq_search, "lp_steps", None)
    again = quantized(source)
    assert tfbinreg.solve(again, DATA, checkpoint=folder, verbose=0) == solved.report
    same(again, solved.model)


@pytest.mark.slow
def test_it_is_the_same_every_time(source, solved):
    again = quantized(source)
    assert tfbinreg.solve(again, DATA, verbose=0) == solved.report
    same(again, solved.model)


def test_steps_that_move_trace_nothing_anew(source):
    view = view_of(quantized(source))
    losses = []
    for _ in range(3):
        losses.append((view.loss(), view.batch_loss()))
        view.grids[1].set_scale(1.5 * view.grids[1].scale())
    assert len(set(losses)) == 3
    for function in (view.loss._in_inference, view.loss._by_batch):
        assert function.experimental_get_tracing_count() == 1


@pytest.mark.slow
def test_first_and_last_take_part_on_demand(source):
    model = quantized(source, {**FAST, "first_last": True, "bias_correction": False})
    before = steps(model)
    report = tfbinreg.solve(model, DATA, verbose=0)
    after = steps(model)
    assert all(np.any(after[name] != before[name]) for name in after)
    assert len(report.parts) == 2  # no biases


def test_phases_can_be_left_out(source, solved):
    model = quantized(source, {"p_count": 3, "powell_iterations": 0})
    report = tfbinreg.solve(model, DATA, verbose=0)
    assert [part.name.split(",")[0] for part in report.parts] == ["steps by p", "biases"]
    name = "Powell, 0 iterations, 25 evaluations, all there may be"
    assert solved.report.parts[1].name == name


def test_biases_make_means_those_of_the_float_kernels(source):
    model = quantized(source, fold_batch_norm=True)
    view = view_of(model)
    offsets = [kernel.behind().offset.ravel() for kernel in view.kernels]
    lapq_search.correct_biases(view)
    image = tf.constant(DATA[0])
    for site, offset in zip(kernel_sites(model), offsets, strict=True):
        inputs = keras.Model(model.inputs, site.layer.input)(image)
        plain = site.layer._run(inputs, tf.constant(site.latent))
        rounded = site.layer._run(inputs, site.quantizer(site.latent, False, site.variables))
        axes = tuple(range(len(plain.shape) - 1))
        before, after = np.mean(rounded - plain, axes), site.layer(inputs) - plain
        np.testing.assert_allclose(np.mean(after, axes), offset, atol=1e-5 * np.abs(plain).max())
        assert site.name in ("conv", "head") or np.abs(before).max() > 1e-3


def test_a_bias_change_is_the_mean_of_what_is_lost():
    random = np.random.default_rng(0)
    weights, inputs = random.normal(size=(5, 3)), random.normal(size=(20, 5)) + 1.0
    rounded = np.round(weights)
    change, _ = reference.bias_correction(weights, rounded, inputs)
    found = lapq_search.bias_changes((rounded - weights)[None], inputs.mean(axis=0)[None])
    np.testing.assert_allclose(found, change)
    alike = np.repeat(inputs[:, :1], 5, axis=1)  # all inputs have one mean: the released formula
    change, by_mean = reference.bias_correction(weights, rounded, alike)
    np.testing.assert_allclose(change, by_mean)


def test_kernels_behind_which_a_normalization_sets_the_mean_get_no_bias(source):
    corrected = lapq_search.corrected_kernels(view_of(quantized(source)))
    assert [kernel.name for kernel in corrected] == ["depthwise", "hidden", "head"]


@pytest.mark.parametrize(("corrected", "kept"), [(2.0, 0), (0.5, 3)])
def test_biases_follow_steps_unless_that_is_worse(source, corrected, kept):
    losses = iter([1.0, corrected])
    view = dataclasses.replace(view_of(quantized(source)), loss=lambda: next(losses))
    search = lapq_search.Search(view, True, False)
    search.choose_biases()
    assert len(search._means) == kept and search.loss == min(1.0, corrected)
    search.choose_biases()  # there is nothing more to choose


@pytest.mark.slow
def test_an_interrupt_leaves_the_best_so_far(source, solved, monkeypatch):
    original = lapq.powell

    def interrupted(*arguments, **options):
        original(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(lapq, "powell", interrupted)
    model = quantized(source)
    with pytest.raises(KeyboardInterrupt):
        tfbinreg.solve(model, DATA, verbose=0)
    assert measured(model, DATA) == pytest.approx(solved.report.parts[1].after, rel=1e-4)


def test_an_interrupt_before_anything_is_found_changes_nothing(source, monkeypatch):
    def interrupted(view, search, options):
        search.place([2.0 * scale for scale in search.scales])
        raise KeyboardInterrupt

    monkeypatch.setattr(lapq, "_lp_phase", interrupted)
    model = quantized(source)
    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        tfbinreg.solve(model, DATA, verbose=0)
    for mine, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, old)


def test_what_p_cannot_tell_is_said(source, monkeypatch):
    view = view_of(quantized(source))
    search = lapq_search.Search(view, False, False)
    monkeypatch.setattr(search, "lp_scales", lambda powers: [search.scales] * len(powers))
    monkeypatch.setattr(search, "measure", lambda scales: np.nan)
    options = LapqOptions(**FAST)
    assert lapq._lp_phase(view, search, options) == ("steps by p: no p gives a finite loss")
    losses = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(search, "measure", lambda scales: next(losses))
    assert lapq._lp_phase(view, search, options) == (
        "steps by p, p* = 2.00, the best p tried, as the parabola is not convex"
    )


def test_what_it_refuses(source):
    with pytest.raises(ValueError, match=r"'lapq' needs labels: pass data=\(inputs, labels\)"):
        tfbinreg.solve(quantized(source), DATA[0])
    with pytest.raises(ValueError, match="LAPQ moves steps freely, and those of depthwise, hid"):
        tfbinreg.solve(quantized(source, method="gdrq"), DATA)
    rules = (tfbinreg.Rule(layer="hidden", method="tqt"),)
    with pytest.raises(ValueError, match="those of hidden, hidden_relu_grid are statistics"):
        tfbinreg.solve(quantized(source, rules=rules), DATA)
    broken = quantized(source)
    broken.compile("sgd", lambda labels, outputs: tf.reduce_mean(outputs) * np.nan)
    with pytest.raises(ValueError, match="that of the calibrated model is nan"):
        tfbinreg.solve(broken, DATA)
    single = keras.Sequential([layers.Input((6, 6, 2)), layers.Flatten(), layers.Dense(CLASSES)])
    with pytest.raises(ValueError, match="LAPQ has no steps to move: all kernels are first or la"):
        tfbinreg.solve(quantized(single), DATA)


def test_kernels_with_a_codebook_are_refused(source, monkeypatch):
    view = view_of(quantized(source))
    (kernel,) = [kernel for kernel in view.kernels if kernel.name == "hidden"]
    book = tfbinreg.Grid.codebook([-1, 0, 3], 1.0)
    own = dataclasses.replace(kernel, quantizer=type("Q", (), {"settle": lambda *a: book})())
    kernels = [own if kernel.name == "hidden" else kernel for kernel in view.kernels]
    with pytest.raises(ValueError, match="those of hidden are"):
        lapq_search.Search(dataclasses.replace(view, kernels=kernels), True, False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"p_count": 2}, "p_count must be an integer from 3 on, got 2"),
        ({"powell_iterations": -1}, "powell_iterations must be an integer from 0 on"),
        ({"max_evaluations": 0.5}, "max_evaluations must be an integer from 1 on, got 0.5"),
        ({"reach": 1.0}, "reach must be above 1, got 1.0"),
        ({"reach": float("nan")}, "reach must be above 1"),
        ({"bias_correction": 1}, "bias_correction must be true or false, got 1"),
        ({"first_last": None}, "first_last must be true or false"),
    ],
)
def test_options_that_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LapqOptions(**wrong)


def test_a_file_is_right_and_training_goes_on(solved, tmp_path):
    solved.model.save(tmp_path / "q.keras")
    model = tfbinreg.load_model(tmp_path / "q.keras")
    found = steps(model)
    tfbinreg.finalize(model, DATA)
    codes = read_codes(tfbinreg.to_tflite(model))  # which compares outputs with LiteRT's
    for name, coded in tfbinreg.integer_codes(model).items():
        np.testing.assert_array_equal(codes[name], coded.codes)
    with pytest.warns(tfbinreg.QuantizationWarning, match="Training ends what finalize did"):
        model.fit(*DATA, 32, epochs=3, verbose=0)
    assert np.any(steps(model)["depthwise"] != found["depthwise"])
    assert tfbinreg.Recipe.from_json(model.recipe.to_json()).options["lapq"] == FAST
