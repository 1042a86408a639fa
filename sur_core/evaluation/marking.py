"""What is said of drawn pictures: a judge's verdicts, CLIP's scores, KID, and how arms compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .evaluation import Accuracy, ClipScore, Evaluation
from .image_text import FeatureCache, ImageTextModel, clip_score_share, cosines
from .judges import Judge, Verdict, ask_many
from .kid import kid_of_arms
from .memory import room_for
from .pictures import read_picture
from .references import References
from .statistics import ALL, compare

_CHUNK = 64
_ANSWERED = 0.5
_KID_RESAMPLES = 2000  # a resample costs the square of the number of prompts and references

Load = Callable[[], np.ndarray]


def add_verdicts(found: Evaluation, judge: Judge, report: Callable, pause: Callable) -> Evaluation:
    """With every picture's verdict, and accuracies. A picture that several arms share is judged once."""
    prompts = {prompt.id: prompt for prompt in found.prompts}
    verdicts: dict[tuple[str, str], Verdict] = {}
    for start in range(0, len(found.pictures), _CHUNK):
        chunk = found.pictures[start : start + _CHUNK]
        new = {(one.path, one.prompt_id): found.file(one) for one in chunk}
        new = {key: path for key, path in new.items() if key not in verdicts}
        pairs = [(read_picture(path), prompts[id]) for (_, id), path in new.items()]
        with room_for(f"judge {judge.name}: what it needs", "its device", "Let it take less at once"):
            marks = ask_many(judge, pairs)
        verdicts |= zip(new, marks, strict=True)
        report("judging", start + len(chunk), len(found.pictures))
        pause()
    judged = [replace(one, verdict=verdicts[one.path, one.prompt_id]) for one in found.pictures]
    note, settings = getattr(judge, "note", ""), getattr(judge, "about", {})
    words = {"judge settings": json.dumps(settings, ensure_ascii=False)} if settings else {}
    found = replace(
        found,
        pictures=tuple(judged),
        about={**found.about, "judge": judge.name, **words},
        remarks=(*found.remarks, *filter(None, [note, _unanswered(verdicts.values())])),
    )
    accuracies = []
    for arm in found.arms:
        for kind in (*found.types, ALL):
            marks = found.marks(arm.name, kind)
            accuracies.append(Accuracy(arm.name, kind, int(marks.sum()), len(marks)))
    return replace(found, accuracies=tuple(accuracies))


def _unanswered(verdicts: Iterable[Verdict]) -> str:
    """How much of a question judge's answers was an answer, in words; "" if no judge tells."""
    given = [answer for verdict in verdicts for answer in verdict.details.get("answers", ())]
    masses = [answer["answered"] for answer in given if isinstance(answer, dict) and "answered" in answer]
    if not masses:
        return ""
    low = sum(mass < _ANSWERED for mass in masses)
    return (
        f"Of the next token that the judge's model would have said, yes and no together had a median "
        f"probability of {np.median(masses):.2f}; in {low} of {len(masses)} answers it was below "
        f"{_ANSWERED:g}, and such answers say little"
    )


def add_clip(
    found: Evaluation,
    clip: ImageTextModel,
    references: References | None,
    report: Callable,
    pause: Callable,
) -> Evaluation:
    """With cosines, CLIP Scores, and KID if there are reference pictures."""
    cache = FeatureCache(Path(found.settings.output_dir) / "features", clip)
    places: dict[Path, int] = {}
    for picture in found.pictures:
        places.setdefault(found.file(picture), len(places))
    loads = [lambda path=path: read_picture(path) for path in places]
    try:
        with room_for(
            f"{clip.folder}: {clip.batch_size} pictures at once", clip.device, "Take CLIP's device 'cpu'"
        ):
            rows = _features(cache, loads, "CLIP features", report, pause)
            others = references and _features(cache, references.loads, "reference features", report, pause)
    finally:
        cache.save()
    images = rows[[places[found.file(picture)] for picture in found.pictures]]
    height, width, _ = loads[0]().shape
    unseen = clip.hidden_part(height, width)
    found = _add_scores(found, images, clip)
    found = replace(found, remarks=(*found.remarks, *([unseen] if unseen else [])))
    return found if references is None else _add_kid(found, images, others, references)


