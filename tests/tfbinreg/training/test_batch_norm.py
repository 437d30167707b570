import numpy as np
import pytest
import tf_keras as keras

import tfbinreg
from tfbinreg import BatchNormReestimation, reestimate_batch_norm
from tfbinreg.training.batch_statistics import BatchStatistics

layers = keras.layers


def one_norm(shape=(6, 6, 2), **options):
    model = keras.Sequential([layers.Input(shape), layers.BatchNormalization(**options)])
    return model, model.layers[-1]


def batches(count, size=16, shape=(6, 6, 2)):
    random = np.random.default_rng(0)
    sizes = (size, *shape)
    return tuple(random.normal(1 + n, 1 + n, sizes).astype(np.float32) for n in range(count))


def moments(data, correction):
    """Mean over batches of each batch's mean and variance per channel, in float64."""
    rows = [np.float64(batch).reshape(-1, batch.shape[-1]) for batch in data]
    means = np.mean([row.mean(axis=0) for row in rows], axis=0)
    return means, np.mean([row.var(axis=0, ddof=correction) for row in rows], axis=0)


@pytest.mark.parametrize(
    # TensorFlow's fused kernel stores the unbiased variance.
    ("shape", "correction"),
    [((6, 6, 2), 1), ((5,), 0)],
    ids=["images", "rows"],
)
def test_statistics_are_the_mean_over_batches(shape, correction):
    model, norm = one_norm(shape, momentum=0.9)
    data = batches(3, shape=shape)
    scale = norm.gamma.numpy(), norm.beta.numpy()
    reestimate_batch_norm(model, data)
    mean, variance = moments(data, correction)
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-5)
    assert norm.momentum == 0.9
    for now, then in zip((norm.gamma, norm.beta), scale, strict=True):
        np.testing.assert_array_equal(now, then)


def test_augmentation_acts_and_noise_does_not():
    """Every image gets brighter by a tenth of its range, which moves the mean by just that."""
    image = layers.Input((6, 6, 2))
    x = layers.RandomBrightness((0.1, 0.1), value_range=(-10.0, 10.0))(image)
    x = layers.BatchNormalization()(layers.GaussianNoise(5.0)(x))
    model = keras.Model(image, x)
    data = np.float32(np.random.default_rng(0).uniform(-5.0, 5.0, (32, 6, 6, 2)))
    reestimate_batch_norm(model, [data])
    mean, variance = moments([data], 1)
    norm = model.layers[-1]
    np.testing.assert_allclose(norm.moving_mean, mean + 2.0, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4)


def test_only_so_many_batches_are_used():
    model, norm = one_norm()
    data = batches(4)
    reestimate_batch_norm(model, data, batches=2)
    np.testing.assert_allclose(norm.moving_mean, moments(data[:2], 1)[0], rtol=1e-5)


def test_arrays_are_cut_into_batches_of_64():
    model, norm = one_norm()
    data = np.concatenate(batches(6))  # 96 samples
    reestimate_batch_norm(model, data)
    np.testing.assert_allclose(norm.moving_mean, moments([data[:64], data[64:]], 1)[0], rtol=1e-5)


NAN = np.full((2, 6, 6, 2), np.nan)


@pytest.mark.parametrize("data", [[], [np.zeros((2, 5, 5, 3))], [NAN], "broken later", 3])
def test_after_an_error_everything_is_as_before(data):
    model, norm = one_norm(momentum=0.8)
    norm.moving_mean.assign([3.0, 4.0])
    norm.moving_variance.assign([5.0, 6.0])

    def broken():
        yield batches(1)[0]
        raise RuntimeError("no more data")

    with pytest.raises((ValueError, RuntimeError)):
        reestimate_batch_norm(model, broken() if data == "broken later" else data)
    assert norm.momentum == 0.8
    assert norm.moving_mean.numpy().tolist() == [3, 4]
    assert norm.moving_variance.numpy().tolist() == [5, 6]


def test_statistics_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"would not be finite.* Nothing was changed"):
        reestimate_batch_norm(one_norm()[0], NAN)


def test_data_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"samples of shape \(5, 6, 2\), the model takes"):
        reestimate_batch_norm(one_norm()[0], np.zeros((8, 5, 6, 2)))


def test_empty_data_is_said_to_be_so():
    with pytest.raises(ValueError, match="re-estimating batch normalization is empty"):
        reestimate_batch_norm(one_norm()[0], [])
    with pytest.raises(ValueError, match="Expected an array"):
        reestimate_batch_norm(one_norm()[0], 3)


