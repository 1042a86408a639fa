"""Everything of a data set read once: every image decoded, every prompt measured, and a report in words."""

from __future__ import annotations

import hashlib
import itertools
import re
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from .families import CHUNK_TOKENS
from .images import ImageError, decode_image
from .surd import Surd
from .surd_rows import Quarantined

SHOWN = 3
"""Names given as examples of each finding."""

TOKENS_PER_PIECE = 1.2
"""Of CLIP's tokens to each word, digit or run of marks of English prompts; rare words take two or three."""

_PIECES = re.compile(r"[^\W\d_]+|\d|[^\w\s]+|_")
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Lengths:
    """(min, median, 95 %, max) of one kind of prompt, and the estimated share of prompts that CLIP cuts."""

    words: tuple[int, ...]
    characters: tuple[int, ...]
    over_limit: float


@dataclass
class SurdReport:
    """What :func:`check_surd` found. ``images`` counts image files, ``samples`` usable pairs."""

    source: str
    samples: int
    has_images: bool
    resolution: int
    list_rows: int
    list_samples: int
    repeated_simple: int
    repeated_pairs: int
    simple: Lengths
    complex: Lengths
    images: int = 0
    small: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, ...]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)

    def to_text(self) -> str:
        broken = Counter(entry.kind for entry in self.quarantined)
        with_image = self.samples if self.has_images else 0
        lines = [
            f"usable samples: {self.samples} ({with_image} with image, {self.samples - with_image} without)",
            f"rows left out: {len(self.quarantined)} (broken images {broken['broken image']}, missing images "
            f"{broken['missing image']}, empty prompts {broken['empty prompt']}, duplicate file names "
            f"{broken['duplicate file name']})",
            f"lists of captions: {self.list_rows} rows became {self.list_samples} samples",
            f"duplicate prompts: {self.repeated_simple} simple prompts repeat an earlier one, "
            f"{self.repeated_pairs} pairs do",
        ]
        if self.has_images:
            copies = sum(len(names) - 1 for names in self.duplicates)
            lines += [
                f"usable images: {self.images}",
                f"exact duplicate images: {copies}"
                + _examples([" = ".join(names[:SHOWN]) for names in self.duplicates]),
                f"images smaller than {self.resolution} px (they would be enlarged): {len(self.small)}"
                + _examples(self.small),
            ]
        lines += _length_lines("simple", self.simple) + _length_lines("complex", self.complex)
        for kind, count in broken.most_common():
            entries = [entry for entry in self.quarantined if entry.kind == kind]
            lines.append(f"left out, {kind}: {count}")
            lines += [f"  {entry.name} ({entry.place}): {entry.reason}" for entry in entries[:SHOWN]]
            lines += ["  ..."] if count > SHOWN else []
        return "\n".join(lines)


def check_surd(
    surd: Surd, resolution: int, workers: int, progress: Callable[[Iterable[int], int], Iterable[int]]
) -> SurdReport:
    """Decode every image once and measure every prompt.

    Args:
        surd: read without a quarantine list, so that what has been mended is found to be sound.
        resolution: R, images with a shorter side are reported.
        workers: threads that read and decode.
        progress: given the samples to read and their number, yields them on, such as a progress bar.

    Returns:
        The report; its ``quarantined`` holds the rows that could not be read and the broken images, and all
        counts are of the samples that remain.
    """
    first_of_row = [i for i in range(len(surd)) if i == 0 or surd.place(i) != surd.place(i - 1)]
    usable = np.ones(len(surd), dtype=bool)
    digests, read, small, broken = bytearray(), array("q"), [], []
    if surd.has_images:
        checks = _in_threads(lambda i: _look_at(surd, i), first_of_row, workers)
        for index in progress(first_of_row, len(first_of_row)):
            reason, digest, short_side = next(checks)
            if reason:
                broken.append(Quarantined(surd.row_name(index), surd.place(index), reason))
                usable[_row_slice(surd, index)] = False
                continue
            digests += digest
            read.append(index)
            if short_side < resolution:
                small.append(surd.row_name(index))
    kept = np.flatnonzero(usable).tolist()
    return SurdReport(
        source=str(surd.source),
        samples=len(kept),
        has_images=surd.has_images,
        resolution=resolution,
        images=len(read),
        small=small,
        duplicates=_groups(surd, bytes(digests), read),
        quarantined=surd.quarantined + broken,
        **_count_lists(surd, kept),
        **_count_repeats(surd, kept),
        simple=_lengths(surd[i].simple for i in kept),
        complex=_lengths(surd[i].complex for i in kept),
    )


