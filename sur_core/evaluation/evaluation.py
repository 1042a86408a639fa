"""What an evaluation found, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .arms import Arm
from .judges import Verdict
from .kid import KID
from .prompt_sets import EvalPrompt, types_of
from .settings import EvaluationSettings
from .statistics import ALL, Comparison, Interval, share_of_gap


@dataclass(frozen=True)
class Picture:
    """One drawn picture and what was said of it.

    Attributes:
        path: relative to the output folder, with forward slashes.
        verdict: ``None`` if there was no judge.
        cosine: CLIP's, with the prompt's simple text whatever the arm drew; ``None`` without CLIP.
        clip_share: the paper's CLIP Score of this picture against the baseline's of the same prompt and seed;
            ``None`` for the baseline itself and without CLIP.
    """

    arm: str
    prompt_id: str
    type: str
    seed: int
    path: str
    verdict: Verdict | None = None
    cosine: float | None = None
    clip_share: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """How many pictures of an arm are right, for one type of prompts or ``"all"``."""

    arm: str
    type: str
    right: int
    pictures: int

    @property
    def share(self) -> float:
        return self.right / self.pictures


@dataclass(frozen=True)
class ClipScore:
    """CLIP's view of an arm, for one type of prompts or ``"all"``; means over pictures.

    Attributes:
        cosine: between picture and simple prompt.
        share, baseline_share: the paper's CLIP Score of arm and baseline, which add up to 1; ``None`` for the
            baseline itself.
    """

    arm: str
    type: str
    cosine: float
    share: float | None
    baseline_share: float | None


@dataclass(frozen=True)
class Evaluation:
    """All of it. The first arm is the baseline that the others are compared with.

    Attributes:
        pictures: arm by arm, in the order of ``prompts``, then of ``settings.seeds``.
        accuracies, comparisons: for each type and ``"all"``; empty without a judge (``comparisons`` of
            measure ``"cosine"`` need CLIP).
        clip_scores: empty without CLIP.
        kids: empty without CLIP or reference pictures.
        about: model, judge, CLIP, reference and versions, in words.
        remarks: what a reader must know, such as prompts that were cut at 77 tokens.
    """

    settings: EvaluationSettings
    prompts: tuple[EvalPrompt, ...]
    arms: tuple[Arm, ...]
    pictures: tuple[Picture, ...]
    accuracies: tuple[Accuracy, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    clip_scores: tuple[ClipScore, ...] = ()
    kids: tuple[KID, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def baseline(self) -> str:
        return self.arms[0].name

    @property
    def types(self) -> tuple[str, ...]:
        return types_of(self.prompts)

    def of(self, arm: str, type: str = ALL) -> tuple[Picture, ...]:
        """An arm's pictures. KeyError if there are none."""
        found = tuple(p for p in self.pictures if p.arm == arm and type in (ALL, p.type))
        if not found:
            raise KeyError(f"no pictures of arm {arm!r}, type {type!r}")
        return found

    def file(self, picture: Picture) -> Path:
        """Where a picture lies."""
        return Path(self.settings.output_dir) / picture.path

    def marks(self, arm: str, type: str = ALL) -> np.ndarray:
        """1.0 for right, 0.0 for wrong [N]; ValueError if there was no judge."""
        verdicts = [picture.verdict for picture in self.of(arm, type)]
        if None in verdicts:
            raise ValueError("these pictures were not judged")
        return np.array([float(verdict.right) for verdict in verdicts])

    def accuracy(self, arm: str, type: str = ALL) -> Accuracy:
        """KeyError if there is none."""
        return _only(self.accuracies, arm=arm, type=type)

    def comparison(self, arm: str, type: str = ALL, measure: str = "right") -> Comparison:
        """An arm against the baseline. KeyError if there is none."""
        return _only(self.comparisons, arm=arm, type=type, measure=measure)

    def clip_score(self, arm: str, type: str = ALL) -> ClipScore:
        """KeyError if there is none."""
        return _only(self.clip_scores, arm=arm, type=type)

    def kid(self, arm: str) -> KID:
        """KeyError if there is none."""
        return _only(self.kids, arm=arm)

    def gap_closed(self, arm: str, ceiling: str, type: str = ALL) -> tuple[float | None, Interval]:
        """Share of the way from the baseline to the arm ``ceiling`` that ``arm`` goes, and its interval, as
        :func:`sur_core.evaluation.share_of_gap`.
        """
        pictures = self.of(arm, type)
        return share_of_gap(
            self.marks(self.baseline, type),
            self.marks(arm, type),
            self.marks(ceiling, type),
            [picture.prompt_id for picture in pictures],
            [picture.type for picture in pictures],
            resamples=self.settings.resamples,
            seed=self.settings.bootstrap_seed,
            confidence=self.settings.confidence,
        )


def _only(entries, **wanted):
    for entry in entries:
        if all(getattr(entry, name) == value for name, value in wanted.items()):
            return entry
    raise KeyError(f"nothing for {wanted}; was there a judge, a CLIP model, reference pictures?")
