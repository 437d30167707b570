import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import activation_sites, kernel_sites
from tfbinreg.training.calibrate import (
    calibrate,
    check_batch,
    input_batches,
    labelled_batches,
    sample_batches,
)
from tflite_tools.checks.trained_model import Reference, verify
from tflite_tools.checks.verdict import Verdict
from tflite_tools.schema.contents import load

layers = keras.layers


def numbers(count, width=3):
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def sizes(data):
    return [len(batch) for batch in input_batches(data)]


class TestBatches:
    def test_arrays_are_cut(self):
        assert sizes(numbers(130)) == [64, 64, 2]
        assert sizes(tf.constant(numbers(65))) == [64, 1]
        np.testing.assert_array_equal(np.concatenate(list(input_batches(numbers(70)))), numbers(70))

    def test_a_list_has_an_array_per_input(self):
        first, second = input_batches([numbers(70), numbers(70, 2)])
        assert [part.shape for part in first] == [(64, 3), (64, 2)]
        assert [part.shape for part in second] == [(6, 3), (6, 2)]

    def test_datasets_and_iterables_lose_their_labels(self):
        dataset = tf.data.Dataset.from_tensor_slices((numbers(10), np.arange(10))).batch(4)
        assert sizes(dataset) == [4, 4, 2]
        batches = [(numbers(4), np.zeros(4)), (numbers(2), np.zeros(2))]
        assert [batch.shape for batch in input_batches(batches)] == [(4, 3), (2, 3)]
        assert sizes(numbers(n) for n in (3, 5)) == [3, 5]

    def test_labels_go_with_their_inputs(self):
        images, labels = numbers(70), np.arange(70)
        batches = list(labelled_batches((images, labels)))
        assert [len(inputs) for inputs, _ in batches] == [64, 6]
        np.testing.assert_array_equal(np.concatenate([own for _, own in batches]), labels)
        assert [own for _, own in labelled_batches(images)] == [None, None]
        assert [own for _, own in labelled_batches([images, images])] == [None, None]
        mixed = [images[:3], (images[:3],), (images[:3], 1), (images[:3], 2, "weights")]
        for data in (mixed, iter(mixed)):
            assert [own for _, own in labelled_batches(data)] == [None, None, 1, 2]
        with pytest.raises(ValueError, match=r"different lengths: \[69, 70\]"):
            next(labelled_batches((images, labels[1:])))

    @pytest.mark.parametrize("data", [3, 2.5, object()])
    def test_other_types_are_refused(self, data):
        with pytest.raises(ValueError, match=f"Expected an array, .* got {type(data).__name__}"):
            list(input_batches(data))


