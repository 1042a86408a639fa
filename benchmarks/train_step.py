"""What a training step costs, and what the caches, frozen weights and the align stage save.

    python benchmarks/train_step.py [--quick] [--full-size]

Steps of the real trainer take turns in one run, so that a change of the machine's speed meets all of them;
the ratios of each turn are taken, and their median and quartiles are printed. The base model's weights are
random.
On the CPU it is a small one whose VAE costs, beside its UNet, about what SD 1.5's does; on a GPU, or with
--full-size, it has SD 1.5's sizes, and the achieved operations are set beside the card's own matrix products.

    cached           stage full, latents and text embeddings from the caches
    uncached         the same step, decoding, VAE and text encoders included
    weight gradients the cached step with the UNet's requires_grad left on
    align            stage align, cached

The last line is one JSON object with the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sur_core.diffusers_backend import open_backend  # noqa: E402
from sur_core.training import Trainer  # noqa: E402
from sur_core.training_config import TrainingConfig  # noqa: E402
from sur_core.training_data import CacheBuilder, open_training_data  # noqa: E402
from sur_core.training_plan import step_cost  # noqa: E402
from tests.tiny_models import make_tiny  # noqa: E402
from tests.training_runs import make_pictures, write_vectors  # noqa: E402

SIZES = {
    "small": {
        "unet": (128, 256, 512, 512),
        "vae": (96, 192, 320, 320),
        "groups": 8,
        "text": 64,
        "latent": 16,
    },
    "SD 1.5": {"unet": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512), "groups": 32, "text": 768},
}


def make_model(folder: Path, size: str) -> Path:
    """A diffusers folder with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    given = SIZES[size]
    latent = given.get("latent", 64)
    make_tiny(folder, text_width=given["text"])
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=latent,
        block_out_channels=given["unet"],
        cross_attention_dim=given["text"],
        attention_head_dim=8,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=given["vae"],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=given["groups"],
        latent_channels=4,
        sample_size=latent * 8,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    return folder


class Arm:
    """One kind of step, repeated at will."""

    def __init__(self, config: TrainingConfig, accelerator, weight_gradients: bool = False):
        self.data = open_training_data(config)
        self.backend = open_backend(
            config.pretrained_model_name_or_path,
            device=accelerator.device,
            dtype="fp32" if config.mixed_precision == "no" else config.mixed_precision,
        )
        builder = CacheBuilder(config, self.data, self.backend)
        builder.build(bool(config.full_steps))
        builder.open(bool(config.full_steps))
        self.trainer = Trainer(config, self.data, self.backend, accelerator)
        self.stage = "full" if config.full_steps else "align"
        self._steps = self.trainer.feed.steps(self.stage, 0, config.total_steps)
        self._unet = None
        if weight_gradients:
            self.backend.load("unet")
            self._unet = self.backend._part("unet")["unet"].requires_grad_(True)

    def seconds(self) -> float:
        """Time of one step, its data included."""
        start = clock(self.trainer.accelerator.device)
        step, batches = next(self._steps)
        self.trainer._step(step, batches, 0)
        if self._unet is not None:
            self._unet.zero_grad(set_to_none=True)
        return clock(self.trainer.accelerator.device) - start


