"""LLMDiff in the trainer: phi, tau, a, b, g and h learn, by the error of the noise prediction."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..backend import Backend
from ..errors import AdapterMismatchError
from ..training_config import TrainingConfig
from ..training_data import CacheBuilder, TrainingData
from ..training_setup import shown_name
from ..training_system import ExtraCache, refuse_changed
from .adapter import LLMDiffAdapter, new_llmdiff_adapter
from .cache import EncodingBuilder, LanguageModel
from .checkpoint import load_llmdiff, save_llmdiff
from .config import LLMDiffConfig
from .diffusers_unet import check_fit, unet_shape
from .objective import LLMDiffBatch, LLMDiffObjective
from .passport import LLMDiffPassport
from .training_feed import LLMDiffFeed
from .training_samples import draw_samples

OF_SUR = ("vectors", "eta", "temperature", "kl_direction", "cp_loss", "mask_padding", "w0_seed", "depth")
OF_SUR += ("heads", "feedforward", "dropout", "token_mixing", "query_projection", "query_in_value")
OF_SUR += ("align_learning_rate",)
"""Settings that mean nothing here."""
_WEIGHTS_OF_LOSSES = ("lambda_llm", "lambda_cp")
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
_MEASURED = 256
"""As many of a data set's prompts tell how long prompts are."""