class TestSamples:
    def test_five_hundred_and_twelve_samples_are_enough(self):
        assert [len(batch) for batch in sample_batches(numbers(1000))] == [64] * 8
        assert [len(batch) for batch in sample_batches(itertools.repeat(numbers(3)))] == [64] * 8

    def test_samples_are_gathered_into_batches_of_some_size(self):
        singles = [row[None] for row in numbers(100)]
        (whole,) = sample_batches(iter(singles))
        np.testing.assert_array_equal(whole, numbers(100))
        assert [len(batch) for batch in sample_batches(numbers(200))] == [66, 67, 67]
        sizes = [np.zeros((3, side, side)) + 1 for side in (4, 5)]
        assert [batch.shape for batch in sample_batches(iter(sizes))] == [(3, 4, 4), (3, 5, 5)]

    def test_forms(self, tmp_path):
        inputs = keras.Model([keras.Input((3,), name="a")], []).inputs
        wanted = numbers(40)
        np.save(tmp_path / "a.npy", wanted)
        np.savez(tmp_path / "a.npz", a=wanted, labels=np.arange(40))
        for data in (wanted, [wanted], (wanted, np.arange(40)), [wanted[:20], wanted[20:]]):
            (batch,) = sample_batches(data, inputs)
            np.testing.assert_array_equal(tf.nest.flatten(batch)[0], wanted)
        for path in (tmp_path / "a.npy", str(tmp_path / "a.npz")):
            (batch,) = sample_batches(path, inputs)
            np.testing.assert_array_equal(tf.nest.flatten(batch)[0], wanted)

    @pytest.mark.parametrize("name", ["missing.npy", "other.npz"])
    def test_files_that_cannot_be_read(self, name, tmp_path):
        (tmp_path / "other.npz").write_text("no archive")
        with pytest.raises(ValueError, match=f"{name}' cannot be read as .npy or .npz"):
            sample_batches(tmp_path / name)

    def test_zeros_say_nothing(self):
        with pytest.raises(ValueError, match="is all zeros"):
            sample_batches(np.zeros((30, 3)))

    @pytest.mark.parametrize("data", [np.zeros((0, 3)), [], iter([])])
    def test_nothing(self, data):
        with pytest.raises(ValueError, match="calibration data is empty"):
            sample_batches(data)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, value):
        data = numbers(200)
        data[150, 1] = value
        with pytest.raises(ValueError, match="NaN or infinite"):
            sample_batches(data)
        with pytest.raises(ValueError, match="NaN or infinite"):
            sample_batches([numbers(200), data])

    @pytest.mark.parametrize("data", [[["a", "b"]]])
    def test_no_numbers(self, data):
        with pytest.raises(ValueError, match="not numbers"):
            sample_batches(data)

    def test_shapes(self):
        inputs = keras.Model(
            [keras.Input((3,), name="a"), keras.Input((2, 1), name="b")], []
        ).inputs
        good = {"b": np.zeros((4, 2, 1)), "a": np.zeros((4, 3))}
        check_batch(good, inputs)
        check_batch([good["a"], good["b"][..., 0]], inputs)  # Keras adds the axis
        with pytest.raises(ValueError, match="has 1 arrays a batch, the model 2 inputs"):
            check_batch(good["a"], inputs)
        with pytest.raises(ValueError, match=r"input 'a' has samples of shape \(2, 1\), .* \(3,\)"):
            check_batch([good["b"], good["a"]], inputs)
        with pytest.raises(ValueError, match=r"input 'a' has samples of shape \(\), .* \(3,\)"):
            sample_batches(numbers(4)[0], inputs[:1])  # the batch axis is forgotten

    @pytest.mark.parametrize("data", [3, None])
    def test_wrong_type(self, data):
        with pytest.raises(ValueError, match="Expected an array"):
            sample_batches(data)


