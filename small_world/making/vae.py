"""The tiny VAE: 64 x 64 pixels to 8 x 8 latents of four channels, as Stable Diffusion's, factor 8."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from .kept import digest
from .loop import Plan, raise_model
from .pictures import Pool, as_images

PLAN = Plan(steps=2400, batch_size=32, learning_rate=2e-3, weight_decay=0.0, seed=1, bf16=True)
DECODER_PLAN = Plan(steps=1500, batch_size=32, learning_rate=1e-3, weight_decay=0.0, seed=5, bf16=True)
POOL = Pool(stream=1, count=36_000)
KL_WEIGHT = 1e-5
POSTERIOR = 0.01  # standard deviation of the finished posterior: next to none, as Stable Diffusion's
ROUGHNESS = 0.08  # noise on the decoder's latents: what a UNet draws is never quite a picture's latent


def new_vae():
    from diffusers import AutoencoderKL

    torch.manual_seed(PLAN.seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def raise_vae(
    folder: Path,
    report: Callable[[str, int, int], None],
    device: torch.device,
    plan: Plan = PLAN,
    decoder_plan: Plan = DECODER_PLAN,
    scenes: Pool = POOL,
):
    """A trained VAE whose ``scaling_factor`` brings its latents to a standard deviation of one."""
    vae = new_vae().to(device)
    pool, source = scenes.pictures(folder, report), scenes.name()

    def loss_of(step: int, random: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(pool), (plan.batch_size,), generator=random).sort().values.numpy()
        images = as_images(pool[rows], device)
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=random).to(device)
        drawn = vae.decode(posterior.mean + posterior.std * noise).sample
        return _error(drawn, images) + KL_WEIGHT * posterior.kl().mean()

    def loss_of_decoder(step: int, random: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(pool), (decoder_plan.batch_size,), generator=random).sort().values.numpy()
        images = as_images(pool[rows], device)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
        noise = torch.randn(latents.shape, generator=random).to(device)
        return _error(vae.decode(latents + ROUGHNESS * noise).sample, images)

    raise_model("VAE", vae, loss_of, plan, folder / "vae.pt", report, device, source)
    # The encoder stays as it is, so the decoder's source is the encoder too.
    source = digest(source, vae.state_dict())
    raise_model(
        "decoder", vae.decoder, loss_of_decoder, decoder_plan, folder / "decoder.pt", report, device, source
    )
    _settle(vae)
    vae.eval()
    vae.register_to_config(scaling_factor=round(1 / _spread(vae, pool[:2048], device), 5))
    return vae


@torch.no_grad()
def _settle(vae) -> None:
    """Give the posterior one small spread everywhere.

    The first training needs its noise, and makes it wide; the UNet and the second one know the means. Whoever
    draws from the posterior, as training programs do, must get what these two know.
    """
    moments = vae.quant_conv  # means, then logarithms of variances
    half = moments.out_channels // 2
    moments.weight[half:] = 0.0
    moments.bias[half:] = 2 * math.log(POSTERIOR)


def _error(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Squares for the whole, absolute values for sharp edges: flat shapes need no discriminator."""
    error = drawn.float() - images
    return error.square().mean() + 0.5 * error.abs().mean()


@torch.no_grad()
def _spread(vae, pixels: np.ndarray, device: torch.device) -> float:
    parts = [vae.encode(as_images(part, device)).latent_dist.mean for part in np.array_split(pixels, 32)]
    return float(torch.cat(parts).std())
