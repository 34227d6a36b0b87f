"""A step that the device was handed, while its tokens are not known here yet."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass

import torch

from engine.inference.choosing import Choice
from engine.inference.sequence import Sequence
from engine.inference.upload import upload
from engine.scheduling.admission import Chunk


@dataclass(frozen=True, slots=True)
class Launched:
    """One step.

    Attributes:
        chunks: what was run in it.
        sequences: those that a token was chosen for, in the order of `choice`.
        began_s: when it was handed over.
        end: what tells that the device has done it; None where it has.
    """

    chunks: tuple[Chunk, ...]
    sequences: Row[Sequence]
    choice: Choice
    began_s: float
    end: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until the device has done it, were it only a piece of a prompt, after which no token is read: the device is
        handed one step ahead, and no more."""
        if self.end is not None:
            self.end.synchronize()

    @property
    def can_be_followed(self) -> bool:
        """Whether the device has what the next step would be run from."""
        return not self.sequences or self.choice.on_device() is not None

    def tokens_of(self, sequences: Row[Sequence]) -> torch.Tensor:
        """What was chosen for these, (number of them,), on the device."""
        tokens = self.choice.on_device()
        if tokens is None:
            raise ValueError("not all tokens of the step are on the device")
        rows = {sequence.request_id: row for row, sequence in enumerate(self.sequences)}
        wanted = [rows[sequence.request_id] for sequence in sequences]
        return tokens if wanted == list(range(len(tokens))) else tokens[upload(torch.tensor(wanted), tokens.device)]
