"""Steps of Llama-shaped models on an NVIDIA GPU with what lies between matrix products done in one pass each."""
