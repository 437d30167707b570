"""What a solver sees of a model, and the verb that runs it."""

import dataclasses
import io
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.methods import roster
from tfbinreg.methods.contract import Method
from tfbinreg.methods.solver_view import Solved
from tfbinreg.training.solver_data import Checkpoint, fingerprint, labelled_samples
from tfbinreg.training.solver_model import solver_view

layers = keras.layers


def kinds_net():
    """A kernel of each kind, with and without a bias, normalizations, a ReLU and a grid."""
    keras.utils.set_random_seed(3)
    image = keras.Input((9, 9, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(6.0, name="relu")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="up")(x)
    x = layers.ReLU(name="up_relu")(x)
    x = layers.Conv2D(6, 2, dilation_rate=2, groups=3, name="dilated")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(3, name="head")(x)
    model = keras.Model(image, x, name="kinds")
    norm = model.get_layer("norm")
    gamma, beta, mean = [0.5, 1.0, -0.7, 2.0], [0.1, -0.2, 0.3, 0.0], [0.0, 0.1, 0.2, -0.3]
    norm.set_weights(list(map(np.array, (gamma, beta, mean, [1.0] * 4))))
    return model


def samples(count=24):
    return np.random.default_rng(0).normal(size=(count, 9, 9, 3)).astype(np.float32)


def quantized(**options):
    recipe = tfbinreg.Recipe(weight_bits=3, activation_bits=3, **options)
    return tfbinreg.quantize_apply(kinds_net(), recipe, calibration_data=samples())


def view_of(model, labels=None, folder=None):
    batches = [samples()[:16], samples()[16:]]
    return solver_view(model, batches, labels, Checkpoint(folder, "start"), print)


@pytest.mark.parametrize("folded", [False, True])
def test_rows_times_the_quantized_kernel_are_what_lies_behind_it(folded):
    model = quantized(fold_batch_norm=folded)
    view = view_of(model)
    outputs = view.outputs()
    assert [kernel.name for kernel in view.kernels] == [
        "conv", "depthwise", "up", "dilated", "head"
    ]  # fmt: skip
    grids = {site.name: site.grid() for site in activation_sites(model)}
    behind_of = {
        "conv": "relu_grid", "depthwise": "depthwise_grid", "up": "up_relu_grid",
        "dilated": "dilated_grid", "head": "head_grid",
    }  # fmt: skip
    for kernel, site in zip(view.kernels, kernel_sites(model), strict=True):
        rows, behind = kernel.inputs(), kernel.behind()
        weights = kernel.to_rows(site.grid().values(site.codes()))
        latent = kernel.latent()
        np.testing.assert_array_equal(kernel.from_rows(kernel.to_rows(latent)), latent)
        found = rows.astype(np.float64) @ weights
        found = found * behind.factor[:, None] + behind.offset[:, None]
        grid = grids[behind_of[kernel.name]]
        found = grid.values(grid.codes(np.clip(found, behind.low, behind.high)))
        differing = np.abs(found - outputs[kernel.name]) > 1e-5
        assert np.mean(differing) < 1e-3, kernel.name  # but for ties
        assert behind.high == pytest.approx(grid.qmax * grid.scale)


def test_the_places_are_the_same_each_time():
    model = quantized()
    one, two = view_of(model), view_of(model)
    for mine, yours in zip(one.kernels, two.kernels, strict=True):
        np.testing.assert_array_equal(mine.inputs(), yours.inputs())


@pytest.mark.parametrize("folded", [False, True])
def test_kernels_and_grids_are_changed_through_the_view(folded):
    model = quantized(fold_batch_norm=folded, per_channel=True)
    view = view_of(model)
    kernel = view.kernels[0]
    kernel.set_scale(2.0 * kernel.scale())
    wanted = kernel.scale()[None, None, None] * np.ones(kernel.latent().shape, np.float32)
    kernel.set_latent(wanted)
    np.testing.assert_allclose(kernel.latent(), wanted, rtol=1e-6)
    assert np.all(kernel_sites(model)[0].codes() == 1)
    before, numbers = kernel.behind().offset, np.arange(4.0)
    kernel.shift(numbers)
    gained = (kernel.behind().offset - before) / kernel.behind().factor
    np.testing.assert_allclose(gained, numbers[None], atol=1e-5)
    head = view.kernels[-1]
    before = head.behind().offset
    head.shift(np.ones(3))
    np.testing.assert_allclose(head.behind().offset, before + 1.0)
    grid = view.grids[0]
    grid.set_scale(0.25)
    assert grid.scale() == pytest.approx(0.25)


def test_a_kernel_without_bias_and_normalization_cannot_be_shifted():
    net = keras.Sequential([layers.Input((4,)), layers.Dense(3, use_bias=False, name="head")])
    data = samples()[:16, 0, 0, :1] * np.ones((1, 4), np.float32)
    model = tfbinreg.quantize_apply(net, calibration_data=data)
    view = solver_view(model, [data], None, Checkpoint(None, ""), print)
    assert view.kernels[0].shift is None


def test_numbers_that_reach_the_grids():
    model = quantized()
    values = view_of(model).grid_values(100)
    assert set(values) == {site.name for site in activation_sites(model)}
    assert all(72 <= numbers.size <= 100 for numbers in values.values())
    assert np.any(values["relu_grid"] < 0)  # the grid contains the ReLU
    site = next(site for site in activation_sites(model) if site.name == "head_grid")
    everything = view_of(model).grid_values(10**6)["head_grid"]
    assert np.max(np.abs(everything)) > 0 and everything.size == 24 * 3
    assert site.layer._observer is None


def test_the_loss_is_the_compiled_one_over_all_samples():
    model = quantized()
    labels = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    model.compile("sgd", "mse")
    model.strengths["bin_regularization"].assign(1.0)
    view = view_of(model, [labels[:16], labels[16:]])
    wanted = np.mean((model.predict(samples(), verbose=0) - labels) ** 2)
    assert view.loss() == pytest.approx(wanted, rel=1e-5)
    view.grids[-1].set_scale(1e-6)  # outputs of zero
    assert view.loss() == pytest.approx(np.mean(labels**2), rel=1e-4)
    with pytest.raises(ValueError, match="no loss without labels: say needs_labels"):
        view_of(model).loss()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """factor: by which the solver makes scales larger."""

    factor: float = 2.0


def _fit(view, options):
    solved = []
    for index, kernel in enumerate(view.kernels):
        view.advance(index / len(view.kernels), f"coarsening {kernel.name}")
        kept = view.recall(kernel.name)
        if kept is None:
            before = view.loss()
            kernel.set_scale(options.factor * kernel.scale())
            kept = {"scale": kernel.scale(), "losses": [before, view.loss()]}
            view.keep(kernel.name, **kept)
        kernel.set_scale(kept["scale"])
        solved.append(Solved(kernel.name, *map(float, kept["losses"])))
        view.tell(f"solved {solved[-1]}")
    return solved


COARSER = Method(name="coarser", options=Options, fit=_fit, needs_labels=True)


@pytest.fixture
def coarser(monkeypatch):
    """A solver that makes steps of kernels larger, known for one test."""
    monkeypatch.setattr(roster, "_methods", {**roster._methods, "coarser": COARSER})


def labels():
    return np.random.default_rng(1).integers(0, 3, 24)


def solvable(**options):
    model = quantized(solver="coarser", **options)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_solve_runs_the_solver_of_the_recipe(coarser, capsys):
    model = solvable(options={"coarser": {"factor": 3.0}})
    before = [site.grid().scale for site in kernel_sites(model)]
    report = tfbinreg.solve(model, (samples(), labels()))
    for site, scale in zip(kernel_sites(model), before, strict=True):
        np.testing.assert_allclose(site.grid().scale, 3.0 * scale, rtol=1e-6)
    assert capsys.readouterr().out.count("solved") == 5
    assert report.method == "coarser" and len(report.parts) == 5
    assert str(report).startswith("coarser: 5 parts solved\n  conv: ")
    tfbinreg.solve(model, (samples(), labels()), verbose=0)
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_bar_and_others_may_have_their_own(coarser, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    tfbinreg.solve(solvable(), (samples(), labels()))
    assert "coarsening head" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", Terminal())
    told = []
    tfbinreg.solve(
        solvable(), (samples(), labels()), verbose=0, advance=lambda *now: told.append(now)
    )
    assert told[0] == (0.0, "coarsening conv") and told[-1] == (0.8, "coarsening head")
    tfbinreg.solve(solvable(), (samples(), labels()), verbose=0)
    assert sys.stderr.getvalue() == ""


def test_recipes_name_solvers(coarser):
    recipe = tfbinreg.Recipe(solver="coarser")
    assert tfbinreg.Recipe.from_json(recipe.to_json()) == recipe
    old = recipe.to_json().replace('  "solver": "coarser",\n', "")
    assert tfbinreg.Recipe.from_json(old).solver is None
    with pytest.raises(ValueError, match="no method 'lsq' with fit: choose "):
        quantized(solver="lsq")
    with pytest.raises(ValueError, match=r"'lsq' leaves nothing to solve: name a solver in Rec"):
        tfbinreg.solve(quantized(), samples())


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint(coarser, tmp_path, monkeypatch):
    whole, resumed = solvable(), solvable()
    pair = samples(), labels()
    tfbinreg.solve(whole, pair, verbose=0)
    tfbinreg.solve(solvable(), pair, checkpoint=tmp_path / "kept", verbose=0)
    for name in ("up", "dilated", "head"):  # as if it had been killed
        (tmp_path / "kept" / f"{name}.npz").unlink()
    asked = []
    original = Checkpoint.keep
    monkeypatch.setattr(
        Checkpoint, "keep", lambda self, part, **a: (asked.append(part), original(self, part, **a))
    )
    report = tfbinreg.solve(resumed, pair, checkpoint=tmp_path / "kept", verbose=0)
    assert asked == ["up", "dilated", "head"] and len(report.parts) == 5
    for mine, yours in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, yours)
    with pytest.raises(ValueError, match="is of another model, other data or other options"):
        tfbinreg.solve(solvable(), (samples() + 1, labels()), checkpoint=tmp_path / "kept")
    (tmp_path / "kept" / "conv.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"conv\.npz' cannot be read"):
        tfbinreg.solve(solvable(), pair, checkpoint=tmp_path / "kept")


def test_names_of_parts_become_names_of_files(tmp_path):
    checkpoint = Checkpoint(tmp_path, "start")
    checkpoint.keep("block/a b", value=np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["block%2fa%20b.npz"]
    np.testing.assert_array_equal(checkpoint.recall("block/a b")["value"], np.arange(3))
    assert checkpoint.recall("other") is None


def test_what_solve_refuses(coarser):
    model = solvable()
    with pytest.raises(ValueError, match=r"'coarser' needs labels: pass data=\(inputs, labels\)"):
        tfbinreg.solve(model, samples())
    bad = samples()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="data has NaN or infinite"):
        tfbinreg.solve(model, (bad, labels()))
    with pytest.raises(ValueError, match="labels have NaN"):
        tfbinreg.solve(model, (samples(), np.full(24, np.nan)))
    with pytest.raises(ValueError, match="other numbers of samples and of labels"):
        tfbinreg.solve(model, (samples(), labels()[:5]))
    with pytest.raises(ValueError, match="needs the loss: compile model 'kinds' first"):
        tfbinreg.solve(quantized(solver="coarser"), (samples(), labels()))
    with pytest.raises(ValueError, match=r"'kinds' is not calibrated \(image_grid, relu_grid"):
        recipe = tfbinreg.Recipe(solver="coarser")
        tfbinreg.solve(tfbinreg.quantize_apply(kinds_net(), recipe), (samples(), labels()))
    with pytest.raises(ValueError, match="is not quantized"):
        tfbinreg.solve(kinds_net(), samples())
    model.get_layer("quant_conv").kernels[0].weight.assign(np.full((3, 3, 3, 4), np.nan))
    with pytest.raises(ValueError, match=r"Not finite.* conv \(kernel\)"):
        tfbinreg.solve(model, (samples(), labels()))


def test_labels_in_every_form(tmp_path):
    inputs, (x, y) = kinds_net().inputs, (samples(), labels())
    np.savez(tmp_path / "both.npz", image=x, labels=y)
    np.savez(tmp_path / "inputs.npz", image=x)
    np.save(tmp_path / "inputs.npy", x)
    forms = {
        "arrays": (x, y),
        "weights": (x, y, np.ones(24)),
        "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(5),
        "batches": [(x[:7], y[:7]), (x[7:], y[7:])],
        "generator": iter([(x[:7], y[:7]), (x[7:], y[7:])]),
        "file": tmp_path / "both.npz",
    }
    for form, data in forms.items():
        batches, found = labelled_samples(data, inputs)
        assert len(batches) == 1, form
        np.testing.assert_array_equal(tf.nest.flatten(batches[0])[0], x, form)
        np.testing.assert_array_equal(found[0], y, form)
    unlabelled = {
        "array": x,
        "list": [x],
        "batches": [x[:12], x[12:]],
        "dataset": tf.data.Dataset.from_tensor_slices(x).batch(5),
        "dict": {"image": x},
        "file": tmp_path / "inputs.npz",
        "plain file": tmp_path / "inputs.npy",
    }
    for form, data in unlabelled.items():
        batches, found = labelled_samples(data, inputs)
        assert found is None, form
        whole = np.concatenate([tf.nest.flatten(batch)[0] for batch in batches])
        np.testing.assert_array_equal(whole, x, form)
    many = np.concatenate([x] * 30), np.concatenate([y] * 30)
    batches, found = labelled_samples(many, inputs)
    assert sum(map(len, batches)) == sum(map(len, found)) == 512


def test_fingerprints_tell_starts_apart():
    arrays = np.arange(4), np.arange(4.0)
    assert fingerprint("a", *arrays) == fingerprint("a", *arrays)
    others = [("b", *arrays), ("a", arrays[0]), ("a", arrays[0], arrays[1] + 1)]
    assert len({fingerprint("a", *arrays), *(fingerprint(*other) for other in others)}) == 4


def test_edges_and_what_a_normalization_sets():
    view = view_of(quantized())
    assert {kernel.name for kernel in view.kernels if kernel.is_edge} == {"conv", "head"}
    assert {kernel.name for kernel in view.kernels if kernel.is_normalized} == {"conv"}
    assert {grid.name for grid in view.grids if grid.is_edge} == {"image_grid", "head_grid"}
    assert not any(
        kernel.is_normalized for kernel in view_of(quantized(fold_batch_norm=True)).kernels
    )


def test_mean_inputs_are_those_of_all_rows():
    for kernel in view_of(quantized()).kernels:  # of so few samples all rows are taken
        rows = kernel.inputs().mean(axis=1, dtype=np.float64)
        np.testing.assert_allclose(kernel.mean_inputs(), rows, atol=1e-5)


def test_a_snapshot_is_gone_back_to():
    model = quantized()
    view, before = view_of(model), model.get_weights()
    restore = view.snapshot()
    view.kernels[1].set_scale(2.0 * view.kernels[1].scale())
    view.kernels[1].shift(np.ones(8))
    view.settle_norms()
    restore()
    for mine, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, old)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.slow
def test_the_loss_on_the_statistics_of_batches(folded):
    model = quantized(fold_batch_norm=folded)
    model.compile("sgd", "mse")
    targets = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    view = solver_view(model, [samples()], [targets], Checkpoint(None, ""), print)
    for grid in view.grids[:2]:
        grid.set_scale(1.5 * grid.scale())
    before, first, by_batch = model.get_weights(), view.loss(), view.batch_loss()
    for mine, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, old)
    view.settle_norms()
    moved = [np.any(a != b) for a, b in zip(model.get_weights(), before, strict=True)]
    assert sum(moved) == (0 if folded else 2)
    assert view.loss() == pytest.approx(by_batch, rel=0.02)
    assert view.batch_loss() == pytest.approx(by_batch, rel=1e-5)
    assert (first == pytest.approx(by_batch, rel=1e-6)) == folded
