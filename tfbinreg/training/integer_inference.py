"""Inference of a finalized model with the integers of its file."""

from __future__ import annotations

import zlib
from typing import Any

import tensorflow as tf

from tfbinreg import _compat
from tfbinreg.core.target import NOT_FINALIZED, state_of
from tfbinreg.deploy.deployed import Deployed


class IntegerInference:
    """The integer form of a model while it is finalized; rebuilt when its weights change."""

    def __init__(self) -> None:
        self._deployed: Deployed | None = None
        self._mark: int | None = None  # of the weights that it was made from

    @property
    def acts(self) -> bool:
        """Whether the model was finalized when `follow` was last called."""
        return self._deployed is not None

    def follow(self, model: Any) -> bool:
        """Take over the model's current state and weights; returns whether they have changed."""
        with tf.init_scope():
            mark = None
            if state_of(model) != NOT_FINALIZED:
                mark = state_of(model)
                for weight in model.weights:
                    mark = zlib.crc32(weight.numpy().tobytes(), mark)
            if mark == self._mark:
                return False
            self._deployed = None if mark is None else Deployed(model)
            self._mark = mark
            return True

    def outputs(self, model: Any, inputs: Any) -> Any:
        """The model's outputs, in the model's output structure.

        Raises:
            ValueError: if the size of a batch is not known.
        """
        flat = _compat.reference_inputs(model, inputs)
        if any(None in tensor.shape[1:] for tensor in flat):
            raise ValueError(
                "A finalized model whose inputs have open sizes computes batches of a known size "
                f"only, got {', '.join(str(tuple(tensor.shape)) for tensor in flat)}: give arrays, "
                "set the shape of the dataset's elements, or save the model as .keras or .h5."
            )
        deployed: Any = self._deployed
        return _compat.pack_outputs(model, deployed(flat))