class TestCalibrate:
    @pytest.fixture
    def model(self):
        keras.utils.set_random_seed(0)
        net = keras.Sequential([layers.Input((3,), name="row"), layers.ReLU(), layers.Dense(2)])
        return tfbinreg.quantize_apply(net, activation_bits=4)

    def test_steps_are_means_over_batches(self, model):
        random = np.random.default_rng(0)
        batches = [random.normal(size=(8, 3)).astype(np.float32) * scale for scale in (1, 3, 2)]
        before = model.get_weights()
        calibrate(model, batches)
        steps = {site.name: site.step.numpy() for site in activation_sites(model)}
        largest = max(np.abs(batch).max() for batch in batches)
        assert steps["row_grid"] == pytest.approx(largest / 127, rel=1e-6)
        # The kernel's outputs are those of the quantized net, with the input grid of the moment.
        assert len(steps) == 2
        assert all(int(site.variables["initialized"]) for site in activation_sites(model))
        changed = [
            weight.name
            for weight, old in zip(model.weights, before, strict=True)
            if np.any(weight.numpy() != old)
        ]
        assert all("activation" in name for name in changed)
        assert len(changed) == 4

    def test_few_samples_are_told_where_statistics_are_needed(self, make_net, images):
        with pytest.warns(tfbinreg.QuantizationWarning, match="has 4 samples, too few"):
            tfbinreg.quantize_apply(make_net(), calibration_data=images[:4])

    def test_data_without_information_leaves_inputs_unset(self, model):
        with pytest.warns(tfbinreg.QuantizationWarning, match="all zero"):
            calibrate(model, [np.zeros((4, 3), np.float32)])
        ready = {s.name: int(s.variables["initialized"]) for s in activation_sites(model)}
        assert len(ready) > 1
        assert all(value == (name != "row_grid") for name, value in ready.items())

    def test_a_pooled_tensor_does_not_count_for_the_grid_it_shares(self, images):
        net = keras.Sequential(
            [
                layers.Input((8, 8, 3)),
                layers.Conv2D(2, 1, kernel_initializer="ones", name="conv"),
                layers.AveragePooling2D(4),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
        recipe = tfbinreg.Recipe(weight_bits=8, signed_activation_bits=4, first_last_bits=None)
        model = tfbinreg.quantize_apply(net, recipe, calibration_data=images)
        step = {site.name: site.step.numpy() for site in activation_sites(model)}["conv_grid"]
        kernel = kernel_sites(model)[0]
        values = images @ kernel.grid().values(kernel.codes())[0, 0]
        # Not exact, as the inputs are on an 8-bit grid; the averages are far smaller numbers.
        assert step == pytest.approx(2 * np.abs(values).mean() / np.sqrt(7), rel=0.01)


class TestUnseen:
    """Grids that see nothing but zeros."""

    def net(self, bias=-50.0, activation="relu"):
        inputs = keras.Input((4,))
        x = layers.Dense(3, name="first")(inputs)
        x = layers.Activation(activation, name="dead")(x)
        model = keras.Model(inputs, layers.Dense(2, name="head")(x))
        model.get_layer("first").bias.assign(np.full(3, bias))
        model.get_layer("head").bias.assign([0.5, -0.5])
        return model

    def data(self):
        return np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)

    def quantized(self, **options):
        return tfbinreg.quantize_apply(self.net(**options), calibration_data=self.data())

    def test_a_dead_relu_is_told_and_has_a_step(self):
        with pytest.warns(tfbinreg.QuantizationWarning, match="outputs of dead are all zero"):
            model = self.quantized()
        assert all(site.variables["initialized"].numpy() for site in activation_sites(model))
        assert all(site.grid().scale > 0 for site in activation_sites(model))

    def test_it_becomes_a_file_that_verifies(self):
        with pytest.warns(tfbinreg.QuantizationWarning, match="all zero"):
            model = self.quantized()
        data = self.data()
        tfbinreg.finalize(model, data)
        predictions = {"head_grid": model.predict(data, verbose=0)}
        reference = Reference(predictions=predictions, exact=True)
        report = verify(load(tfbinreg.to_tflite(model)), reference=reference, inputs={"": data})
        assert report.passed and report["agreement"].verdict is Verdict.PASSED

    def test_training_can_learn_from_there(self):
        with pytest.warns(tfbinreg.QuantizationWarning, match="all zero"):
            model = self.quantized()
        model.get_layer("quant_first").layer.bias.assign(np.full(3, 0.2))
        (site,) = [site for site in activation_sites(model) if site.name.startswith("dead")]
        before = site.step.numpy()
        model.compile(keras.optimizers.SGD(0.1), "mse")
        losses = model.fit(self.data(), self.data()[:, :2], epochs=5, verbose=0).history["loss"]
        assert site.step.numpy() not in (0.0, before)
        assert losses[-1] < losses[0]

    def test_a_learned_offset(self):
        with pytest.warns(tfbinreg.QuantizationWarning, match="outputs of dead are all zero"):
            model = self.quantized(bias=-1e4, activation="swish")
        assert all(site.grid().scale > 0 for site in activation_sites(model))

    def test_nothing_is_told_of_living_ones(self):
        self.quantized(bias=0.0)

    def test_what_is_not_finite_stays_refused(self):
        model = self.quantized(bias=0.0)
        for site in activation_sites(model):
            site.variables["initialized"].assign(0)
        model.get_layer("quant_first").layer.bias.assign(np.full(3, np.nan))
        calibrate(model, sample_batches(self.data()))
        with pytest.raises(ValueError, match=r"never initialised|not finite|NaN"):
            tfbinreg.to_tflite(model)
