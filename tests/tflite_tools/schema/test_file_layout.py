"""Where the bytes of a file go."""

import pytest

from tflite_tools.schema import file_layout, flatbuffer
from tflite_tools.schema.manifest import METADATA_NAME


def _sizes(model):
    return file_layout.bytes_by_category(model, METADATA_NAME)


@pytest.mark.parametrize("name", ["int8_file", "float_io_file", "float_file"])
def test_the_sum_is_the_file(name, request):
    file = request.getfixturevalue(name)
    sizes = _sizes(file)
    assert set(sizes) == set(file_layout.CATEGORIES)
    assert sum(sizes.values()) == len(file.data)


def test_bytes_by_hand(int8_file):
    sizes = _sizes(int8_file)
    # conv 3x3x3x4, depthwise 3x3x4, pointwise 1x1x4x6, head 6x3; biases 4 + 4 + 6 + 3.
    assert sizes["weights"] == 108 + 36 + 24 + 18
    assert sizes["biases"] == 4 * 17
    header = flatbuffer.metadata(flatbuffer.read(int8_file.data), METADATA_NAME)
    assert sizes["manifest"] == len(header)


def test_names_count(int8_file, edit, tensor_of):
    def rename(container):
        tensor_of(container, "head").name = "head" + 100 * "x"

    assert _sizes(edit(int8_file, rename))["names"] == _sizes(int8_file)["names"] + 100


def test_shared_buffers_count_once(int8_file, edit, tensor_of):
    def share(container):
        tensor_of(container, "conv/bias").buffer = tensor_of(container, "depthwise/bias").buffer

    assert _sizes(edit(int8_file, share))["biases"] == 4 * 13
