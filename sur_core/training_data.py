"""Everything a training run reads: the data set split in two, and where each sample's rows lie on disk."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .backend import Backend
from .cache import (
    CacheSettings,
    LatentCache,
    Progress,
    TextCache,
    check_space,
    image_digests,
    known_digests,
    writing_lock,
)
from .knowledge import KnowledgeVectors
from .surd import Surd, open_surd
from .training_config import TrainingConfig
from .training_errors import encoding_advice
from .training_system import system_of

if TYPE_CHECKING:
    from .llmdiff.cache import EncodingCache, LanguageModel

log = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """The data of a run. Rows are int64 arrays over all samples, -1 where a sample has none.

    Attributes:
        surd: the data set.
        train, validation: sample numbers of each part.
        has_image: bool over all samples.
        texts, text_rows: cached embeddings; ``texts`` is ``None`` until they are built. Rows for each kind of
            prompt that is read, ``"simple"`` and ``"complex"``.
        more_texts: rows of prompts that belong to no sample.
        latents, latent_rows: cached latents likewise.
        knowledge, knowledge_rows: SUR's knowledge vectors; ``None`` where Eq. 5 is off.
        llm, encodings: LLMDiff's language model, and what it makes of every prompt.
    """

    surd: Surd
    train: np.ndarray
    validation: np.ndarray
    has_image: np.ndarray
    texts: TextCache | None = None
    text_rows: dict[str, np.ndarray] = field(default_factory=dict)
    more_texts: dict[str, int] = field(default_factory=dict)
    latents: LatentCache | None = None
    latent_rows: np.ndarray | None = None
    knowledge: KnowledgeVectors | None = None
    knowledge_rows: np.ndarray | None = None
    llm: LanguageModel | None = None
    encodings: EncodingCache | None = None

    @property
    def simple_rows(self) -> np.ndarray | None:
        return self.text_rows.get("simple")

    @property
    def complex_rows(self) -> np.ndarray | None:
        return self.text_rows.get("complex")

    def samples(self, stage: str, part: str = "train") -> np.ndarray:
        """Sample numbers that a stage uses of ``"train"`` or ``"validation"``."""
        chosen = self.train if part == "train" else self.validation
        return chosen if stage == "align" else chosen[self.has_image[chosen]]


def open_training_data(config: TrainingConfig) -> TrainingData:
    """Open data set and what else is read, and split off the validation part. Nothing is encoded yet.

    Raises:
        OSError, ValueError: in words, if they cannot be read or do not fit together.
    """
    quarantine = Path(config.quarantine) if config.quarantine else None
    columns = config.image_column, config.simple_column, config.complex_column
    surd = open_surd(config.data, config.split, quarantine, *columns)
    if surd.quarantined:
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in surd.quarantined[:3])
        more = " ..." if len(surd.quarantined) > 3 else ""
        words = "%s: %d rows are left out (%s%s). 'python -m train check %s' lists all"
        log.warning(words, surd.name, len(surd.quarantined), reasons, more, config.data)
    has_image = np.fromiter((sample.has_image for sample in surd), bool, len(surd))
    train, validation = split_validation(surd, config)
    data = TrainingData(surd, train, validation, has_image)
    if config.full_steps and not len(data.samples("full")):
        raise ValueError(
            f"{config.data}: none of its {len(surd)} samples has an image, which stage full needs. Set "
            "full_steps = 0 and give align_steps to train on the prompts alone"
        )
    system_of(config).open(config, data)
    return data


def split_validation(surd: Surd, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Sample numbers (train, validation), a function of the prompts and the seed.

    Samples of the same simple prompt stay together: one that is trained on would be no test. They are held
    out only if there is room for all of them.
    """
    everything = np.arange(len(surd))
    wanted = min(round(config.validation_share * len(surd)), config.validation_max)
    if config.validation_share and config.validation_max and len(surd) > 1:
        wanted = max(1, wanted)
    if not wanted:
        return everything, everything[:0]
    salt = config.seed.to_bytes(8, "little")
    lots = np.fromiter((_lot(sample.simple, salt) for sample in surd), np.uint64, len(surd))
    groups, members, sizes = np.unique(lots, return_inverse=True, return_counts=True)
    chosen, room = np.zeros(len(groups), bool), wanted
    for group, size in enumerate(sizes):
        if size <= room:
            chosen[group], room = True, room - size
        if not room:
            break
    held_out = chosen[members]
    if not held_out.any():
        raise ValueError(
            f"{config.data}: {wanted} samples cannot be held out, because every simple prompt is that of "
            f"{sizes.min()} samples or more. Raise validation_share, or set it to 0"
        )
    return everything[~held_out], everything[held_out]


