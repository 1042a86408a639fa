"""The tiny UNet, raised on complex prompts only: how a narrative reads, it never learnt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sur_core.atomic import atomic_write

from ..dice import Dice
from ..prompts import complex_prompt
from .clip import WIDTH
from .loop import Plan, raise_model
from .pictures import as_images, pictures, scene_of
from .processes import in_processes, mine
from .vae import PICTURES, STREAM

PLAN = Plan(steps=10_000, batch_size=64, learning_rate=8e-4, warmup=300, ema=0.999, seed=3, bf16=True)
UNPROMPTED = 0.1  # share of pictures without a prompt, for classifier-free guidance
TRAIN_STEPS = 1000
LATENTS, HIDDEN, NOTHING = "latents.npy", "hidden.npy", "nothing.npy"


def new_unet():
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(PLAN.seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 112),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
    )
    # Torch's fused attention is slow backwards on a CPU: for 64 tokens the plain one takes half as long.
    unet.set_attn_processor(AttnProcessor())
    return unet


def new_scheduler():
    """Stable Diffusion's noise schedule. The UNet predicts v: at this size it settles layouts better."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def raise_unet(
    folder: Path,
    vae,
    clip,
    tokenizer,
    report: Callable,
    device: torch.device,
    plan: Plan = PLAN,
    count: int = PICTURES,
):
    """(UNet, scheduler): a trained UNet for the latents of ``vae`` and the text tower of ``clip``."""
    _latents(folder, vae, count, report, device)
    _hidden(folder, clip, tokenizer, count, report, device)
    _kept(folder / NOTHING, lambda: [_encode(clip, tokenizer, [""], device)])
    if device.type == "cpu":
        in_processes(os.cpu_count() or 1, train_unet, folder, report, device, plan)
    # After the processes nothing is left to train, and this takes what they saved.
    return train_unet(folder, report, device, plan), new_scheduler()


def train_unet(folder: Path, report: Callable, device: torch.device, plan: Plan):
    """Train on what :func:`raise_unet` has laid down in ``folder``, alone or as one of several processes."""
    unet, scheduler = new_unet().to(device), new_scheduler()
    latents = torch.from_numpy(np.load(folder / LATENTS)).to(device)
    hidden = np.load(folder / HIDDEN, mmap_mode="r")
    nothing = torch.from_numpy(np.load(folder / NOTHING)).to(device)

    def loss_of(step: int, random: torch.Generator) -> torch.Tensor:
        # Drawn for the whole batch, so that the number of processes changes nothing.
        rows = torch.randint(len(latents), (plan.batch_size,), generator=random)
        noise = mine(torch.randn((plan.batch_size, *latents.shape[1:]), generator=random)).to(device)
        times = mine(torch.randint(TRAIN_STEPS, (plan.batch_size,), generator=random)).to(device)
        unprompted = mine(torch.rand(plan.batch_size, generator=random) < UNPROMPTED).to(device)
        rows = mine(rows)
        clean = latents[rows]
        words = torch.from_numpy(hidden[rows.numpy()]).to(device).float()
        words = torch.where(unprompted[:, None, None], nothing, words)
        noisy = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        return (unet(noisy, times, words).sample - target).square().mean()

    raise_model("UNet", unet, loss_of, plan, folder / "unet.pt", report, device)
    return unet


@torch.no_grad()
def _latents(folder: Path, vae, count: int, report: Callable, device: torch.device) -> np.ndarray:
    """Scaled latents of all pictures, float32 [N, 4, 8, 8]."""

    def parts(pool):
        for done in range(0, len(pool), 64):
            mean = vae.encode(as_images(pool[done : done + 64], device)).latent_dist.mean
            yield (mean * vae.config.scaling_factor).cpu().numpy()
            report("latents", min(done + 64, len(pool)), len(pool))

    return _kept(folder / LATENTS, lambda: parts(pictures(folder, count, STREAM, report)))


def _hidden(folder: Path, clip, tokenizer, count: int, report: Callable, device: torch.device) -> np.ndarray:
    """What the text tower says about one complex prompt for each picture, float16 [N, 77, D]."""

    def parts():
        for done in range(0, count, 64):
            numbers = range(done, min(done + 64, count))
            texts = [
                complex_prompt(scene_of(number, STREAM).meaning, Dice("unet", PLAN.seed, number))
                for number in numbers
            ]
            yield _encode(clip, tokenizer, texts, device).astype(np.float16)
            report("prompts", numbers[-1] + 1, count)

    return _kept(folder / HIDDEN, parts)


@torch.no_grad()
def _encode(clip, tokenizer, texts: list[str], device: torch.device) -> np.ndarray:
    """Last hidden state after the final norm, [B, 77, D], as Stable Diffusion reads it."""
    words = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return clip.text_model(input_ids=words.input_ids.to(device)).last_hidden_state.cpu().numpy()


def _kept(path: Path, parts: Callable) -> np.ndarray:
    if not path.exists():
        found = np.concatenate(list(parts()))
        with atomic_write(path) as file:
            np.save(file, found)
    return np.load(path)
