"""Reading, editing and writing flatbuffers."""

import numpy as np
import pytest

from tflite_tools.schema import flatbuffer


def test_reading_and_writing_keeps_the_file(int8_file):
    again = flatbuffer.write(flatbuffer.read(int8_file.data))
    assert flatbuffer.write(flatbuffer.read(again)) == again


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0\0\0\0TFL4" + bytes(64), b"text" * 40])
def test_other_files_are_refused_by_name(data):
    with pytest.raises(ValueError, match="identifier TFL3 is missing"):
        flatbuffer.read(data)


def test_every_shortened_file_is_refused(int8_file):
    for size in range(0, len(int8_file.data), 64):
        with pytest.raises(ValueError, match="TFLite model"):
            flatbuffer.read(int8_file.data[:size])


def _shrink(tensor):
    tensor.shape = np.array([1, 1], np.int32)


def _negative(tensor):
    tensor.shape = np.array([-4, -3], np.int32)


def _buffer(tensor):
    tensor.buffer = 999


def _type(tensor):
    tensor.type = 77


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_shrink, "values, shape"),
        (_negative, "negative dimension"),
        (_buffer, "no buffer|out of bounds"),
        (_type, "unknown type 77"),
    ],
)
def test_references_are_followed_when_reading(int8_file, edit, tensor_of, damage, message):
    with pytest.raises(ValueError, match=message):
        edit(int8_file, lambda container: damage(tensor_of(container, "head/kernel")))


def test_operators_must_refer_to_tensors(int8_file, edit):
    def damage(container):
        container.subgraphs[0].operators[0].inputs = np.array([0, 500, 1], np.int32)

    with pytest.raises(ValueError, match="missing tensor"):
        edit(int8_file, damage)


def test_constants_are_written_back(int8_file, edit, tensor_of):
    def zero(container):
        tensor = tensor_of(container, "head/kernel")
        flatbuffer.set_constant(container, tensor, np.zeros((3, 6), np.int8))
        flatbuffer.drop_unused_buffers(container)

    container = flatbuffer.read(edit(int8_file, zero).data)
    assert not flatbuffer.constant(container, tensor_of(container, "head/kernel")).any()
    assert len(container.buffers) == len(flatbuffer.read(int8_file.data).buffers)


def test_constants_keep_type_and_shape(int8_file, tensor_of):
    container = flatbuffer.read(int8_file.data)
    with pytest.raises(ValueError, match=r"'head/kernel' is INT8 \[3, 6\], got float32 \[3, 6\]"):
        flatbuffer.set_constant(
            container, tensor_of(container, "head/kernel"), np.zeros((3, 6), np.float32)
        )


def test_metadata_is_found_by_name(int8_file, edit):
    data = edit(
        int8_file, lambda container: flatbuffer.set_metadata(container, "note", b"text")
    ).data
    assert flatbuffer.metadata(flatbuffer.read(data), "note") == b"text"
    assert flatbuffer.metadata(flatbuffer.read(data), "other") is None
