"""Train an adapter, from a TOML file or flags; after a stop, the same command goes on."""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from sur_core.training_config import TrainingConfig
from sur_core.training_data import CacheBuilder, open_training_data
from sur_core.training_state import STATE_FILE

from .common import Bars, add_config_arguments, make_accelerator, open_model, read_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the plan and end")
    parser.add_argument("--restart", action="store_true", help="throw away what output_dir holds of a run")
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    config = read_config(options)
    if not config.output_dir:
        raise ValueError("output_dir is not set; give --output-dir, the folder of this run")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    accelerator = make_accelerator(config)
    try:
        return _run(config, accelerator, options)
    finally:
        accelerator.end_training()


def _run(config: TrainingConfig, accelerator, options: argparse.Namespace) -> int:
    from sur_core.training import Stopped, Trainer
    from sur_core.training_plan import plan_training

    say = print if accelerator.is_main_process else lambda *_: None
    data = open_training_data(config)
    backend = open_model(config, accelerator.device)
    if accelerator.is_main_process:
        for line in plan_training(config, data, backend, accelerator.num_processes).lines():
            say(line)
    if options.dry_run:
        say("dry run: nothing was written")
        return 0
    with _only_run_in(config, accelerator):
        if options.restart and accelerator.is_main_process:
            forget_run(Path(config.output_dir))
        accelerator.wait_for_everyone()
        process = accelerator.process_index, accelerator.num_processes
        builder = CacheBuilder(config, data, backend, process, Bars(accelerator.is_main_process))
        builder.build(latents=bool(config.full_steps))
        accelerator.wait_for_everyone()
        builder.open(latents=bool(config.full_steps))
        trainer = Trainer(config, data, backend, accelerator, say, _draw)
        trainer.resume()
        try:
            trainer.run()
        except Stopped as stopped:
            say(str(stopped))
            return 128 + stopped.signal
    say(f"done: {Path(config.output_dir) / 'adapter.safetensors'}")
    return 0


def forget_run(folder: Path) -> None:
    """Delete what a run wrote, and nothing else."""
    for name in (STATE_FILE, "adapter.safetensors", "adapter-best.safetensors", "log.csv", "curves.png"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tensorboard", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _draw(trainer, name: str) -> None:
    from sur_core.training_samples import draw_samples

    with trainer.finished_weights() as adapter:
        path = trainer.folder / "samples" / f"{name}.png"
        draw_samples(trainer.config, trainer.backend, adapter, trainer.feed.resolution, path)
    if trainer.data.texts is not None:
        trainer.backend.release("text")
    if trainer.data.latents is not None or not trainer.config.full_steps:
        trainer.backend.release("vae")
    if not trainer.config.full_steps:
        trainer.backend.release("unet")


def _only_run_in(config: TrainingConfig, accelerator):
    """Held while this run lasts: two runs in one folder would overwrite each other's state."""
    from contextlib import nullcontext

    from filelock import FileLock, Timeout

    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not accelerator.is_main_process:
        return nullcontext()
    lock = FileLock(folder / ".running.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder}: another run is using this folder; choose another output_dir") from None
    return lock
