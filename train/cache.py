"""Encode every image and prompt of a data set once, so that training need not."""

from __future__ import annotations

import argparse

import numpy as np

from sur_core.training_data import CacheBuilder, TrainingData, open_training_data
from sur_core.training_system import system_of

from .common import Bars, add_config_arguments, make_accelerator, open_model, read_config

SECTIONS = ("model", "data", "cache", "llmdiff")
OTHERS = ("system", "output_dir", "align_steps", "full_steps")
OTHERS += ("mixed_precision", "device", "dataloader_num_workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, SECTIONS, OTHERS)


def run(options: argparse.Namespace) -> None:
    config = read_config(options, "pretrained_model_name_or_path", "data")
    system_of(config).check(config)
    # Vectors are no part of the caches, and may be made later.
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
        _report(data, builder)
    accelerator.end_training()


def _report(data: TrainingData, builder: CacheBuilder) -> None:
    found = {}
    if data.texts is not None:
        used = np.concatenate([*data.text_rows.values(), np.array([*data.more_texts.values()], np.int64)])
        found["prompts"] = len(np.unique(used)), len(data.texts.rows), data.texts.rows.folder
    found |= {cache.what: cache.found() for cache in builder.more}
    if data.latents is not None:
        used = np.unique(data.latent_rows[data.latent_rows >= 0])
        found["images"] = len(used), len(data.latents.rows), data.latents.rows.folder
    for what, (count, everything, folder) in found.items():
        print(f"{what}: {count:,} of this data set, {everything:,} in all, in {folder}")
