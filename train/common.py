"""What several commands share: settings as flags, a progress bar for caches, an accelerator."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

from sur_core.training_config import TrainingConfig, read_toml


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config FILE`` and a flag for every setting; switches have a ``--no-`` form."""
    parser.add_argument("--config", help="TOML file with settings; flags win over it")
    types = get_type_hints(TrainingConfig)
    groups = {}
    for spec in fields(TrainingConfig):
        section = spec.metadata["section"]
        group = groups.setdefault(section, parser.add_argument_group(section))
        kind, default = types[spec.name], spec.default
        words = spec.metadata["help"].replace("%", "%%")
        settings = {"dest": spec.name, "default": argparse.SUPPRESS}
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is tuple:
            settings |= {"nargs": "*", "type": get_args(kind)[0], "metavar": "TEXT"}
        else:
            settings |= {"type": kind, "metavar": kind.__name__.upper()}
            if spec.metadata["choices"]:
                settings["choices"] = spec.metadata["choices"]
                settings.pop("metavar")
            if default not in ("", ()):
                words += f" (default: {default})"
        group.add_argument("--" + spec.name.replace("_", "-"), "--" + spec.name, help=words, **settings)


def read_config(options: argparse.Namespace) -> TrainingConfig:
    """The settings of ``--config`` and of the flags. Raises ``ValueError`` or ``OSError`` in words."""
    names = {spec.name for spec in fields(TrainingConfig)}
    flags = {name: value for name, value in vars(options).items() if name in names}
    config = TrainingConfig.from_values({**(read_toml(options.config) if options.config else {}), **flags})
    for name in ("pretrained_model_name_or_path", "data"):
        if not getattr(config, name):
            raise ValueError(f"{name} is not set; give --{name.replace('_', '-')}, or set it in the config")
    return config


class Bars:
    """Progress bars with ETA for work that reports (what, done, total)."""

    def __init__(self, shown: bool = True):
        self._shown, self._bars = shown, {}

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if not self._shown:
            return
        if what not in self._bars:
            self._bars[what] = tqdm(total=total, desc=what, unit="", file=sys.stderr)
        bar = self._bars[what]
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            del self._bars[what]


def make_accelerator(config: TrainingConfig):
    """Raises ``ValueError`` in words if accelerate is missing or cannot do what is asked."""
    try:
        from accelerate import Accelerator
    except ImportError:
        raise ValueError("accelerate is not installed; pip install -r requirements-train.txt") from None
    return Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")


def open_model(config: TrainingConfig, device):
    """The base model of the settings; loads no weights yet."""
    from sur_core.diffusers_backend import open_backend

    return open_backend(
        config.pretrained_model_name_or_path,
        device=device,
        dtype="fp32" if config.mixed_precision == "no" else config.mixed_precision,
        vae_dtype=config.vae_dtype,
        family=config.family,
        revision=config.revision,
        variant=config.variant,
        single_file_config=config.single_file_config,
        clip_skip=config.clip_skip,
        prediction_type=config.prediction_type,
    )
