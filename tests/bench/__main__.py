"""`python -m tests.bench [PART ...]`: measure, print, write build/bench.jsonl.

Without names: the parts that run on any machine. `gpu`, `gpu_models` and `gpu_images` need an NVIDIA GPU and run only
when named.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

from tests.bench.results import Figure, describe_machine, show, write

# Start-up comes first: the others then find the weights unpacked. Imported when run, because each needs its own.
_PARTS = {
    "startup": "tests.bench.startup",
    "engine": "tests.bench.engine_speed",
    "pages": "tests.bench.page_speed",
    "cached": "tests.bench.cached_speed",
    "clients": "tests.bench.clients_speed",
    "tabs": "tests.bench.tabs_speed",
    "environment": "tests.bench.environment_speed",
    "models": "tests.bench.model_figures",
    "gpu": "tests.bench.gpu_speed",
    "gpu_models": "tests.bench.gpu_models",
    "gpu_images": "tests.bench.gpu_images",
}
_ANYWHERE = ("startup", "engine", "pages", "cached", "clients", "tabs", "environment", "models")


def main() -> None:
    """Run the named parts."""
    names = sys.argv[1:] or list(_ANYWHERE)
    unknown = [name for name in names if name not in _PARTS]
    if unknown:
        sys.exit(f"error: there is no part {unknown[0]!r}; known: {', '.join(_PARTS)}")
    os.environ["STREAMLIT_LOGGER_LEVEL"] = "error"
    print(describe_machine(), flush=True)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="console-bench-") as home:
        for name in names:
            for figure in importlib.import_module(_PARTS[name]).measure(Path(home)):
                figures.append(figure)
                print(show(figure), flush=True)
    file = Path("build/bench.jsonl")
    write(figures, file)
    print(f"written to {file}")


if __name__ == "__main__":
    main()
