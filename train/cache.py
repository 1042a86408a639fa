"""Encode every image and prompt of a data set once, so that training need not."""

from __future__ import annotations

import argparse

import numpy as np

from sur_core.training_data import CacheBuilder, open_training_data

from .common import Bars, add_config_arguments, make_accelerator, open_model, read_config

SECTIONS = ("model", "data", "cache")
OTHERS = ("output_dir", "align_steps", "full_steps", "mixed_precision", "device", "dataloader_num_workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, SECTIONS, OTHERS)


def run(options: argparse.Namespace) -> None:
    # Vectors are no part of the caches, and may be made later.
    config = read_config(options, "pretrained_model_name_or_path", "data")
    config = config.with_values(lambda_llm=0.0, lambda_cp=1.0)
    if not (config.output_dir or config.cache_dir):
        raise ValueError(
            "neither output_dir nor cache_dir is set; give the one you will train with, so that fit finds "
            "the cache (it looks in sur_cache beside output_dir)"
        )
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
        rows = {
            "prompts": (data.texts, np.append(data.simple_rows, data.complex_rows)),
            "images": (data.latents, data.latent_rows),
        }
        for what, (cache, used) in rows.items():
            if cache is not None:
                count = len(np.unique(used[used >= 0]))
                print(
                    f"{what}: {count:,} of this data set, {len(cache.rows):,} in all, in {cache.rows.folder}"
                )
    accelerator.end_training()
