"""Low-bit quantization-aware training for Keras that ends on a microcontroller."""

from tfbinreg.quantize import plan, quantize_apply