def _look_at(surd: Surd, index: int) -> tuple[str, bytes, int]:
    """(why the image is unusable or "", hash of its file, its short side in pixels)."""
    try:
        data = surd.image_bytes(index)
        image = decode_image(data, surd.row_name(index))
    except (ImageError, OSError) as error:
        return f"broken image: {error}", b"", 0
    return "", hashlib.sha256(data).digest()[:_DIGEST_BYTES], min(image.size)


def _in_threads(work: Callable, items: Iterable, workers: int) -> Iterator:
    """``map`` in threads, in order. Few items are under way: stopping is quick, memory bounded."""
    pool, pending = ThreadPoolExecutor(max(1, workers)), deque()
    items = iter(items)
    try:
        for item in itertools.islice(items, 4 * max(1, workers)):
            pending.append(pool.submit(work, item))
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in itertools.islice(items, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _row_slice(surd: Surd, first: int) -> slice:
    stop = first + 1
    while stop < len(surd) and surd.place(stop) == surd.place(first):
        stop += 1
    return slice(first, stop)


def _groups(surd: Surd, digests: bytes, samples: array) -> list[tuple[str, ...]]:
    """Names of images whose files are the same, in order of their first."""
    seen, groups = np.frombuffer(digests, dtype=f"V{_DIGEST_BYTES}"), {}
    _, inverse, counts = np.unique(seen, return_inverse=True, return_counts=True)
    for position in np.flatnonzero(counts[inverse] > 1).tolist():
        groups.setdefault(int(inverse[position]), []).append(surd.row_name(samples[position]))
    return [tuple(names) for names in groups.values()]


def _count_lists(surd: Surd, kept: list[int]) -> dict[str, int]:
    further = [i for i in kept if surd.caption_number(i)]
    rows = len({surd.place(i) for i in further})
    return {"list_rows": rows, "list_samples": rows + len(further)}


def _count_repeats(surd: Surd, kept: list[int]) -> dict[str, int]:
    simple, pairs = bytearray(), bytearray()
    for index in kept:
        sample = surd[index]
        first = hashlib.sha256(sample.simple.encode()).digest()
        simple += first[:_DIGEST_BYTES]
        pairs += hashlib.sha256(first + sample.complex.encode()).digest()[:_DIGEST_BYTES]
    distinct = [len(np.unique(np.frombuffer(bytes(d), f"V{_DIGEST_BYTES}"))) for d in (simple, pairs)]
    return {"repeated_simple": len(kept) - distinct[0], "repeated_pairs": len(kept) - distinct[1]}


def _lengths(texts: Iterable[str]) -> Lengths:
    words, characters, cut = array("q"), array("q"), 0
    for text in texts:
        words.append(len(text.split()))
        characters.append(len(text))
        # Two of the chunk's tokens are its start and end.
        cut += len(_PIECES.findall(text)) * TOKENS_PER_PIECE > CHUNK_TOKENS - 2
    if not words:
        return Lengths((0, 0, 0, 0), (0, 0, 0, 0), 0.0)
    spread = (
        tuple(int(q) for q in np.percentile(counts, (0, 50, 95, 100))) for counts in (words, characters)
    )
    return Lengths(*spread, cut / len(words))


def _length_lines(kind: str, lengths: Lengths) -> list[str]:
    def spread(counts: tuple[int, ...]) -> str:
        return "min {}, median {}, 95 % {}, max {}".format(*counts)

    return [
        f"{kind} prompts: words {spread(lengths.words)}; characters {spread(lengths.characters)}; about "
        f"{lengths.over_limit:.0%} over {CHUNK_TOKENS} tokens (guessed: {TOKENS_PER_PIECE} tokens for each "
        "word, digit and mark)"
    ]


def _examples(names: list[str]) -> str:
    return f" ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})" if names else ""
