"""Caches that tests build with backends that count what they are asked for."""

from __future__ import annotations

from sur_core.diffusers_backend import open_backend
from sur_core.training_data import CacheBuilder, open_training_data


class Counting:
    """A backend that notes what its encoders are asked for, and can fail after so many calls."""

    def __init__(self, backend, fail_after=None):
        self.backend, self.prompts, self.images, self._left = backend, [], 0, fail_after

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode_text(self, prompts):
        self._call()
        self.prompts += prompts
        return self.backend.encode_text(prompts)

    def encode_image(self, pixels):
        self._call()
        self.images += len(pixels)
        return self.backend.encode_image(pixels)

    def _call(self):
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt


def build(config, backend=None, process=(0, 1)):
    """Build what is missing; the counting backend used."""
    backend = Counting(backend or open_backend(config.pretrained_model_name_or_path))
    CacheBuilder(config, open_training_data(config), backend, process).build(bool(config.full_steps))
    return backend


def asked(backend) -> tuple[int, int]:
    return len(backend.prompts), backend.images
