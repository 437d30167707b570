"""Convert, verify and inspect integer TFLite models. Imports TensorFlow only to convert."""

from tflite_tools.schema.codes import read_codes

__all__ = ["read_codes"]