def add_comparisons(found: Evaluation) -> Evaluation:
    """With every arm against the baseline, by type, for each measure there is."""
    measures = {
        "right": [picture.verdict and float(picture.verdict.right) for picture in found.pictures],
        "cosine": [picture.cosine for picture in found.pictures],
    }
    size = len(found.pictures) // len(found.arms)
    prompts = [picture.prompt_id for picture in found.pictures[:size]]
    types = [picture.type for picture in found.pictures[:size]]
    comparisons = []
    for measure, values in measures.items():
        if None in values:
            continue
        for number, arm in enumerate(found.arms[1:], start=1):
            comparisons += [
                compare(
                    arm.name,
                    found.baseline,
                    values[number * size : (number + 1) * size],
                    values[:size],
                    prompts,
                    types,
                    type=kind,
                    measure=measure,
                    resamples=found.settings.resamples,
                    seed=found.settings.bootstrap_seed,
                    confidence=found.settings.confidence,
                )
                for kind in (*found.types, ALL)
            ]
    return replace(found, comparisons=tuple(comparisons))


def _features(cache: FeatureCache, loads: Sequence[Load], what: str, report, pause) -> torch.Tensor:
    """[N, D]; some pictures in memory at a time."""
    parts = []
    for start in range(0, len(loads), _CHUNK):
        parts.append(cache.features([load() for load in loads[start : start + _CHUNK]]))
        report(what, min(start + _CHUNK, len(loads)), len(loads))
        pause()
    return torch.cat(parts)


def _add_kid(
    found: Evaluation, images: torch.Tensor, others: torch.Tensor, references: References
) -> Evaluation:
    """``images``: features of every picture, [arms * N, D]; ``others``: of every reference."""
    size = len(found.pictures) // len(found.arms)
    kids = kid_of_arms(
        {arm.name: part for arm, part in zip(found.arms, images.split(size), strict=True)},
        others,
        [picture.prompt_id for picture in found.pictures[:size]],
        references.prompts,
        resamples=min(found.settings.resamples, _KID_RESAMPLES),
        seed=found.settings.bootstrap_seed,
        confidence=found.settings.confidence,
    )
    return replace(found, kids=tuple(kids), about={**found.about, "references": references.words()})


def _add_scores(found: Evaluation, images: torch.Tensor, clip: ImageTextModel) -> Evaluation:
    """``images``: features of every picture, [arms * N, D]."""
    features = clip.text_features([prompt.prompt for prompt in found.prompts])
    place = {prompt.id: number for number, prompt in enumerate(found.prompts)}
    texts = features[[place[picture.prompt_id] for picture in found.pictures]]
    values = cosines(images, texts).reshape(len(found.arms), -1)
    shares = [None, *(clip_score_share(row, values[0], clip.logit_scale) for row in values[1:])]
    size = values.shape[1]
    pictures = [
        replace(
            picture,
            cosine=float(values[number // size, number % size]),
            clip_share=None if number < size else float(shares[number // size][number % size]),
        )
        for number, picture in enumerate(found.pictures)
    ]
    found = replace(found, pictures=tuple(pictures), about={**found.about, "CLIP": str(clip.folder)})
    scores = []
    for arm in found.arms:
        for kind in (*found.types, ALL):
            chosen = found.of(arm.name, kind)
            mean = float(np.mean([picture.cosine for picture in chosen]))
            share = None
            if arm.name != found.baseline:
                share = float(np.mean([picture.clip_share for picture in chosen]))
            scores.append(ClipScore(arm.name, kind, mean, share, None if share is None else 1 - share))
    return replace(found, clip_scores=tuple(scores))
