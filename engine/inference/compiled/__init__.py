"""Steps of Llama-shaped models on a CPU as compiled code. This module and compiler.py import no torch."""

# What a model may be loaded in.
DTYPES = ("float32", "bfloat16")
