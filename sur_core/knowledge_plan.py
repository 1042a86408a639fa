"""What a build of knowledge vectors is going to do, decided and checked before anything heavy is touched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import torch

from .knowledge import STORE_DTYPES, KnowledgeSource, check_target, to_metadata
from .language_model import DTYPES, SPECIAL_TOKENS, choose_device, choose_dtype
from .language_model_files import KnowledgeError, ModelInfo, find_model
from .row_store import RowFile, row_key

_CHOICES = {
    "dtype": ("auto", *DTYPES),
    "quantize": ("", "8bit", "4bit"),
    "special_tokens": SPECIAL_TOKENS,
    "store_dtype": tuple(STORE_DTYPES),
}


@dataclass(frozen=True)
class KnowledgePlan:
    """What a build is going to do.

    Attributes:
        path: the file to be.
        prompts: each prompt once, in the order the data set has them.
        info, layer: the model, and the layer counted from 0.
        dtype, quantize, device: how the model computes.
        store_dtype, special_tokens, max_tokens: as in :func:`sur_core.knowledge_build.build_knowledge`.
    """

    path: Path
    prompts: list[str]
    info: ModelInfo
    layer: int
    dtype: str
    quantize: str
    device: torch.device
    store_dtype: str
    special_tokens: str
    max_tokens: int

    @cached_property
    def partial(self) -> Path:
        digest = blake2b(digest_size=4)
        for key in sorted(map(row_key, self.prompts)):
            digest.update(key)
        return self.path.with_name(f"{self.path.stem}.{digest.hexdigest()}.partial.safetensors")

    @property
    def vector_bytes(self) -> int:
        """What the vectors will take on the disk."""
        return len(self.prompts) * self.info.width * (2 if self.store_dtype == "fp16" else 4)

    def metadata(self) -> dict[str, str]:
        info = self.info
        source = KnowledgeSource(info.name, self.layer, info.layers, info.width, self.special_tokens)
        return to_metadata(
            source,
            compute_dtype=self.dtype,
            quantize=self.quantize,
            dtype=self.store_dtype,
            max_tokens=self.max_tokens,
            model=info.identity,
        )

    def found_files(self) -> list[Path]:
        """The finished file and unfinished ones, also of other sets of prompts."""
        name = re.compile(re.escape(self.path.stem) + r"\.[0-9a-f]{8}\.partial\.safetensors")
        beside = self.path.parent.iterdir() if self.path.parent.is_dir() else ()
        partial = [path for path in beside if name.fullmatch(path.name)]
        return [path for path in (self.path, *sorted(partial)) if path.exists()]


def plan_knowledge(
    prompts: Iterable[str],
    path: str | os.PathLike,
    model: str | Path,
    layer: int = -1,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantize: str = "",
    special_tokens: str = "skip",
    store_dtype: str = "fp16",
    max_tokens: int = 512,
    revision: str = "",
    local_files_only: bool = False,
) -> KnowledgePlan:
    """Everything decided and checked, no weight read, nothing written. Arguments and errors as
    :func:`sur_core.knowledge_build.build_knowledge`.
    """
    _check_choices(dtype=dtype, quantize=quantize, special_tokens=special_tokens, store_dtype=store_dtype)
    unique = list(dict.fromkeys(_texts(prompts)))
    if not unique:
        raise KnowledgeError("there are no prompts to make vectors of")
    info = find_model(model, revision, local_files_only)
    where = choose_device(device)
    limit = min(max_tokens, info.positions or max_tokens)
    return KnowledgePlan(
        check_target(Path(path)),
        unique,
        info,
        info.resolve(layer),
        choose_dtype(dtype, where),
        quantize,
        where,
        store_dtype,
        special_tokens,
        limit,
    )


def _check_choices(**given: str) -> None:
    for name, value in given.items():
        if value not in _CHOICES[name]:
            raise KnowledgeError(
                f"{name} must be one of {', '.join(map(repr, _CHOICES[name]))}, not {value!r}"
            )


def _texts(prompts: Iterable[str]) -> Iterator[str]:
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise KnowledgeError(f"prompts must be text, found {prompt!r}")
        yield prompt


def check_settings(file: RowFile, plan: KnowledgePlan) -> None:
    """Raises KnowledgeError if the file was made with other settings. Where a model lies does not matter."""
    wanted = plan.metadata()
    wanted.pop("sur.vectors.llm")
    differing = [
        f"{name.removeprefix('sur.vectors.')} {file.metadata.get(name, 'unknown')!r}, now {value!r}"
        for name, value in wanted.items()
        if file.metadata.get(name) != value
    ]
    if differing:
        raise KnowledgeError(
            f"{file.path}: made with other settings ({'; '.join(differing)}). Use the settings it was made "
            "with, choose another name, or throw it away with restart (--restart)"
        )
