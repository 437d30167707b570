"""The quantized model from `quantize_apply` to `finalize`: built, calibrated, trained, saved.

Must not know file formats.
"""
