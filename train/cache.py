"""Encode every image and prompt of a data set once, so that training need not."""

from __future__ import annotations

import argparse

from sur_core.training_data import CacheBuilder, open_training_data

from .common import Bars, add_config_arguments, make_accelerator, open_model, read_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def run(options: argparse.Namespace) -> None:
    # Vectors are no part of the caches, and may be made later.
    config = read_config(options).with_values(lambda_llm=0.0, lambda_cp=1.0)
    accelerator = make_accelerator(config)
    data = open_training_data(config)
    backend = open_model(config, accelerator.device)
    process = accelerator.process_index, accelerator.num_processes
    builder = CacheBuilder(config, data, backend, process, Bars(accelerator.is_main_process))
    with_images = bool(config.full_steps)
    builder.build(latents=with_images)
    accelerator.wait_for_everyone()
    builder.open(latents=with_images)
    if accelerator.is_main_process:
        for what, cache in (("prompts", data.texts), ("images", data.latents)):
            if cache is not None:
                print(f"{what}: {len(cache.rows):,} rows in {cache.rows.folder}")
    accelerator.end_training()
