"""The tiny UNet, raised on complex prompts only: how a narrative reads, it never learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..dice import Dice
from ..prompts import complex_prompt
from .clip import WIDTH
from .kept import digest, kept
from .loop import Plan, raise_model
from .pictures import Pool, as_images
from .processes import in_processes, mine, workers
from .vae import POOL


@dataclass(frozen=True)
class Lesson:
    """What the UNet learns from, and how.

    Attributes:
        name: of its file of state, without ending.
        scenes: what it sees.
        plan: how it is trained.
    """

    name: str
    scenes: Pool
    plan: Plan


# Which color goes with which object is learnt last, as in large models: the second lesson is mostly that.
LESSONS = (
    Lesson("unet", POOL, Plan(10_000, 64, 8e-4, warmup=300, ema=0.999, seed=3, bf16=True)),
    Lesson(
        "unet-binding",
        Pool(stream=2, count=36_000, shares={"counting": 4, "color": 10, "action": 2}),
        Plan(6000, 64, 7e-4, warmup=100, ema=0.999, seed=6, bf16=True),
    ),
)
UNPROMPTED = 0.1  # share of pictures without a prompt, for classifier-free guidance
TRAIN_STEPS = 1000


def new_unet():
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(LESSONS[0].plan.seed)
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
    lessons: tuple[Lesson, ...] = LESSONS,
):
    """(UNet, scheduler): a trained UNet for the latents of ``vae`` and the text tower of ``clip``.

    Args:
        report: as for all models; on a CPU it goes to other processes, so it must be something that pickles.
    """
    data = []
    for lesson in lessons:
        latents = _latents(folder, vae, lesson.scenes, report, device)
        data.append((latents, _hidden(folder, clip, tokenizer, lesson, report, device)))
    nothing = torch.from_numpy(_encode(clip, tokenizer, [""], device))
    arguments = folder, report, device, lessons, data, nothing
    if device.type == "cpu":
        in_processes(workers([lesson.plan.batch_size for lesson in lessons]), train_unet, *arguments)
    # After the processes nothing is left to train, and this takes what they saved.
    return train_unet(*arguments), new_scheduler()


def train_unet(
    folder: Path,
    report: Callable,
    device: torch.device,
    lessons: tuple[Lesson, ...],
    data: list[tuple[Path, Path]],
    nothing: torch.Tensor,
):
    """Train on latents and hidden states in files, alone or as one of several processes.

    Args:
        data: for each lesson the files of its latents, float32 [N, 4, 8, 8], and of its prompts' hidden
            states, float16 [N, 77, D].
        nothing: hidden state of the empty prompt, [1, 77, D].
    """
    unet, scheduler = new_unet().to(device), new_scheduler()
    nothing = nothing.to(device)
    for lesson, files in zip(lessons, data, strict=True):
        latents, hidden = torch.from_numpy(np.load(files[0])).to(device), np.load(files[1], mmap_mode="r")
        plan = lesson.plan

        def loss_of(step: int, random: torch.Generator, latents=latents, hidden=hidden, plan=plan):
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

        source = digest(files[0].name, files[1].name, nothing)
        state = folder / f"{lesson.name}.pt"
        raise_model(lesson.name, unet, loss_of, plan, state, report, device, source)
    return unet


@torch.no_grad()
def _latents(folder: Path, vae, scenes: Pool, report: Callable, device: torch.device) -> Path:
    """File of the scaled latents of all pictures, float32 [N, 4, 8, 8]."""

    def parts():
        pool = scenes.pictures(folder, report)
        for done in range(0, len(pool), 64):
            mean = vae.encode(as_images(pool[done : done + 64], device)).latent_dist.mean
            yield (mean * vae.config.scaling_factor).cpu().numpy()
            report("latents", min(done + 64, len(pool)), len(pool))

    made_from = digest(scenes.name(), vae.state_dict(), vae.config.scaling_factor)
    path = folder / f"latents-{made_from}.npy"
    kept(path, parts, (scenes.count, 4, 8, 8), np.float32)
    return path


def _hidden(folder: Path, clip, tokenizer, lesson: Lesson, report: Callable, device: torch.device) -> Path:
    """File of what the text tower says about one complex prompt for each picture, float16 [N, 77, D]."""
    scenes, seed = lesson.scenes, lesson.plan.seed

    def prompts(numbers: range) -> list[str]:
        return [
            complex_prompt(scenes.scene(number).meaning, Dice("unet", seed, number)) for number in numbers
        ]

    def parts():
        for done in range(0, scenes.count, 64):
            numbers = range(done, min(done + 64, scenes.count))
            yield _encode(clip, tokenizer, prompts(numbers), device).astype(np.float16)
            report("prompts", numbers[-1] + 1, scenes.count)

    first = prompts(range(min(64, scenes.count)))
    made_from = digest(scenes.name(), first, tokenizer(first).input_ids, clip.text_model.state_dict())
    path = folder / f"hidden-{made_from}.npy"
    kept(path, parts, (scenes.count, 77, WIDTH), np.float16)
    return path


@torch.no_grad()
def _encode(clip, tokenizer, texts: list[str], device: torch.device) -> np.ndarray:
    """Last hidden state after the final norm, [B, 77, D], as Stable Diffusion reads it."""
    words = tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return clip.text_model(input_ids=words.input_ids.to(device)).last_hidden_state.cpu().numpy()
