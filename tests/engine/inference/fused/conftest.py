"""On a GPU as compiled, elsewhere through Triton's interpreter, which has to be asked for before Triton is imported."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
if find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]