def test_a_model_without_batch_norm_needs_no_data():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2)])
    before = model.get_weights()
    reestimate_batch_norm(model, iter([]))
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_only_statistics_of_a_quantized_model_change(make_net, images):
    model = tfbinreg.quantize_apply(make_net(), weight_bits=2, calibration_data=images)
    before = {weight.name: weight.numpy() for weight in model.weights}
    reestimate_batch_norm(model, images[:32])
    changed = {w.name for w in model.weights if np.any(w.numpy() != before[w.name])}
    assert changed == {
        f"{name}/moving_{kind}:0"
        for name in ("conv_bn", "depthwise_bn")
        for kind in ("mean", "variance")
    }


class TestCallback:
    def fit(self, data, **options):
        """Statistics after each validation and after training, with weights that do not move."""
        model, norm = one_norm(momentum=0.5)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        seen = []
        record = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(norm.moving_mean.numpy())
        )
        other = np.concatenate(batches(2)) + 50
        model.fit(
            other, other, epochs=2, verbose=0, validation_data=(other, other),
            callbacks=[BatchNormReestimation(data, **options), record],
        )  # fmt: skip
        return seen, norm.moving_mean.numpy()

    def test_passes_are_traced_once(self, monkeypatch):
        traced, call = [], BatchStatistics.__call__
        monkeypatch.setattr(
            BatchStatistics,
            "__call__",
            lambda statistics, *given: traced.append(given) or call(statistics, *given),
        )
        self.fit(batches(3))
        assert len(traced) == 1

    def test_before_each_validation_and_at_the_end(self):
        data = batches(3)
        expected = moments(data, 1)[0]
        seen, final = self.fit(data)
        for mean in (*seen, final):
            np.testing.assert_allclose(mean, expected, rtol=1e-5)

    def test_only_at_the_end(self):
        data = batches(3)
        seen, final = self.fit(data, before_validation=False, batches=1)
        assert all(np.all(mean > 10) for mean in seen)
        np.testing.assert_allclose(final, moments(data[:1], 1)[0], rtol=1e-5)


class TestFreezeBatchNorm:
    @pytest.fixture
    def folded_net(self, make_net, images):
        recipe = tfbinreg.recipes.hardware_friendly(4)
        model = tfbinreg.quantize_apply(make_net(), recipe, calibration_data=images)
        model.compile(keras.optimizers.SGD(0.001), "sparse_categorical_crossentropy")
        return model

    def test_statistics_rest_from_the_epoch_on(self, folded_net, images, labels):
        norms = [norm for layer in folded_net.layers for norm in getattr(layer, "norms", [])]
        seen = []
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(norms[0].moving_mean.numpy())
        )
        folded_net.fit(
            images, labels, 16, 4, verbose=0, callbacks=[tfbinreg.FreezeBatchNorm(2), note]
        )
        assert len(norms) == 2
        assert not np.array_equal(seen[0], seen[1])
        np.testing.assert_array_equal(seen[1], seen[2])
        np.testing.assert_array_equal(seen[2], seen[3])

    @pytest.mark.slow
    def test_resuming_at_a_later_epoch_rests_at_once(self, folded_net, images, labels):
        callback = tfbinreg.FreezeBatchNorm(2)
        folded_net.fit(images, labels, 16, 4, initial_epoch=3, verbose=0, callbacks=[callback])
        frozen = [layer.statistics_frozen for layer in folded_net.layers if hasattr(layer, "norms")]
        assert frozen and all(variable.numpy() == 1 for variable in frozen)

    @pytest.mark.slow
    def test_a_loaded_model_goes_on_alike(self, folded_net, images, labels, tmp_path):
        folded_net.fit(images, labels, 16, verbose=0, shuffle=False)
        folded_net.save(tmp_path / "net.keras")
        loaded = tfbinreg.load_model(tmp_path / "net.keras")
        np.testing.assert_array_equal(loaded(images), folded_net(images))
        for model in (loaded, folded_net):
            model.fit(images, labels, 16, verbose=0, shuffle=False)
        for own, other in zip(loaded.weights, folded_net.weights, strict=True):
            np.testing.assert_array_equal(own, other)

    def test_negative_epochs(self):
        with pytest.raises(ValueError, match="must not be negative, got -1"):
            tfbinreg.FreezeBatchNorm(-1)

    def test_an_epoch_that_never_comes_is_told(self):
        callback = tfbinreg.FreezeBatchNorm(3)
        callback.set_params({"epochs": 3})
        with pytest.warns(tfbinreg.QuantizationWarning, match="epoch is 3, and the last of its 3"):
            callback.on_train_begin()

    def test_a_model_that_folds_nothing(self, quantized_net):
        with pytest.raises(ValueError, match="folds no batch normalization"):
            tfbinreg.FreezeBatchNorm(1).set_model(quantized_net)
