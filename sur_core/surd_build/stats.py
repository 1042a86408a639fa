"""What a data set in the making consists of, in numbers: the paper's Fig. 4 and what the steps have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..families import CHUNK_TOKENS
from .manifest import Manifest
from .nouns import count_nouns
from .samples import COLLECT, RULE, SELECT, BuildSample, current_record, read_samples
from .steps import Progress
from .words import count_words, length_in_words

LONGEST = 300
"""Words; longer prompts count as this long in histograms, as in the paper's Fig. 4."""

NO_PROMPT = "no simple prompt yet"


@dataclass(frozen=True)
class Lengths:
    """Of one kind of prompt, in words.

    Attributes:
        words: int32 [N], one for each prompt, uncut.
    """

    words: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.words.mean()) if len(self.words) else 0.0

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        found = np.percentile(self.words, (25, 50, 75)) if len(self.words) else (0, 0, 0)
        return tuple(float(value) for value in found)

    @property
    def over(self) -> int:
        """How many are longer than :data:`LONGEST`."""
        return int((self.words > LONGEST).sum())

    def histogram(self, width: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(edges [n+1], counts [n]) in bins ``width`` words wide, up to and with :data:`LONGEST`."""
        edges = np.arange(0, LONGEST + 2 * width, width)
        counts, _ = np.histogram(np.minimum(self.words, LONGEST), edges)
        return edges, counts


@dataclass(frozen=True)
class Content:
    """What one kind of prompt is about. Counters say in how many prompts something occurs.

    Attributes:
        prompts, distinct: how many there are, and how many different ones.
        limit: words that fill CLIP's 77 tokens, from this data set's own tokens a word; ``None`` if unknown.
    """

    prompts: int
    distinct: int
    lengths: Lengths
    words: Counter[str]
    pairs: Counter[str]
    nouns: Counter[str]
    limit: float | None = None


@dataclass(frozen=True)
class Scores:
    """Of the samples that CLIP has judged, float32 [N] each.

    Attributes:
        simple: two-way softmax, 0..1; above 0.5 the simple prompt fits better.
        cosines: of image and (simple, complex) prompt; empty if the step did not keep them.
        passed: bool [N], whether the rule lets the sample pass.
        border: the least simple score that passes, ``None`` if the rule has no such border.
    """

    simple: np.ndarray
    cosines: tuple[np.ndarray, np.ndarray]
    passed: np.ndarray
    border: float | None


@dataclass
class Statistics:
    """Everything a report shows. Counts are of samples unless said otherwise.

    Attributes:
        files: image files that were found and are still there; unread: those not yet judged by ``select``.
        samples: all that were judged; kept: those not dropped; ready: kept ones with both prompts.
        unscored: ready ones that CLIP has not judged; overruled: kept by a person against the rule.
        decided, edited: samples with a person's verdict, and with texts changed by one.
        dropped: {step: {kind of reason: count}}.
        origins: {what: {value: count}} over kept samples: source, metadata, license, rating, size.
        how_nouns: how nouns were told, or why there are none.
    """

    files: int = 0
    unread: int = 0
    samples: int = 0
    kept: int = 0
    ready: int = 0
    unscored: int = 0
    overruled: int = 0
    edited: int = 0
    decided: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    origins: dict[str, Counter[str]] = field(default_factory=dict)
    simple: Content | None = None
    complex: Content | None = None
    scores: Scores | None = None
    how_nouns: str = ""


def measure(manifest: Manifest, progress: Progress | None = None) -> Statistics:
    """Statistics of all samples; prompts are those of the kept ones.

    Raises:
        SurdBuildError, OSError: the manifest or a review log is damaged.
    """
    found, kept, scored = Statistics(), [], []
    judged = set()
    for sample in read_samples(manifest):
        judged.add(manifest.record(SELECT, sample.name)["file"])
        _count(found, sample)
        if not sample.dropped:
            kept.append(sample)
            found.overruled += not _passes(manifest, sample)
        if "simple_score" in sample.scores:
            scored.append(sample)
    files = {key for key, record in manifest.records(COLLECT).items() if not record.get("gone")}
    found.files, found.unread = len(files), len(files - judged)
    found.origins = _origins(kept)
    for step, kind in enumerate(("complex", "simple")):
        texts = [text for sample in kept if (text := getattr(sample, kind))]
        content, found.how_nouns = _content(texts, _limit(scored, kind))
        setattr(found, kind, content)
        if progress:
            progress("reading prompts", step + 1, 2)
    found.scores = _scores(manifest, scored)
    return found


def _passes(manifest: Manifest, sample: BuildSample) -> bool:
    """Whether the rule has nothing against the sample with its prompts as they are now."""
    return not current_record(manifest, RULE, sample.id, sample.simple, sample.complex).get("dropped")


def kind_of(reason: str) -> str:
    """The part of "kind: detail" that is counted."""
    return reason.partition(":")[0]


def _count(found: Statistics, sample: BuildSample) -> None:
    found.samples += 1
    if sample.decision is not None:
        found.decided += sample.decision.verdict != ""
        found.edited += bool(sample.decision.simple or sample.decision.complex)
    if sample.dropped:
        step, reason = sample.dropped
        found.dropped.setdefault(step, Counter())[kind_of(reason)] += 1
        return
    found.kept += 1
    if sample.simple and sample.complex:
        found.ready += 1
        found.unscored += "simple_score" not in sample.scores


def _origins(kept: Iterable[BuildSample]) -> dict[str, Counter[str]]:
    counts = {name: Counter() for name in ("source", "metadata", "size", "license", "rating")}
    for sample in kept:
        facts = sample.facts
        counts["source"][sample.name.partition("/")[0]] += 1
        counts["size"][f"{facts.get('width', '?')} x {facts.get('height', '?')}"] += 1
        for name in ("metadata", "license", "rating"):
            value = facts.get(name)
            counts[name]["" if value is None else str(value)] += 1
    return counts


def _content(texts: Sequence[str], limit: float | None) -> tuple[Content, str]:
    lengths = Lengths(np.array([length_in_words(text) for text in texts], dtype=np.int32))
    words, pairs = count_words(texts)
    nouns, how = count_nouns(texts)
    return Content(len(texts), len(set(texts)), lengths, words, pairs, nouns, limit), how


def _limit(scored: Sequence[BuildSample], kind: str) -> float | None:
    """Words that fill CLIP's window: its tokens but two marks, by the mean tokens of a word."""
    known = [sample for sample in scored if f"{kind}_tokens" in sample.scores]
    words = sum(length_in_words(getattr(sample, kind)) for sample in known)
    tokens = sum(sample.scores[f"{kind}_tokens"] - 2 for sample in known)
    return (CHUNK_TOKENS - 2) * words / tokens if tokens > 0 else None


def _scores(manifest: Manifest, scored: Sequence[BuildSample]) -> Scores | None:
    if not scored:
        return None

    def column(name: str) -> np.ndarray:
        return np.array([sample.scores.get(name, np.nan) for sample in scored], dtype=np.float32)

    simple, complex_ = column("simple_cosine"), column("complex_cosine")
    known = ~(np.isnan(simple) | np.isnan(complex_))
    passed = [_passes(manifest, sample) for sample in scored]
    return Scores(
        column("simple_score"), (simple[known], complex_[known]), np.array(passed), _border(manifest)
    )


def _border(manifest: Manifest) -> float | None:
    rule = next(iter(settings_of(manifest, RULE)), {})
    return 0.5 if rule.get("rule") == "paper" else rule.get("threshold")


def settings_of(manifest: Manifest, step: str) -> list[dict]:
    """The settings under which the last records of a step were made, the most used first."""
    used = Counter(record.get("settings", "") for record in manifest.records(step).values())
    about = manifest.records("settings")
    found = (about.get(f"{step} {mark}") for mark, _ in sorted(used.items(), key=lambda p: (-p[1], p[0])))
    return [record["values"] for record in found if record]
