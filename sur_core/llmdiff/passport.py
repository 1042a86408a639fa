"""What an LLMDiff adapter's file says about itself: typed here, stored as strings of a safetensors header."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import PurePath

from ..passport_fields import as_text, as_whole_number, read_whole_number, shown
from .config import LLMDiffConfig

FORMAT_VERSION = 1
PREFIX = "llmdiff."
_MODELSPEC = "modelspec."
_ARCHITECTURES = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2-512",
    "sdxl": "stable-diffusion-xl-v1-base",
}


@dataclass(frozen=True)
class LLMDiffPassport:
    """Everything known about an adapter besides its weights. ``None`` and ``""`` mean: not known.

    Attributes:
        config: its architecture.
        llm_name: the language model it reads, by hub name or folder name.
        llm_identity: changes with that model's config, tokenizer or weights.
        base_model: the diffusion model it was trained on.
        steps: optimiser steps taken.
        dataset_name, dataset_size, dataset_hash: what it was trained on; size in samples.
        created: ISO 8601 date and time.
        title: a name for people.
        extra: metadata this version has no field for; kept as it was.
    """

    config: LLMDiffConfig
    llm_name: str = ""
    llm_identity: str = ""
    base_model: str = ""
    steps: int | None = None
    dataset_name: str = ""
    dataset_size: int | None = None
    dataset_hash: str = ""
    created: str = ""
    title: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in _STRINGS:
            object.__setattr__(self, name, as_text(name, getattr(self, name)))
        for name in _INTEGERS:
            object.__setattr__(self, name, as_whole_number(name, getattr(self, name)))
        extra = {as_text("extra", key): as_text(f"extra {key}", text) for key, text in self.extra.items()}
        object.__setattr__(self, "extra", extra)

    @property
    def llm_words(self) -> str:
        """``"Qwen2-0.5B (24 blocks, 896 wide)"``."""
        config = self.config
        return f"{self.llm_name or 'a language model'} ({config.llm_blocks} blocks, {config.llm_width} wide)"

    def problem_with_llm(self, name: str, identity: str, width: int, blocks: int) -> str:
        """Why this language model is not the one the adapter learnt to read; ``""`` if it is.

        Models are told apart by size and name. A folder of the very files a training read from a folder may
        have any name.
        """
        found = f"{name} ({blocks} blocks, {width} wide)"
        if (width, blocks) != (self.config.llm_width, self.config.llm_blocks):
            return f"it reads {self.llm_words}, found {found}"
        same_files = identity and identity == self.llm_identity
        if self.llm_name and not same_files and _last(name) != _last(self.llm_name):
            return f"it reads {self.llm_words}, found {found}: of the same size, but another model"
        return ""

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata: strings under ``llmdiff.*`` and ``modelspec.*``."""
        metadata = dict(self.extra)
        metadata[PREFIX + "format_version"] = str(FORMAT_VERSION)
        metadata[PREFIX + "config"] = self.config.to_json()
        for name in (*_STRINGS, *_INTEGERS):
            value = getattr(self, name)
            if value not in (None, ""):
                metadata[PREFIX + name] = str(value)
        family = _ARCHITECTURES.get(self.config.family, "unknown")
        metadata[_MODELSPEC + "sai_model_spec"] = "1.0.0"
        metadata[_MODELSPEC + "architecture"] = f"{family}/llmdiff-adapter"
        metadata[_MODELSPEC + "implementation"] = "https://arxiv.org/abs/2502.04412"
        metadata[_MODELSPEC + "title"] = self.title or "LLMDiff-Adapter"
        if self.created:
            metadata[_MODELSPEC + "date"] = self.created
        return metadata

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> LLMDiffPassport:
        """Inverse of :meth:`to_metadata`. Raises ``ValueError`` saying which field is missing or wrong."""
        version = read_whole_number("format_version", metadata.get(PREFIX + "format_version"))
        if version is None or version < 1:
            raise ValueError("passport field format_version is missing")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"the file has format version {version}, this program reads up to {FORMAT_VERSION}; update it"
            )
        values = {name: metadata.get(PREFIX + name, "") for name in _STRINGS}
        values |= {name: read_whole_number(name, metadata.get(PREFIX + name)) for name in _INTEGERS}
        config = LLMDiffConfig.from_json(metadata.get(PREFIX + "config", ""))
        extra = {key: text for key, text in metadata.items() if not _is_ours(key)}
        return cls(config=config, extra=extra, **values)

    def to_text(self) -> str:
        """The passport as lines for people. Only what is known is shown."""
        config = self.config
        size = f"{self.dataset_size:,} samples" if self.dataset_size is not None else ""
        rows = [
            ("made for", config.family_words),
            ("reads", self.llm_words),
            ("in training read in", self.extra.get("llmdiff_training.llm_dtype", "")),
            ("trained on the prompts", self.extra.get("llmdiff_training.prompt", "")),
            ("text encoder", {"drop": "replaced", "keep": "kept beside"}[config.clip]),
            ("encoding", f"from {config.start}, normalisation {config.normalize}"),
            ("trained on", self.base_model),
            ("steps", shown(self.steps)),
            ("data set", ", ".join(filter(None, (self.dataset_name, size)))),
            ("created", self.created),
        ]
        lines = [self.title] if self.title else []
        return "\n".join(lines + [f"{name}: {value}" for name, value in rows if value])


_STRINGS = (
    "llm_name",
    "llm_identity",
    "base_model",
    "dataset_name",
    "dataset_hash",
    "created",
    "title",
)
_INTEGERS = ("steps", "dataset_size")
assert {f.name for f in fields(LLMDiffPassport)} == {*_STRINGS, *_INTEGERS, "config", "extra"}


def _is_ours(key: str) -> bool:
    if key.startswith(PREFIX):
        return key.removeprefix(PREFIX) in {*_STRINGS, *_INTEGERS, "format_version", "config"}
    return key in {
        _MODELSPEC + name for name in ("sai_model_spec", "architecture", "implementation", "title", "date")
    }


def _last(name: str) -> str:
    """A hub name's or a path's last part, as people compare names."""
    return PurePath(name.replace("\\", "/")).name.lower()
