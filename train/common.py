"""What several commands share: settings as flags, a progress bar for caches, an accelerator."""

from __future__ import annotations

import argparse
import atexit
import importlib
import sys
from dataclasses import fields
from datetime import timedelta
from typing import get_args, get_origin, get_type_hints

from sur_core.processes import Processes
from sur_core.training_config import TrainingConfig, read_toml


def add_config_arguments(
    parser: argparse.ArgumentParser, sections: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> None:
    """``--config FILE`` and a flag for every setting; switches have a ``--no-`` form.

    Args:
        sections: show only settings of these in the help; all if empty. The others are taken all the same, so
            that commands share their command line.
        others: settings of other sections to show.
    """
    parser.usage = f"{parser.prog} [--config FILE] [options]"  # else some hundred lines at every mistake
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings; flags win over it")
    types = get_type_hints(TrainingConfig)
    groups = {}
    for spec in fields(TrainingConfig):
        section = spec.metadata["section"]
        flag = _flag(spec, types[spec.name])
        if sections and section not in sections and spec.name not in others:
            parser.add_argument(_name(spec), **flag | {"help": argparse.SUPPRESS})
            continue
        group = groups.get(section) or groups.setdefault(section, parser.add_argument_group(section))
        group.add_argument(_name(spec), **flag)


def _name(spec) -> str:
    return "--" + spec.name.replace("_", "-")


def _flag(spec, kind) -> dict:
    """What argparse is told of one setting."""
    words, default = spec.metadata["help"].replace("%", "%%"), spec.default
    flag = {"dest": spec.name, "default": argparse.SUPPRESS}
    if kind is bool:
        return flag | {
            "action": argparse.BooleanOptionalAction,
            "help": f"{words} ({'on' if default else 'off'})",
        }
    if get_origin(kind) is tuple:
        return flag | {"nargs": "*", "type": get_args(kind)[0], "metavar": "TEXT", "help": words}
    choices = [choice for choice in spec.metadata["choices"] if choice != ""]
    if choices:
        words += f": {', '.join(choices)}"
    if default not in ("", ()):
        words += f" ({default})"
    return flag | {"type": kind, "metavar": kind.__name__.upper(), "help": words}


def read_config(options: argparse.Namespace, *needed: str) -> TrainingConfig:
    """The settings of ``--config`` and of the flags. Raises ``ValueError`` or ``OSError`` in words."""
    names = {spec.name for spec in fields(TrainingConfig)}
    flags = {name: value for name, value in vars(options).items() if name in names}
    config = TrainingConfig.from_values({**(read_toml(options.config) if options.config else {}), **flags})
    missing = [name for name in needed if not getattr(config, name)]
    if missing:
        asked = ", ".join("--" + name.replace("_", "-") for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(f"{', '.join(missing)} {verb} not set; give {asked}, or set it in the config")
    return config


class Bars:
    """Progress bars with ETA for work that reports (what, done, total)."""

    def __init__(self, shown: bool = True):
        self._shown, self._bars = shown, {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_) -> None:
        for bar in self._bars.values():  # an error gets a line of its own
            bar.close()

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


def all_processes(device: str = "auto") -> tuple[Processes, object]:
    """This process among those accelerate or torchrun has started, and the torch device to compute on.

    Raises:
        ValueError: accelerate is missing.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError:
        raise ValueError("accelerate is not installed; pip install -r requirements-train.txt") from None
    # Processes wait for each other at the end, and cards may differ by hours; the usual limit is minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=30))
    accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[patience])
    if accelerator.num_processes > 1:
        # Threads of the group that are still there when the program ends can abort it.
        atexit.register(accelerator.end_training)
    processes = Processes(accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone)
    return processes, accelerator.device if device in ("auto", "cpu") else device


def make_accelerator(config: TrainingConfig):
    """Raises ``ValueError`` in words if accelerate is missing or cannot do what is asked."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedType
    except ImportError:
        raise ValueError("accelerate is not installed; pip install -r requirements-train.txt") from None
    # Said here, because accelerate would take other values from its launcher's environment.
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision, cpu=config.device == "cpu", gradient_accumulation_steps=1
    )
    strange = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in strange:
        raise ValueError(
            f"accelerate is set to {accelerator.distributed_type.value}; an adapter is small and is trained "
            "with plain processes. Run 'accelerate config' again and choose no DeepSpeed, FSDP or Megatron"
        )
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("mixed_precision fp16 needs a GPU; on a CPU give --mixed-precision no, or bf16")
    return accelerator


def open_model(config: TrainingConfig, device):
    """The base model of the settings; loads no weights yet."""
    quiet_libraries("diffusers", "transformers")
    from sur_core.diffusers_backend import open_backend

    return open_backend(
        config.pretrained_model_name_or_path,
        device=device,
        dtype=config.model_dtype,
        vae_dtype=config.vae_dtype,
        family=config.family,
        revision=config.revision,
        variant=config.variant,
        single_file_config=config.single_file_config,
        clip_skip=config.clip_skip,
        prediction_type=config.prediction_type,
    )


def quiet_libraries(*names: str) -> None:
    """Keep bars and advice of the libraries underneath out of ours; their errors still come through."""
    for name in names:
        library = importlib.import_module(f"{name}.utils.logging")
        library.set_verbosity_error()
        library.disable_progress_bar()
