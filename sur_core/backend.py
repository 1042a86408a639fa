"""What a trainer needs from a frozen diffusion model, whoever implements it.

A backend turns text into what the UNet's cross-attention reads, images into latents, and noisy latents plus
text into the UNet's output. Its weights never change and never ask for gradients; only text embeddings do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

    from .llmdiff.adapter import LLMDiffAdapter
    from .llmdiff.diffusers_unet import LLMDiffSession

PARTS = ("text", "vae", "unet")
"""What of a model can be loaded and released on its own: its text encoders, its VAE, its UNet."""


@dataclass(frozen=True)
class TextEncoding:
    """Prompts as the UNet reads them.

    Attributes:
        hidden: for each text encoder by name, in SDXL's concatenation order, [B, 77, D].
        pooled: SDXL's pooled embedding of clip_g [B, P]; ``None`` for the other families.
        mask: bool [B, 77]; true from the start token to the first end token, false at padding.
    """

    hidden: dict[str, torch.Tensor]
    pooled: torch.Tensor | None
    mask: torch.Tensor


@dataclass(frozen=True)
class LatentDistribution:
    """The VAE's posterior, shifted and scaled as the UNet wants its latents; ``mean`` and ``std``, float32
    [B, C, h, w].
    """

    mean: torch.Tensor
    std: torch.Tensor


@runtime_checkable
class Backend(Protocol):
    """A frozen base model.

    Attributes:
        name: what the user called it; for messages and the passport.
        family: ``"sd1"``, ``"sd2"`` or ``"sdxl"``.
        widths: features of each text encoder, in SDXL's concatenation order.
        prediction_type: ``"epsilon"`` or ``"v_prediction"``.
        alphas_cumprod: [T] on the CPU, of the training noise schedule; alpha_t of Eq. 1 is its square root.
        default_resolution: side in pixels of the images the model was made for.
        latent_channels: channels of a latent.
        vae_factor: pixels a latent stands for, along one side.
        device: where encode, predict and decode compute and return.
    """

    name: str
    family: str
    widths: dict[str, int]
    prediction_type: str
    alphas_cumprod: torch.Tensor
    default_resolution: int
    latent_channels: int
    vae_factor: int
    device: torch.device

    def fingerprint(self, part: str) -> str:
        """Hash of everything that decides what ``part`` computes, read from files; loads no weights."""

    def encode_text(self, prompts: list[str]) -> TextEncoding:
        """Prompts padded or truncated to 77 tokens, as the base model does."""

    def encode_image(self, pixels: torch.Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1; H and W multiples of ``vae_factor``."""

    def predict_noise(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        hidden: torch.Tensor,
        pooled: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The UNet's raw output, float32 [B, C, h, w]; differentiable with respect to ``hidden``.

        Args:
            noisy: z_t of Eq. 1 [B, C, h, w].
            timesteps: integers [B].
            hidden: [B, 77, sum of widths].
            pooled, time_ids: SDXL only and needed there: [B, P], and [B, 6] with original height and width,
                crop top and left, target height and width.
        """

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents [B, C, h, w] -> pixels, float32 [B, 3, H, W] in -1..1."""

    def sample_images(
        self,
        hidden: torch.Tensor,
        negative_hidden: torch.Tensor,
        pooled: torch.Tensor | None = None,
        negative_pooled: torch.Tensor | None = None,
        *,
        seeds: list[int],
        steps: int,
        guidance_scale: float,
        resolution: int,
    ) -> list[Image]:
        """One image for each seed. The embeddings have a row for each seed, or one row for all."""

    def load(self, *parts: str) -> None:
        """Bring parts into memory now; they otherwise load on first use. No names: all."""

    def release(self, *parts: str) -> None:
        """Free the memory of parts. No names: all."""

    def loaded(self, part: str) -> bool: ...

    def attach(self, adapter: LLMDiffAdapter) -> LLMDiffSession:
        """The session of an adapter that acts inside the UNet. It stays attached, without effect until it is
        given tokens, until another one is or the UNet is released.

        Raises:
            AdapterMismatchError: the adapter was made for a UNet of another shape.
        """

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the UNet's activations in the backward pass instead of keeping them."""

    def describe(self) -> str:
        """One line for people."""

    def parameter_count(self, part: str) -> int:
        """Number of weights of a part, from its configuration alone."""

    def unet_on_meta(self) -> torch.nn.Module:
        """The UNet without storage, to count operations and activations: ``unet(**meta_inputs(...))``."""

    def meta_inputs(self, batch: int, resolution: int) -> dict:
        """Keyword arguments without storage for one call of :meth:`unet_on_meta`."""
