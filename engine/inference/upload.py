"""Numbers from the host to the device without waiting for what the device does."""

from __future__ import annotations

import torch


def upload(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`numbers`, which are on the CPU, on `device`. A plain copy to a GPU waits until that has done all it was
    given."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
