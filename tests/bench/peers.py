"""What the engine is compared with, on the same machine, in turn."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from engine.weights.sources import SAMPLE, find_source


class Generate:
    """`model.generate` in float32, on the weights that the engine converted."""

    name = "model.generate"

    def __init__(self, home: Path, prompt: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        (folder,) = (path.parent for path in (home / "weights").glob("*/config.json"))
        self._model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self._prompt = prompt

    def speed(self, batch: int, num_tokens: int) -> float:
        """Tokens a second, prefill included."""
        return batch * num_tokens / self._run(self._prompt, batch, num_tokens)

    def first_s(self, prompt: str) -> float:
        """Seconds to the first token."""
        return self._run(prompt, 1, 1)

    def _run(self, prompt: str, batch: int, num_tokens: int) -> float:
        import torch

        began = time.perf_counter()
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = self._tokenizer([text] * batch, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            self._model.generate(**ids, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False)
        return time.perf_counter() - began


class LlamaCpp:
    """llama.cpp through llama-cpp-python, with the 4-bit weights of the sample's file, one stream at a time."""

    name = "llama.cpp Q4_1"

    def __init__(self, prompt: str) -> None:
        import torch

        package: Any = import_module("llama_cpp")
        threads = torch.get_num_threads()
        self._model = package.Llama(
            str(find_source(SAMPLE).gguf_file), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self._prompt = prompt

    def speed(self, num_tokens: int) -> float:
        """Tokens a second, prefill included."""
        began = time.perf_counter()
        self._begin(self._prompt)
        for _ in range(num_tokens - 1):
            self._model.eval([self._model.sample(temp=0.0)])
        return num_tokens / (time.perf_counter() - began)

    def first_s(self, prompt: str) -> float:
        """Seconds to the first token."""
        began = time.perf_counter()
        self._begin(prompt)
        self._model.sample(temp=0.0)
        return time.perf_counter() - began

    def _begin(self, prompt: str) -> None:
        self._model.reset()
        text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        self._model.eval(self._model.tokenize(text.encode(), special=True))

    def close(self) -> None:
        """Free its memory."""
        self._model.close()
