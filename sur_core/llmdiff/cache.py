"""What a language model makes of every prompt of a data set, block by block, computed once and kept on disk.

A prompt is a row [T + 1, n, D] of a row file (:mod:`..row_store`), whose rows are all of one form. So prompts
lie in files by length, rounded up to one of a few sizes and padded with zeros: prompts of more than a few
words take a tenth to a half more than they would need.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch

from ..cache import CacheError, Progress, check_space, flush_now_and_then
from ..language_model import choose_device, choose_dtype
from ..language_model_files import KnowledgeError, find_model, in_words
from ..row_store import KEY_BYTES, Field, RowFolder, row_key
from ..training_config import TrainingConfig
from ..training_data import CacheBuilder
from ..training_errors import TrainingError, is_out_of_memory
from .encoder import BlockwiseEncoder
from .llm import StartTokenizer, check_decoder_only, open_llm

_DISK = {"fp16": "F16", "fp32": "F32"}


class LanguageModel:
    """The language model of a run, before its weights are read.

    Attributes:
        info: its name, identity, width and number of blocks.
    """

    def __init__(self, config: TrainingConfig):
        """Raises FileNotFoundError, KnowledgeError: there is none, or it is not decoder-only."""
        self.config, self.info = config, find_model(config.llm)
        check_decoder_only(self.info)
        self._tokenizer = StartTokenizer(self.info, config.llm_max_tokens)

    @property
    def start(self) -> int:
        """Number of the token that every prompt begins with."""
        return self._tokenizer.start

    def device(self, training: torch.device) -> torch.device:
        """Where prompts are encoded, if training is on the device given."""
        return training if self.config.llm_device == "auto" else choose_device(self.config.llm_device)

    def dtype(self, training: torch.device) -> str:
        return choose_dtype(self.config.llm_dtype, self.device(training))

    def length(self, prompt: str) -> int:
        """Tokens of a prompt, the start token counted. Raises KnowledgeError if it is too long."""
        try:
            return len(self._tokenizer([prompt])[0])
        except KnowledgeError as error:
            raise KnowledgeError(str(error).replace("max_tokens", "llm_max_tokens")) from None

    def weights(self) -> int:
        """Their number, from the configuration alone."""
        from transformers import AutoModel

        with in_words(self.info.source, "configuration"), torch.device("meta"):
            model = AutoModel.from_config(self.info.config)
        return sum(weight.numel() for weight in model.parameters())

    def open(self, training: torch.device) -> BlockwiseEncoder:
        """With its weights. Errors as :func:`.llm.open_llm`."""
        where = self.dtype(training), str(self.device(training))
        return BlockwiseEncoder(open_llm(self.config.llm, *where, self.config.llm_max_tokens))


class EncodingCache:
    """Rows of prompts; with g fixed at 1 their sum alone, in the place of its T + 1 parts.

    Attributes:
        folder: where they lie.
        places, more: after :meth:`EncodingBuilder.open`: the rows of a data set's samples by kind of prompt,
            and those of other prompts.
    """

    def __init__(self, folder: Path, llm: LanguageModel, training: torch.device, writer: str = ""):
        """
        Args:
            folder: of all caches.
            training: device of the run, on which the type to compute in may depend.
            writer: as :class:`..row_store.RowFolder`.
        """
        config, info = llm.config, llm.info
        self._config, self._llm = config, llm
        self._parts = info.layers + 1 if config.learn_block_weights else 1
        kind = "updates" if config.learn_block_weights else f"sum from {config.llmdiff_start}"
        self._known = ("llmdiff 1", info.identity, llm.start, llm.dtype(training), config.cache_dtype, kind)
        self.folder = Path(folder) / f"llm-{self._parts}x{info.width}-{config.cache_dtype}"
        self._rows = {
            size: RowFolder(self.folder / f"tokens-{size}", self._fields(size), writer)
            for size in sizes_up_to(config.llm_max_tokens)
        }
        self.places: dict[str, np.ndarray] = {}
        self.more: dict[str, int] = {}

    def _fields(self, size: int) -> dict[str, Field]:
        rows = Field(_DISK[self._config.cache_dtype], (self._parts, size, self._llm.info.width))
        return {"updates": rows, "length": Field("I32", (1,))}

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def key(self, prompt: str) -> bytes:
        return row_key(*self._known, prompt)

    def keys(self, prompts: Iterable[str]) -> np.ndarray:
        """uint8 [N, 16]; of all prompts without keeping their text."""
        joined = b"".join(self.key(prompt) for prompt in prompts)
        return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Place of each key, int64 [M]; -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        for start, rows in self._starts():
            here = rows.find(keys)
            found = np.where(here >= 0, start + here, found)
        return found

    def read(self, place: int) -> np.ndarray:
        """[T + 1, n, D] or, with g fixed, [1, n, D]; in the type on disk, without padding."""
        start, rows = max((pair for pair in self._starts() if pair[0] <= place), key=lambda pair: pair[0])
        row = rows.read(place - start)
        return row["updates"][:, : int(row["length"][0])]

    def row_bytes(self, length: int) -> int:
        """Bytes on disk of a prompt of so many tokens."""
        return self._rows[size_for(length)].row_bytes

    def build(self, prompts: list[str], encoder: BlockwiseEncoder, progress: Progress | None = None) -> None:
        """Encode and keep ``prompts``, none of which is kept yet, those of one size together.

        A run that was stopped then finds whole batches, and makes the very same ones of the rest.

        Raises:
            KnowledgeError: a prompt cannot be encoded.
            CacheError: a value is too large for the type on disk.
            OSError: the disk is full or fails; what was kept so far stays.
        """
        by_size, done = defaultdict(list), 0
        for prompt in prompts:
            by_size[size_for(self._llm.length(prompt))].append(prompt)
        batch = self._config.cache_batch_size
        for size, mine in sorted(by_size.items()):
            rows = self._rows[size]
            for start in range(0, len(mine), batch):
                some = mine[start : start + batch]
                rows.make_room(len(some))
                for prompt, updates in zip(some, self._encode(encoder, some), strict=True):
                    rows.append(self.key(prompt), self._row(prompt, updates, size))
                flush_now_and_then(rows, start, len(mine), batch)
                done += len(some)
                if progress:
                    progress("encodings", done, len(prompts))

    def _encode(self, encoder: BlockwiseEncoder, prompts: list[str]) -> list[torch.Tensor]:
        if self._config.learn_block_weights:
            return encoder.updates(prompts)
        return [c[None] for c in encoder.encode(prompts, [1.0] * encoder.blocks, self._config.llmdiff_start)]

    def _row(self, prompt: str, updates: torch.Tensor, size: int) -> dict[str, np.ndarray]:
        field, length = self._fields(size)["updates"], updates.shape[1]
        row = np.zeros(field.shape, field.numpy)
        with np.errstate(over="ignore"):  # told in words below
            row[:, :length] = updates.numpy()
        if not np.isfinite(row).all():
            raise CacheError(
                f"{self._llm.info.name}: the prompt {prompt[:60]!r} gives values too large for "
                f"{self._config.cache_dtype}. Set cache_dtype = 'fp32'"
            )
        return {"updates": row, "length": np.array([length], np.int32)}

    def _starts(self) -> Iterator[tuple[int, RowFolder]]:
        """Place of the first row of each folder that has any."""
        start = 0
        for rows in self._rows.values():
            if len(rows):
                yield start, rows
                start += len(rows)

    def close(self) -> None:
        for rows in self._rows.values():
            rows.close()


class EncodingBuilder:
    """:class:`..training_system.ExtraCache` for the encodings of all prompts, sample prompts among them."""

    what = "encodings"

    def __init__(self, builder: CacheBuilder):
        self._builder, self._config, self._data = builder, builder.config, builder.data
        self._device = builder.backend.device

    def build(self, writer: str) -> None:
        cache = self._open(writer)
        with closing(cache):
            mine = [prompt for prompt in self._missing(cache) if self._builder.is_mine(cache.key(prompt))]
            needed = sum(cache.row_bytes(self._data.llm.length(prompt)) for prompt in mine)
            check_space(self._builder.folder, needed, "set learn_block_weights to false")
            if mine:
                with _memory_advice(self._config):
                    cache.build(mine, self._data.llm.open(self._device), self._builder.progress)
                _release(self._data.llm.device(self._device))

    def open(self) -> None:
        cache, builder = self._open(), self._builder
        for column in builder.system.columns(self._config):
            keys = cache.keys(getattr(sample, column) for sample in self._data.surd)
            cache.places[column] = cache.find(keys)
            builder.require(cache.places[column] >= 0, self.what)
        more = list(self._more())
        found = cache.find(cache.keys(more))
        builder.require(found >= 0, self.what, more)
        cache.more = dict(zip(more, found.tolist(), strict=True))
        self._data.encodings = cache

    def missing(self) -> tuple[int, int]:
        with closing(self._open()) as cache:
            prompts = self._missing(cache)
            return len(prompts), sum(cache.row_bytes(self._data.llm.length(prompt)) for prompt in prompts)

    def found(self) -> tuple[int, int, Path]:
        cache = self._data.encodings
        used = np.concatenate([*cache.places.values(), np.array([*cache.more.values()], np.int64)])
        return len(np.unique(used)), len(cache), cache.folder

    def _open(self, writer: str = "") -> EncodingCache:
        return EncodingCache(self._builder.folder, self._data.llm, self._device, writer)

    def _missing(self, cache: EncodingCache) -> list[str]:
        """Every prompt that is not cached, once."""
        lacking = cache.find(cache.keys(self._prompts())) < 0
        pairs = zip(self._prompts(), lacking, strict=True)
        return list(dict.fromkeys(prompt for prompt, lacks in pairs if lacks))

    def _prompts(self) -> Iterator[str]:
        yield from self._builder.prompts()
        yield from self._more()

    def _more(self) -> Iterator[str]:
        yield from self._builder.system.more_prompts(self._config)
        if self._config.sample_prompts:
            yield from (*self._config.sample_prompts, "")


def size_for(length: int) -> int:
    """The padded length that prompts are kept at: a multiple of 8 up to 32, then of 16, of 32, ..."""
    step = max(8, 1 << max(0, (length - 1).bit_length() - 2))
    return -(-length // step) * step


def sizes_up_to(longest: int) -> list[int]:
    """Every size that prompts of up to ``longest`` tokens can have."""
    sizes = [size_for(1)]
    while sizes[-1] < longest:
        sizes.append(size_for(sizes[-1] + 1))
    return sizes


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()


@contextmanager
def _memory_advice(config: TrainingConfig) -> Iterator[None]:
    """Running out of memory becomes a :class:`..training_errors.TrainingError` that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ways = [f"lower cache_batch_size, now {config.cache_batch_size}"] * (config.cache_batch_size > 1)
        ways += ["set llm_dtype to bf16"] * (config.llm_dtype in ("auto", "fp32"))
        ways += ["set llm_device to cpu"]
        raise TrainingError(
            f"out of memory while {config.llm} encodes prompts. In this order: {'; '.join(ways)}. What was "
            "encoded so far is kept"
        ) from error
