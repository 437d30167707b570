"""A .keras file with backslashes inside, as Windows writes it, is read like any other."""

import io
import zipfile

import h5py
import keras as keras_3
import numpy as np
import pytest

import tfbinreg
from tfbinreg.training.keras_files import with_slashes
from tfbinreg.training.saving import load_float_model


def as_on_windows(source, target, members):
    """Copy a .keras file with backslashes in the names of its members, or of its weights."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(".h5") and not members:
                data = flattened(data)
            new.writestr(name, data)
        if members:
            new.writestr("assets\\note.txt", b"text")


def flattened(data):
    """An HDF5 file whose paths are names with backslashes, but for the last part."""
    stream = io.BytesIO()
    with h5py.File(io.BytesIO(data)) as old, h5py.File(stream, "w") as new:

        def copy(name, node):
            if isinstance(node, h5py.Dataset):
                *path, vars_name, last = name.split("/")
                group = new.require_group("\\".join(path)) if path else new
                group.require_group(vars_name).create_dataset(last, data=node[()])

        old.visititems(copy)
    return stream.getvalue()


@pytest.mark.parametrize("members", [True, False], ids=["members", "weights"])
def test_a_quantized_model_from_windows(trained_net, images, members, tmp_path):
    trained_net.save(tmp_path / "q.keras")
    as_on_windows(tmp_path / "q.keras", tmp_path / "windows.keras", members)
    loaded = tfbinreg.load_model(tmp_path / "windows.keras")
    np.testing.assert_array_equal(loaded(images), trained_net(images))


def test_a_keras_3_model_from_windows(tmp_path):
    model = keras_3.Sequential([keras_3.Input((4,)), keras_3.layers.Dense(3)])
    model.save(tmp_path / "float.keras")
    as_on_windows(tmp_path / "float.keras", tmp_path / "windows.keras", False)
    loaded = load_float_model(tmp_path / "windows.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_other_files_are_read_where_they_are(trained_net, tmp_path):
    path = str(tmp_path / "q.keras")
    trained_net.save(path)
    with with_slashes(path) as file:
        assert file == path
