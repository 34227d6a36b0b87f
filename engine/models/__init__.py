"""Models: what to load and how, whether it fits, loading, quantizing."""

from __future__ import annotations

import logging

# They warn at import: torchao of libraries for other devices than this one, torch of how torchao registers its enums.
# Set here, because whatever imports torchao is a module of this package or is imported after one.
for _chatty in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)
