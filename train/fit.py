"""Train an adapter, from a TOML file or flags; after a stop, the same command goes on."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sur_core.training_config import TrainingConfig
from sur_core.training_data import CacheBuilder, open_training_data
from sur_core.training_state import STATE_FILE
from sur_core.training_system import system_of

from .common import Bars, add_config_arguments, make_accelerator, open_model, read_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the plan and end")
    parser.add_argument("--restart", action="store_true", help="throw away what output_dir holds of a run")
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> int:
    config = read_config(options, "pretrained_model_name_or_path", "data", "output_dir")
    accelerator = make_accelerator(config)
    try:
        return _run(config, accelerator, options)
    finally:
        accelerator.end_training()


def _run(config: TrainingConfig, accelerator, options: argparse.Namespace) -> int:
    from sur_core.training import Trainer

    say = print if accelerator.is_main_process else lambda *_: None
    system_of(config).check(config)
    data = open_training_data(config)
    backend = open_model(config, accelerator.device)
    trainer = Trainer(config, data, backend, accelerator, say, _draw)
    done = 0 if options.restart else trainer.check_resume()
    if accelerator.is_main_process:
        _print_plan(trainer, done, options)
    if options.dry_run:
        say("dry run: nothing was written")
        return 0
    if done == config.total_steps:
        say(
            "this run is finished. Raise full_steps to train on (with a constant learning rate), give "
            "--restart to repeat it, or choose another output_dir"
        )
    with _only_run_in(config, accelerator):
        if accelerator.is_main_process:
            clear_leftovers(Path(config.output_dir))
            if options.restart:
                forget_run(Path(config.output_dir))
        accelerator.wait_for_everyone()
        _build_caches(trainer)
        trainer.resume()
        return _train(trainer, say)


def _print_plan(trainer, done: int, options: argparse.Namespace) -> None:
    from sur_core.training_plan import plan_training

    config, accelerator = trainer.config, trainer.accelerator
    plan = plan_training(config, trainer.data, trainer.backend, accelerator.num_processes)
    print("\n".join(plan.lines()))
    print(f"device: {accelerator.device}, mixed precision {config.mixed_precision}")
    if accelerator.device.type == "cpu" and config.full_steps and config.device == "auto":
        print("note: no GPU was found; stage full of a real model takes days on a CPU")
    state = f"going on after step {done} of {config.total_steps}" if done else "a new run"
    if options.restart:
        state = "a new run; what is in the folder of an old one is thrown away"
    print(f"{config.output_dir}: {state}")


def _build_caches(trainer) -> None:
    config, accelerator = trainer.config, trainer.accelerator
    process = accelerator.process_index, accelerator.num_processes
    bars = Bars(accelerator.is_main_process)
    builder = CacheBuilder(config, trainer.data, trainer.backend, process, bars)
    builder.build(latents=bool(config.full_steps))
    accelerator.wait_for_everyone()
    builder.open(latents=bool(config.full_steps))
    trainer.counters.sources["content of the images"] = builder.pictures()


def _train(trainer, say) -> int:
    from sur_core.training import Stopped

    try:
        trainer.run()
    except Stopped as stopped:
        say(str(stopped))
        return 128 + stopped.signal
    say(f"done: {trainer.folder / 'adapter.safetensors'}")
    return 0


def clear_leftovers(folder: Path) -> None:
    """Delete what a kill in the middle of a save left behind. The folder must be locked."""
    for path in folder.glob(".unfinished-*.tmp"):
        path.unlink(missing_ok=True)


def forget_run(folder: Path) -> None:
    """Delete what a run wrote, and nothing else."""
    for name in (STATE_FILE, "adapter.safetensors", "adapter-best.safetensors", "log.csv", "curves.png"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tensorboard", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _draw(trainer, name: str) -> None:
    with trainer.finished_weights() as adapter:
        path = trainer.folder / "samples" / f"{name}.png"
        given = trainer.config, trainer.data, trainer.backend, adapter, trainer.feed.resolution
        trainer.system.draw_samples(*given, path)
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
