"""One device, two replicas and two workers come to the same model."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parent / "replicas.py"


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], env=environment)


def finish(*processes):
    try:
        assert [process.wait(timeout=240) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "one.npz"
    finish(start("one", path))
    weights = np.load(path)
    assert sum("step" in name for name in weights) >= 6
    return weights


def check_equal(path, alone):
    together = np.load(path)
    assert set(together) == set(alone)
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-5, atol=1e-6, err_msg=name)
        if "initialized" in name:
            assert together[name] == alone[name] == 1


def test_two_replicas(alone, tmp_path):
    finish(start("mirrored", tmp_path / "out.npz"))
    check_equal(tmp_path / "out.npz", alone)


@pytest.mark.slow
def test_two_replicas_learn_from_a_teacher(tmp_path):
    finish(start("taught", tmp_path))
    for name in ("own", "other"):
        one = np.load(tmp_path / f"{name}-one.npz")
        assert one["distillation_loss"] > 0 and np.any(one["arr_1"])
        check_equal(tmp_path / f"{name}-two.npz", one)


@pytest.mark.slow
def test_two_replicas_go_on_as_if_they_had_not_stopped(tmp_path):
    finish(start("resumed", tmp_path))
    whole = np.load(tmp_path / "whole.npz")
    assert {"arr_1", "bin_strength:0", "swish_silu_grid/activation_offset:0"} <= set(whole)
    for name in ("backup.npz", "saved.npz"):
        resumed = np.load(tmp_path / name)
        assert set(resumed) == set(whole)
        for variable in whole:
            np.testing.assert_array_equal(resumed[variable], whole[variable], err_msg=variable)


@contextlib.contextmanager
def held_port():
    """A port that nobody else is given meanwhile, and on which a server can listen: both it and
    this socket, which does not listen, set SO_REUSEADDR."""
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(("127.0.0.1", 0))
        yield own.getsockname()[1]


@pytest.mark.slow
def test_two_workers(alone, tmp_path):
    paths = [tmp_path / f"{index}.npz" for index in range(2)]
    with held_port() as one, held_port() as other:
        finish(*(start("worker", path, index, one, other) for index, path in enumerate(paths)))
    for path in paths:
        check_equal(path, alone)
