"""Steps of Llama-shaped models on a CPU as compiled code. This module and compiler.py import no torch."""

# Classes of transformers whose layers forward.c computes, by model type. They are told apart by what they have: biases,
# norms of queries and keys, windows. What else a configuration adds shows in the comparison with the model's logits.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What a model may be loaded in.
DTYPES = ("float32", "bfloat16")