class StepTimes:
    """Stands in for the progress bar: when each step of a run ended, and what the models took of it."""

    def __init__(self, device: torch.device):
        self.device, self.ends, self.model = device, [], 0.0

    def step(self, _loss: float) -> None:
        self.ends.append((clock(self.device), self.model))

    def close(self) -> None:
        pass

    def overhead(self, skip: int) -> list[float]:
        """Share of each step spent outside the models, the first ``skip`` left out."""
        pairs = list(zip(self.ends, self.ends[1:], strict=False))[skip:]
        return [1 - (after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs]

    def timed(self, call: Callable) -> Callable:
        def timed(*arguments, **options):
            start = clock(self.device)
            try:
                return call(*arguments, **options)
            finally:
                self.model += clock(self.device) - start

        return timed


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the card's matrix products: the best of several sizes and tries."""
    best = 0.0
    for edge in (4096, 8192):
        left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
        for _ in range(10):
            start = clock(device)
            for _ in range(5):
                left @ right
            best = max(best, 5 * 2 * edge**3 / (clock(device) - start))
    return best


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"median {middle:.3f}, quartiles {low:.3f}-{high:.3f}"


def encoder_share(arm: Arm, turns: int) -> list[float]:
    """Time of the VAE's encoder over the UNet's forward, turn by turn."""
    backend, resolution = arm.backend, arm.trainer.feed.resolution
    pixels = torch.rand(1, 3, resolution, resolution, device=backend.device)
    latents = torch.randn(1, 4, resolution // 8, resolution // 8, device=backend.device)
    hidden = torch.randn(1, 77, sum(backend.widths.values()), device=backend.device)
    ratios = []
    with torch.no_grad():
        for _ in range(turns):
            start = clock(backend.device)
            backend.encode_image(pixels)
            middle = clock(backend.device)
            backend.predict_noise(latents, torch.tensor([500], device=backend.device), hidden)
            ratios.append((middle - start) / (clock(backend.device) - middle))
    backend.release("vae")
    return ratios[1:]


def measure_overhead(config: TrainingConfig, accelerator, steps: int) -> list[float]:
    """Shares of the real loop's steps that are spent outside forward and backward of the models."""
    trainer = Arm(config.with_values(full_steps=steps, checkpointing_steps=10 * steps), accelerator).trainer
    times, backward = StepTimes(accelerator.device), accelerator.backward
    trainer._progress = lambda *_: times
    trainer.objective = times.timed(trainer.objective)
    accelerator.backward = times.timed(backward)
    try:
        trainer.run()
    finally:
        accelerator.backward = backward
    return times.overhead(skip=2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    parser.add_argument("--full-size", action="store_true", help="SD 1.5's sizes, as always on a GPU")
    options = parser.parse_args()
    from accelerate import Accelerator

    on_gpu = torch.cuda.is_available()
    size = "SD 1.5" if on_gpu or options.full_size else "small"
    turns = 5 if options.quick else 15
    precision = "bf16" if on_gpu else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=not on_gpu)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), size, turns, precision, accelerator)
    print(json.dumps(figures))


def measure(folder: Path, size: str, turns: int, precision: str, accelerator) -> dict[str, float]:
    device = accelerator.device
    data = make_pictures(folder / "data", 24, edges=(512, 640))
    config = TrainingConfig(
        pretrained_model_name_or_path=str(make_model(folder / "model", size)),
        data=str(data),
        vectors=str(write_vectors(folder / "vectors.safetensors", data)),
        output_dir=str(folder / "run"),
        train_batch_size=2 if size == "small" else 4,
        feedforward=2048 if size != "small" else 128,
        full_steps=100_000,
        validation_share=0.0,
        mixed_precision=precision,
        device="auto" if device.type == "cuda" else "cpu",
    )
    arms = {
        "cached": Arm(config, accelerator),
        "uncached": Arm(config.with_values(cache_latents=False, cache_text=False), accelerator),
        "weight gradients": Arm(config, accelerator, weight_gradients=True),
        "align": Arm(config.with_values(align_steps=100_000, full_steps=0), accelerator),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(turns + 2):
        order = list(arms) if turn % 2 else list(arms)[::-1]
        for name in order:
            seconds = arms[name].seconds()
            if turn > 1:  # the first two warm up
                times[name].append(seconds)
    ratios = {
        "uncached_over_cached": _ratio(times, "uncached", "cached"),
        "weight_grads_over_frozen": _ratio(times, "weight gradients", "cached"),
        "align_over_uncached_full": _ratio(times, "uncached", "align"),
    }
    ratios["overhead_share"] = measure_overhead(config, accelerator, turns * 2)
    threads = torch.get_num_threads()
    print(
        f"a training step, {size} sizes, {device}, {threads} threads, torch {torch.__version__}, {precision=}"
    )
    print(f"VAE encode over UNet forward, in time: {quartiles(encoder_share(arms['uncached'], turns))}")
    for name, values in times.items():
        print(f"{name:18} seconds a step of {config.train_batch_size}: {quartiles(values)}")
    for name, values in ratios.items():
        print(f"{name:26} {quartiles(values)}")
    figures = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    cached = arms["cached"]
    macs, _ = step_cost(config, cached.data, cached.backend, "full", cached.trainer.feed.resolution)
    achieved = 2 * macs * config.train_batch_size / statistics.median(times["cached"])
    print(f"cached step: {macs / 1e9:.1f} GMAC a sample, {achieved / 1e12:.3f} TFLOP/s")
    if device.type == "cuda":
        peak = matmul_rate(device, torch.bfloat16)
        print(f"matrix products of this card in bf16: {peak / 1e12:.1f} TFLOP/s")
        figures["flops_share_of_matmul_peak"] = round(achieved / peak, 3)
    return figures


def _ratio(times: dict[str, list[float]], above: str, below: str) -> list[float]:
    return [a / b for a, b in zip(times[above], times[below], strict=True)]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
