"""Every setting of a training run: one dataclass, read from TOML and flags, written beside the result.

Names follow diffusers' training scripts where those have one.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from .adapter import TOKEN_MIXINGS, SURAdapterConfig
from .atomic import atomic_write
from .llmdiff.config import CLIP_CHOICES, NORMALIZATIONS, STARTS
from .losses import CP_LOSSES, KL_DIRECTIONS

STAGES = ("align", "full")
ARCHITECTURE = tuple(field.name for field in fields(SURAdapterConfig) if field.name != "width")
"""Settings that say how an adapter is built; named as in :class:`SURAdapterConfig`."""


def _option(default, help: str, section: str, choices: tuple = (), free: bool = False):
    """``free``: may change when a run goes on, because no weight depends on it, or because the content of
    what it names is compared instead.
    """
    metadata = {"help": help, "section": section, "choices": choices, "free": free}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of ``python -m train fit`` and ``cache``; each field's help text says what it is."""

    # fmt: off
    pretrained_model_name_or_path: str = _option(
        "", "base model: a diffusers folder, a hub id, or a .safetensors/.ckpt checkpoint", "model",
        free=True)
    family: str = _option("", "refuse a base model of another family", "model", ("", "sd1", "sd2", "sdxl"))
    revision: str = _option("", "revision of a hub id", "model")
    variant: str = _option("", "variant of the weights, such as fp16", "model")
    single_file_config: str = _option(
        "", "folder or hub id with configs and tokenizer for a single-file checkpoint", "model", free=True)
    prediction_type: str = _option(
        "", "what the UNet predicts, if the model's files say it wrongly", "model",
        ("", "epsilon", "v_prediction"))
    clip_skip: int = _option(1, "text encoder layer from the end, as AUTOMATIC1111 counts", "model")

    data: str = _option(
        "", "SURD folder, parquet, hub data set, or .csv/.jsonl of prompt pairs", "data", free=True)
    split: str = _option("train", "split of a hub data set", "data")
    image_column: str = _option("", "default: file_name, or image", "data")
    simple_column: str = _option("", "default: text, or simple", "data")
    complex_column: str = _option("", "default: prompt, or complex", "data")
    quarantine: str = _option(
        "", "list of rows to leave out (default: the one `check` wrote)", "data", free=True)
    vectors: str = _option("", "knowledge vectors written by `vectors`", "data", free=True)
    resolution: int = _option(0, "edge of the images in pixels; 0 is the model's own", "data")
    crop: str = _option("center", "center: cut the middle; squash: change proportions", "data",
                        ("center", "squash"))
    random_flip: bool = _option(True, "mirror images at random, as the paper does", "data")
    validation_share: float = _option(
        0.02, "share of the samples held out for validation; 0 is none", "data")
    validation_max: int = _option(256, "at most so many samples are held out", "data")

    cache_dir: str = _option("", "where caches are kept (default: sur_cache beside output_dir)", "cache",
                             free=True)
    cache_latents: bool = _option(True, "encode every image once, in advance", "cache")
    cache_text: bool = _option(True, "encode every prompt once, in advance", "cache")
    cache_dtype: str = _option("fp16", "type of what is cached", "cache", ("fp16", "fp32"))
    vae_dtype: str = _option("fp32", "type the VAE computes in; SDXL's overflows in fp16", "cache",
                             ("fp32", "bf16", "fp16"))
    cache_batch_size: int = _option(8, "images or prompts encoded at once", "cache", free=True)

    eta: float = _option(0.1, "strength in Eq. 7", "loss")
    lambda_llm: float = _option(1e-5, "weight of Eq. 5; 0 needs no vectors", "loss")
    lambda_cp: float = _option(1e-5, "weight of Eq. 9", "loss")
    temperature: float = _option(1.0, "tau of Eq. 5 and 9", "loss")
    kl_direction: str = _option("paper", "direction of Eq. 5", "loss", KL_DIRECTIONS)
    cp_loss: str = _option("kl", "form of Eq. 9; mse sees constant shifts, which kl does not", "loss",
                           CP_LOSSES)
    mask_padding: bool = _option(False, "leave the simple prompt's padding out of Eq. 5 and 9", "loss")
    snr_gamma: float = _option(0.0, "gamma of min-SNR weighting of Eq. 8; 0 is off", "loss")
    noise_offset: float = _option(0.0, "size of a constant added to each channel's noise", "loss")
    w0_seed: int = _option(0, "seed of the frozen W0 of Eq. 5", "loss")

    system: str = _option("sur", "what is trained: a SUR adapter, or an LLMDiff-Adapter", "adapter",
                          ("sur", "llmdiff"))
    init_from: str = _option("", "adapter file to start from", "adapter")
    depth: int = _option(2, "Transformer layers of h3", "adapter")
    heads: int = _option(8, "attention heads of h3", "adapter")
    feedforward: int = _option(2048, "feed-forward width of h3", "adapter")
    dropout: float = _option(0.1, "dropout in h3", "adapter")
    token_mixing: str = _option("tokens", "what h3 attends over", "adapter", TOKEN_MIXINGS)
    query_projection: bool = _option(False, "a linear layer after h3, as in the authors' files", "adapter")
    query_in_value: bool = _option(
        False, "Eq. 6 also reads the query (an extension, meant for models of few features)", "adapter")

    llm: str = _option(
        "", "language model that is read: a transformers folder, or a hub id", "llmdiff", free=True)
    llm_dtype: str = _option("auto", "type the language model computes in", "llmdiff",
                             ("auto", "fp32", "bf16", "fp16"))
    llm_device: str = _option("auto", "where prompts are encoded, such as cpu; auto is where training is",
                              "llmdiff", free=True)
    llm_max_tokens: int = _option(256, "longer prompts are refused", "llmdiff", free=True)
    llmdiff_clip: str = _option("drop", "what the UNet hears of the text encoder beside the language model",
                                "llmdiff", CLIP_CHOICES)
    llmdiff_start: str = _option("embedding", "c^T of Eq. 3", "llmdiff", STARTS)
    llmdiff_normalize: str = _option("none", "of each token's encoding", "llmdiff", NORMALIZATIONS)
    llmdiff_prompt: str = _option("simple", "which of a sample's prompts is read; both: either, by chance",
                                  "llmdiff", ("simple", "complex", "both"))
    prompt_dropout: float = _option(
        0.1, "share of samples read with the empty prompt, which guidance needs", "llmdiff")
    learn_block_weights: bool = _option(
        True, "learn g(t) of Eq. 2; if not, it is 1, and the cache much smaller", "llmdiff")

    align_steps: int = _option(0, "steps of stage align: Eq. 5 and 9 only, no images", "training")
    full_steps: int = _option(5000, "steps of stage full: Eq. 5, 8 and 9", "training")
    train_batch_size: int = _option(16, "samples a process takes at once", "training", free=True)
    gradient_accumulation_steps: int = _option(
        1, "batches per optimiser step", "training", free=True)
    learning_rate: float = _option(1e-5, "AdamW's learning rate", "training")
    align_learning_rate: float = _option(0.0, "learning rate of stage align; 0 is the same", "training")
    lr_scheduler: str = _option("constant", "learning rate over each stage", "training",
                                ("constant", "cosine", "linear"))
    lr_warmup_steps: int = _option(0, "steps of linear warm-up at the start of each stage", "training")
    adam_beta1: float = _option(0.9, "AdamW", "training")
    adam_beta2: float = _option(0.999, "AdamW", "training")
    adam_epsilon: float = _option(1e-8, "AdamW", "training")
    adam_weight_decay: float = _option(1e-2, "AdamW", "training")
    max_grad_norm: float = _option(1.0, "the gradient is cut to this length; 0 is off", "training")
    ema_decay: float = _option(0.0, "decay of the running mean of the weights; 0 is off", "training")
    mixed_precision: str = _option("no", "type of the frozen models and of autocast", "training",
                                   ("no", "fp16", "bf16"))
    gradient_checkpointing: bool = _option(
        False, "recompute the UNet's activations: less memory, slower", "training")
    seed: int = _option(0, "of the initial weights, the order, noise and dropout", "training")
    device: str = _option("auto", "auto or cpu", "training", ("auto", "cpu"), free=True)
    dataloader_num_workers: int = _option(4, "threads that read images and caches", "training", free=True)

    output_dir: str = _option("", "folder of this run", "output", free=True)
    title: str = _option("", "a name for people, kept in the adapter", "output", free=True)
    checkpointing_steps: int = _option(250, "steps between saved states", "output", free=True)
    logging_steps: int = _option(10, "steps between rows of log.csv", "output", free=True)
    validation_steps: int = _option(250, "steps between validations; 0 is never", "output", free=True)
    sample_prompts: tuple[str, ...] = _option((), "prompts drawn with and without the adapter", "output",
                                              free=True)
    sample_steps: int = _option(1000, "steps between sample images; 0 is only at the end", "output",
                                free=True)
    sample_inference_steps: int = _option(30, "denoising steps of a sample image", "output", free=True)
    sample_guidance_scale: float = _option(7.5, "guidance scale of sample images", "output", free=True)
    sample_seed: int = _option(0, "seed of sample images", "output", free=True)
    # fmt: on

    def __post_init__(self):
        for spec in fields(self):
            object.__setattr__(self, spec.name, check_setting(spec.name, getattr(self, spec.name)))
        if not self.align_steps + self.full_steps:
            raise ValueError("align_steps and full_steps are both 0; there is nothing to train")
        if self.align_steps and not (self.lambda_llm or self.lambda_cp):
            raise ValueError("stage align needs lambda_llm or lambda_cp above 0; both are 0")

    @property
    def total_steps(self) -> int:
        return self.align_steps + self.full_steps

    def stage_of(self, step: int) -> str:
        """Stage in which step 0, 1, ... is taken."""
        return "align" if step < self.align_steps else "full"

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: warm-up and schedule run over each stage on its own."""
        aligning = step < self.align_steps
        length = self.align_steps if aligning else self.full_steps
        place = step if aligning else step - self.align_steps
        rate = (self.align_learning_rate if aligning else 0.0) or self.learning_rate
        if place < self.lr_warmup_steps:
            return rate * (place + 1) / self.lr_warmup_steps
        done = (place - self.lr_warmup_steps) / max(1, length - self.lr_warmup_steps)
        if self.lr_scheduler == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * done))
        return rate * (1 - done) if self.lr_scheduler == "linear" else rate

    @property
    def model_dtype(self) -> str:
        """Type that the UNet and the text encoders compute in: ``"fp32"``, ``"fp16"`` or ``"bf16"``."""
        return "fp32" if self.mixed_precision == "no" else self.mixed_precision

    @property
    def cache_folder(self) -> Path:
        return Path(self.cache_dir) if self.cache_dir else Path(self.output_dir or ".").parent / "sur_cache"

    def to_toml(self) -> str:
        """All settings, by section, each with its help text as a comment."""
        lines, section = [], None
        for spec in fields(self):
            if spec.metadata["section"] != section:
                section = spec.metadata["section"]
                lines += ["", f"[{section}]"]
            value = getattr(self, spec.name)
            # JSON's strings, numbers, booleans and arrays are TOML's too, but for one control character.
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{spec.name} = {text}  # {spec.metadata['help']}")
        return "\n".join(lines[1:]) + "\n"

    def save(self, path: str | os.PathLike) -> None:
        with atomic_write(path) as file:
            file.write(self.to_toml().encode("utf8"))

    @classmethod
    def load(cls, path: str | os.PathLike, **overrides) -> TrainingConfig:
        """Read a TOML file; ``overrides`` win. Sections are for people: a field may stand in any or none.

        Raises:
            OSError: the file cannot be read.
            ValueError: naming the file, the field, what was expected and found.
        """
        return cls.from_values(read_toml(path), **overrides) if path else cls.from_values({}, **overrides)

    @classmethod
    def from_values(cls, values: dict[str, Any], **overrides) -> TrainingConfig:
        return cls(**{name: check_setting(name, value) for name, value in {**values, **overrides}.items()})

    def with_values(self, **values) -> TrainingConfig:
        return replace(self, **values)


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """The settings of a TOML file, sections taken apart. Errors as :meth:`TrainingConfig.load`."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        raise ValueError(f"{path}: reading TOML needs Python 3.11 or newer") from None
    try:
        document = tomllib.loads(Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a TOML file with settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as TOML: {error}") from error
    values: dict[str, Any] = {}
    sections = {spec.metadata["section"] for spec in fields(TrainingConfig)}
    for name, value in document.items():
        if isinstance(value, dict) and name not in sections:
            near = difflib.get_close_matches(name, sections, 1)
            hint = f"; did you mean [{near[0]}]?" if near else f"; known are {sorted(sections)}"
            raise ValueError(f"{path}: unknown section [{name}]{hint}")
        entries = value if isinstance(value, dict) else {name: value}
        if twice := sorted(set(entries) & set(values)):
            raise ValueError(f"{path}: {twice[0]} is set twice")
        values.update(entries)
    try:
        return {name: check_setting(name, value) for name, value in values.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_setting(name: str, value: Any) -> Any:
    """``value`` as the setting's type. Raises ``ValueError`` if there is no such setting or value."""
    if name not in _TYPES:
        near = difflib.get_close_matches(name, _TYPES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown setting {name!r}{hint}")
    value = _checked(name, value, _TYPES[name])
    choices = TrainingConfig.__dataclass_fields__[name].metadata["choices"]
    if choices and value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, found {value!r}")
    low, high = _RANGES.get(name, (None, None))
    if low is not None and not low <= value <= high:
        wanted = f"in {low:g}..{high:g}" if high <= 1 << 20 else f"{low:g} or more"
        raise ValueError(f"{name} must be {wanted}, found {value:g}")
    if name == "resolution" and value % 8:
        raise ValueError(f"resolution must be a multiple of 8, found {value}")
    return value


def changed_settings(old: dict[str, Any], new: TrainingConfig) -> list[str]:
    """Settings that differ and would change the weights, as ``"eta was 0.1, now is 0.2"``.

    The batch may be split in another way; that its size is the same is the caller's to check.

    A constant learning rate knows no end, so the last stage may then be made longer.
    """
    found, now = [], asdict(new)
    for spec in fields(new):
        before = old.get(spec.name, None if spec.default is MISSING else spec.default)
        after = now[spec.name]
        same = before == after or (isinstance(after, tuple) and tuple(before or ()) == after)
        longer = spec.name == "full_steps" and new.lr_scheduler == "constant"
        if not (same or spec.metadata["free"] or longer):
            found.append(f"{spec.name} was {before!r}, now is {after!r}")
    return found


_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("eta", "validation_share", "lambda_llm", "lambda_cp", "prompt_dropout"), (0.0, 1.0)),
    **dict.fromkeys(("dropout", "ema_decay", "adam_beta1", "adam_beta2"), (0.0, 0.999999999)),
    **dict.fromkeys(("temperature", "learning_rate", "adam_epsilon"), (1e-20, 1e6)),
    **dict.fromkeys(("snr_gamma", "noise_offset", "max_grad_norm"), (0.0, 1e9)),
    **dict.fromkeys(("align_learning_rate", "adam_weight_decay"), (0.0, 1e9)),
    **dict.fromkeys(("train_batch_size", "gradient_accumulation_steps"), (1, 1 << 30)),
    **dict.fromkeys(("checkpointing_steps", "logging_steps"), (1, 1 << 40)),
    **dict.fromkeys(("cache_batch_size", "clip_skip", "sample_inference_steps"), (1, 100_000)),
    **dict.fromkeys(("align_steps", "full_steps", "lr_warmup_steps"), (0, 1 << 40)),
    **dict.fromkeys(("validation_steps", "validation_max", "sample_steps"), (0, 1 << 40)),
    **dict.fromkeys(("resolution", "dataloader_num_workers"), (0, 16384)),
    "llm_max_tokens": (2, 1 << 30),
    **dict.fromkeys(("seed", "w0_seed", "sample_seed"), (0, (1 << 62) - 1)),
}


def _checked(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the field's type. TOML writes 1 for 1.0 and lists for tuples; nothing else is bent."""
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list, found {value!r}")
        return tuple(_checked(name, item, get_args(kind)[0]) for item in value)
    if kind is str and isinstance(value, str) and value.encode("utf8", "replace").decode() != value:
        raise ValueError(f"{name} holds characters that no text file can: {value!r}. Rename the path")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise ValueError(f"{name} must be {words}, found {value!r}")
    return value


_TYPES: dict[str, Any] = get_type_hints(TrainingConfig)