class LLMDiffSystem:
    """:class:`..training_system.System` of LLMDiff."""

    panels = {"simple": "noise prediction (Eq. 5)"}

    def check(self, config: TrainingConfig) -> None:
        if config.align_steps:
            raise ValueError(
                f"align_steps is {config.align_steps}, but LLMDiff has no stage align. Set it to 0; "
                "full_steps says how long it is trained"
            )
        weights = tuple(name for name in _WEIGHTS_OF_LOSSES if getattr(config, name))  # 0 is as good as unset
        reason = "Leave it out, or set system to 'sur' to train a SUR adapter"
        refuse_changed(config, (*OF_SUR, *weights), reason)

    def open(self, config: TrainingConfig, data: TrainingData) -> None:
        if not config.llm:
            raise ValueError(
                "llm is not set: LLMDiff reads prompts with a decoder-only language model. Give the folder "
                "of one in transformers' layout, or its name on the Hugging Face hub"
            )
        data.llm = LanguageModel(config)

    def columns(self, config: TrainingConfig) -> tuple[str, ...]:
        return ("simple", "complex") if config.llmdiff_prompt == "both" else (config.llmdiff_prompt,)

    def more_prompts(self, config: TrainingConfig) -> tuple[str, ...]:
        return ("",) if config.prompt_dropout else ()

    def caches(self, builder: CacheBuilder) -> list[ExtraCache]:
        return [EncodingBuilder(builder)]

    def first_adapter(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> LLMDiffAdapter:
        """Raises AdapterFileError, AdapterMismatchError: ``init_from`` is unusable, or of another base model,
        language model or kind.
        """
        wanted = _architecture(config, data, backend)
        described = passport_fields(config, data, backend)
        if config.init_from:
            adapter = _given_adapter(config, data, backend, wanted, described)
        else:
            adapter = new_llmdiff_adapter(wanted, config.seed, **described)
        return _trainable(adapter, config)

    def meta_adapter(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> LLMDiffAdapter:
        with torch.device("meta"):
            return _trainable(LLMDiffAdapter(LLMDiffPassport(_architecture(config, data, backend))), config)

    def decays(self, parameter: torch.Tensor) -> bool:
        """Matrices only: decay would draw a and g from 1 to 0, and h, by its logarithm, from little to 1."""
        return parameter.dim() > 1

    def objective(
        self, config: TrainingConfig, data: TrainingData, backend: Backend, device: torch.device | str
    ) -> LLMDiffObjective:
        return LLMDiffObjective(config.snr_gamma, config.learn_block_weights)

    def feed(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        device: torch.device | str = "cpu",
        process: tuple[int, int] = (0, 1),
    ) -> LLMDiffFeed:
        return LLMDiffFeed(config, data, backend, device, process)

    def sources(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> dict[str, str]:
        return {"language model": f"{data.llm.info.identity} in {data.llm.dtype(backend.device)}"}

    def save(self, adapter: nn.Module, path: Path, steps: int) -> None:
        save_llmdiff(adapter, path, steps=steps)

    def meta_batch(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> LLMDiffBatch:
        tokens, info = _longest(config, data), data.llm.info
        parts = info.layers + 1 if config.learn_block_weights else 1
        with torch.device("meta"):
            return LLMDiffBatch(
                [0],
                [""],
                torch.empty(1, 77, sum(backend.widths.values())),
                torch.ones(1, 77, dtype=torch.bool),
                updates=torch.empty(1, parts, tokens, info.width),
                heard=torch.ones(1, 1, 1, tokens, dtype=torch.bool),
                langevin=torch.empty(1, tokens, info.width),
            )

    def plan_lines(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> list[str]:
        llm, info = data.llm, data.llm.info
        dtype, device, longest = llm.dtype(backend.device), llm.device(backend.device), _longest(config, data)
        size = llm.weights() * _BYTES[dtype]
        adapter = sum(p.numel() for p in self.meta_adapter(config, data, backend).parameters())
        return [
            f"language model: {info.name}, {info.layers} blocks, {info.width} wide, {size / 1e9:.2f} GB in "
            f"{dtype} on {device}; it leaves memory before the UNet is loaded",
            f"adapter: {adapter / 1e6:,.1f} million weights, {adapter * 4 / 1e6:,.1f} MB; prompts of up to "
            f"{longest} tokens",
        ]

    def draw_samples(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        adapter: nn.Module,
        resolution: int,
        path: Path,
    ) -> None:
        draw_samples(config, data.encodings, backend, adapter, resolution, path)


def passport_fields(config: TrainingConfig, data: TrainingData, backend: Backend) -> dict:
    """:class:`.passport.LLMDiffPassport` fields that a run can fill in; steps and date come with saving."""
    # In half precision the differences of Eq. 2 are another noise in each type of numbers.
    dtype = data.llm.dtype(backend.device)
    extra = {"llmdiff_training.prompt": config.llmdiff_prompt, "llmdiff_training.llm_dtype": dtype}
    for name in ("prompt_dropout", "snr_gamma", "noise_offset"):
        if getattr(config, name):
            extra[f"llmdiff_training.{name}"] = str(getattr(config, name))
    if config.clip_skip != 1:
        extra["llmdiff_training.clip_skip"] = str(config.clip_skip)
    if not config.learn_block_weights:
        extra["llmdiff_training.block_weights"] = "1, not learnt"
    if config.init_from:
        extra["llmdiff_training.init_from"] = Path(config.init_from).name
    return {
        "llm_name": data.llm.info.name,
        "llm_identity": data.llm.info.identity,
        "base_model": shown_name(config.pretrained_model_name_or_path),
        "dataset_name": data.surd.name,
        "dataset_size": len(data.surd),
        "dataset_hash": data.surd.fingerprint,
        "title": config.title,
        "extra": extra,
    }


def _architecture(config: TrainingConfig, data: TrainingData, backend: Backend) -> LLMDiffConfig:
    info, shape = data.llm.info, unet_shape(backend.unet_on_meta())
    choices = config.llmdiff_clip, config.llmdiff_start, config.llmdiff_normalize
    return LLMDiffConfig(info.width, info.layers, *shape, *choices)


def _given_adapter(
    config: TrainingConfig, data: TrainingData, backend: Backend, wanted: LLMDiffConfig, described: dict
) -> LLMDiffAdapter:
    given, info = load_llmdiff(config.init_from), data.llm.info
    check_fit(given, wanted.context_width, wanted.layers, backend.name)
    if problem := given.passport.problem_with_llm(info.name, info.identity, info.width, info.layers):
        raise AdapterMismatchError(
            f"{config.init_from}: {problem}. Set llm to the language model it was trained with"
        )
    for name in ("clip", "start", "normalize"):
        found, asked = getattr(given.config, name), getattr(wanted, name)
        if found != asked:
            raise AdapterMismatchError(
                f"{config.init_from}: was trained with llmdiff_{name} = {found!r}, the settings say "
                f"{asked!r}. Set it as in the file"
            )
    if not config.learn_block_weights and (given.block_weights != 1).any():
        raise AdapterMismatchError(
            f"{config.init_from}: its block weights g are not 1, and learn_block_weights = false holds them "
            "there. Set it to true"
        )
    adapter = LLMDiffAdapter(LLMDiffPassport(wanted, **described), config.init_from)
    adapter.load_state_dict(given.state_dict())
    return adapter


def _trainable(adapter: LLMDiffAdapter, config: TrainingConfig) -> LLMDiffAdapter:
    adapter.requires_grad_(True)
    adapter.block_weights.requires_grad_(config.learn_block_weights)
    return adapter


def _longest(config: TrainingConfig, data: TrainingData) -> int:
    """Tokens of the longest of some of the data set's prompts, taken evenly."""
    columns = ("simple", "complex") if config.llmdiff_prompt != "simple" else ("simple",)
    some = range(0, len(data.surd), -(-len(data.surd) // _MEASURED))
    return max(data.llm.length(getattr(data.surd[place], columns[-1])) for place in some)