def _lot(prompt: str, salt: bytes) -> int:
    return int.from_bytes(blake2b(prompt.encode("utf8"), digest_size=8, key=salt).digest(), "little")


def cache_settings(config: TrainingConfig, backend: Backend) -> CacheSettings:
    resolution = config.resolution or backend.default_resolution
    if resolution % backend.vae_factor:
        raise ValueError(f"resolution must be a multiple of {backend.vae_factor}, found {resolution}")
    return CacheSettings(
        resolution,
        config.crop,
        config.random_flip,
        config.cache_dtype,
        config.vae_dtype,
        config.clip_skip,
        text_dtype=config.model_dtype,
    )


class CacheBuilder:
    """Builds what is missing in the caches, each process its share, and finds every sample's row."""

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        process: tuple[int, int] = (0, 1),
        progress: Progress | None = None,
    ):
        """``process``: number of this process and how many there are."""
        self.config, self.data, self.backend, self.progress = config, data, backend, progress
        self.settings = cache_settings(config, backend)
        self.process = process
        self.folder = config.cache_folder
        self.system = system_of(config)
        self.more = self.system.caches(self)

    def build(self, latents: bool = True) -> None:
        """Encode what is missing. Encoders are loaded only if something is, and leave memory afterwards.

        Raises:
            OSError, ValueError: in words; what was encoded so far is kept and used by the next attempt.
        """
        if not (self.config.cache_text or (latents and self.config.cache_latents) or self.more):
            return
        writer = f"p{self.process[0]}"
        with writing_lock(self.folder, writer):
            if self.config.cache_text:
                self._build_text(writer)
            for cache in self.more:
                cache.build(writer)
            if latents and self.config.cache_latents:
                self._build_latents(writer)

    def open(self, latents: bool = True) -> None:
        """Find the rows of what is cached and note them in the data.

        Raises:
            ValueError: something is missing, or a dataset changed while it was being read.
        """
        data = self.data
        if self.config.cache_text:
            data.texts = TextCache(self.folder, self.backend, self.settings)
            for column in self.system.columns(self.config):
                keys = data.texts.keys(getattr(sample, column) for sample in data.surd)
                data.text_rows[column] = data.texts.rows.find(keys)
                self.require(data.text_rows[column] >= 0, "prompts")
            more = self.system.more_prompts(self.config)
            rows = data.texts.rows.find(data.texts.keys(more))
            self.require(rows >= 0, "prompts", more)
            data.more_texts = dict(zip(more, rows.tolist(), strict=True))
        for cache in self.more:
            cache.open()
        if latents and self.config.cache_latents:
            data.latents = LatentCache(self.folder, self.backend, self.settings)
            samples = np.flatnonzero(data.has_image)
            data.latent_rows = np.full(len(data.surd), -1, np.int64)
            data.latent_rows[samples] = data.latents.rows.find(self._latent_keys(data.latents, samples))
            self.require(~data.has_image | (data.latent_rows >= 0), "images")

    def missing(self, latents: bool = True) -> dict[str, tuple[int, int]]:
        """What the caches lack: {"prompts": (rows, bytes), "images": (rows, bytes)}.

        Encodes and writes nothing; image files never seen before are taken for new ones.
        """
        found = {}
        if self.config.cache_text:
            cache = TextCache(self.folder, self.backend, self.settings)
            count = len(self._missing_prompts(cache))
            found["prompts"] = count, count * cache.rows.row_bytes
            cache.rows.close()
        found |= {cache.what: cache.missing() for cache in self.more}
        if latents and self.config.cache_latents:
            cache = LatentCache(self.folder, self.backend, self.settings)
            samples = np.flatnonzero(self.data.has_image)
            digests, known = known_digests(self.folder, self.data.surd, samples)
            lacking = cache.rows.find(self._keys(cache, digests[known])) < 0
            count = len(np.unique(digests[known][lacking], axis=0)) + int((~known).sum())
            found["images"] = count, count * cache.rows.row_bytes
            cache.rows.close()
        return found

    def prompts(self) -> Iterator[str]:
        """Every prompt that training reads, as often as it occurs."""
        columns = self.system.columns(self.config)
        for sample in self.data.surd:
            for column in columns:
                yield getattr(sample, column)
        yield from self.system.more_prompts(self.config)

    def pictures(self) -> str:
        """Hash of the content of every image, for resume checks."""
        digest = blake2b(digest_size=16)
        if self.config.full_steps:
            samples, workers = np.flatnonzero(self.data.has_image), self.config.dataloader_num_workers
            digest.update(
                image_digests(self.folder, self.data.surd, samples, workers, self.progress).tobytes()
            )
        return digest.hexdigest()

    def _build_text(self, writer: str) -> None:
        cache = TextCache(self.folder, self.backend, self.settings, writer)
        prompts = [prompt for key, prompt in self._missing_prompts(cache) if self.is_mine(key)]
        check_space(self.folder, cache.rows.row_bytes * len(prompts))
        with closing(cache.rows), encoding_advice(self.config):
            cache.build(prompts, self.config.cache_batch_size * 4, self.progress)
        self.backend.release("text")

    def _build_latents(self, writer: str) -> None:
        cache = LatentCache(self.folder, self.backend, self.settings, writer)
        samples, keys = self._missing_images(cache)
        mine = np.fromiter((self.is_mine(key.tobytes()) for key in keys), bool, len(keys))
        check_space(self.folder, cache.rows.row_bytes * int(mine.sum()))
        sizes = self.config.cache_batch_size, self.config.dataloader_num_workers
        with closing(cache.rows), encoding_advice(self.config):
            cache.build(self.data.surd, samples[mine], keys[mine], *sizes, self.progress)
        self.backend.release("vae")

    def is_mine(self, key: bytes) -> bool:
        """By the key, not by a place in a list: processes may see the cache at different moments."""
        number, count = self.process
        return int.from_bytes(key[:4], "little") % count == number

    def _missing_prompts(self, cache: TextCache) -> list[tuple[bytes, str]]:
        """Every prompt that is not cached, once, with its key."""
        lacking = cache.rows.find(cache.keys(self.prompts())) < 0
        missing = itertools.compress(self.prompts(), lacking)
        return list({cache.key(prompt): prompt for prompt in missing}.items())

    def _missing_images(self, cache: LatentCache) -> tuple[np.ndarray, np.ndarray]:
        """Samples whose image is not cached, each content once, and their keys."""
        samples = np.flatnonzero(self.data.has_image)
        keys = self._latent_keys(cache, samples)
        lacking = np.flatnonzero(cache.rows.find(keys) < 0)
        _, first = np.unique(keys[lacking], axis=0, return_index=True)
        chosen = lacking[np.sort(first)]
        return samples[chosen], keys[chosen]

    def _latent_keys(self, cache: LatentCache, samples: np.ndarray) -> np.ndarray:
        workers = self.config.dataloader_num_workers
        return self._keys(cache, image_digests(self.folder, self.data.surd, samples, workers, self.progress))

    @staticmethod
    def _keys(cache: LatentCache, digests: np.ndarray) -> np.ndarray:
        return np.frombuffer(b"".join(cache.key(d.tobytes()) for d in digests), np.uint8).reshape(-1, 16)

    def require(self, present: np.ndarray, what: str, prompts: Sequence[str] = ()) -> None:
        """Refuse to go on if something is not there, with a ``ValueError`` that names the first.

        Args:
            present: bool for every sample, or for each of ``prompts``.
        """
        if not present.all():
            place = int(np.flatnonzero(~present)[0])
            first = repr(prompts[place]) if prompts else f"of {self.data.surd[place].name}"
            raise ValueError(
                f"{self.folder}: the cache lacks {int((~present).sum())} {what}, the first {first}. "
                "Was the data set changed meanwhile? Then run the same command again. Do several machines "
                "train? Then cache_dir must be a folder they share"
            )
