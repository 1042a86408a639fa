"""What the authors' released code does otherwise than their paper says, to be measured beside it.

Three differences of the training step: the graph is cut before the UNet, so that Eq. 8 gives the adapter no
gradient; h3's Transformer is not told that the batch comes first and attends over the samples; and Eq. 5 is
turned around. The third is a setting; the other two are here.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import torch

from sur_core.objective import Objective, SampleLosses


class AuthorsObjective(Objective):
    """Eq. 10 as the authors' code has it.

    Args:
        cut: the adapted embedding is taken for a constant by Eq. 8.
        mix: in training, h3 attends over the batch in place of the tokens. Without dropout only, whose
            counted masks belong to attention over tokens.
        others: as :class:`Objective`.
    """

    def __init__(self, *others, cut: bool, mix: bool):
        super().__init__(*others)
        if mix and self.config.dropout:
            raise ValueError(f"mixing the batch needs dropout 0, found {self.config.dropout}")
        self._cut, self._mix = cut, mix

    def __call__(self, adapter, batch, backend, eta: float | None = None) -> SampleLosses:
        if self._mix and adapter.training:
            towers = {name: partial(tower, mix_batch=True) for name, tower in adapter.towers.items()}
            adapter = SimpleNamespace(towers=towers)
        return super().__call__(adapter, batch, backend, eta)

    def _diffusion(self, adapted: torch.Tensor, batch, backend) -> torch.Tensor:
        return super()._diffusion(adapted.detach() if self._cut else adapted, batch, backend)
