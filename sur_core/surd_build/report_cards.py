"""Sample cards of the report: a few kept ones, and of each reason a few that were left out."""

from __future__ import annotations

import base64
import io
from xml.etree.ElementTree import Element

from ..images import ImageError, decode_image
from ..page_elements import element, readable
from .manifest import Manifest
from .samples import BuildSample, read_samples
from .stats import kind_of

KEPT, PER_REASON, DROPPED = 9, 2, 12
"""Cards: of kept samples, of each reason, of all that are left out."""

THUMBNAIL = 320
MOST_BYTES = 200_000_000
"""Larger files are not opened for a thumbnail."""


def cards(manifest: Manifest) -> list[Element]:
    """Which samples is a rule that looks at no picture and no score: those whose ids come first. Ids are
    hashes, so that is as good as drawing lots.
    """
    kept, dropped = _chosen(manifest)
    words = (
        f"Shown are the {len(kept)} kept samples whose ids come first, and up to {PER_REASON} of each reason."
    )
    parts = [
        element("p", words + " Images that are marked as not safe for work are not shown.", class_="note")
    ]
    for title, samples in (("Kept", kept), ("Left out", dropped)):
        if samples:
            parts += [element("h3", title), element("div", [_card(s) for s in samples], class_="cards")]
    return parts


def _chosen(manifest: Manifest) -> tuple[list[BuildSample], list[BuildSample]]:
    kept, dropped = [], {}
    for sample in sorted(read_samples(manifest), key=lambda sample: (sample.id, sample.name)):
        if not sample.dropped:
            if len(kept) < KEPT and sample.simple:
                kept.append(sample)
            continue
        step, reason = sample.dropped
        of_reason = dropped.setdefault((step, kind_of(reason)), [])
        if len(of_reason) < PER_REASON:
            of_reason.append(sample)
    rounds = [
        group[number] for number in range(PER_REASON) for group in dropped.values() if number < len(group)
    ]
    return kept, rounds[:DROPPED]


def _card(sample: BuildSample) -> Element:
    parts = [element("p", element("bdi", readable(sample.name)), class_="file")]
    for kind in ("simple", "complex"):
        if text := getattr(sample, kind):
            label = element("b", f"{kind} prompt")
            told = element("span", readable(text), dir="auto")
            parts += [
                label,
                element("p", told, class_="text", tabindex=0, role="group", aria_label=f"{kind} prompt"),
            ]
    if "simple_score" in sample.scores:
        score = sample.scores["simple_score"]
        parts.append(element("p", element("b", "CLIP prefers the simple prompt"), f"{score:.3f}"))
    if sample.dropped:
        step, reason = sample.dropped
        parts.append(element("p", f"{step}: {readable(reason)}", class_="why"))
    return element(
        "figure",
        element("div", _picture(sample), class_="picture"),
        element("figcaption", parts, class_="words"),
        class_="card",
    )


def _picture(sample: BuildSample) -> Element | str:
    if sample.facts.get("nsfw"):
        return "marked as not safe for work"
    try:
        if sample.path.stat().st_size > MOST_BYTES:
            return "too large to show"
        image = decode_image(sample.path.read_bytes(), sample.name)
    except (OSError, ImageError):
        return "the file cannot be shown"
    return element("img", src=_thumbnail(image), alt=f"image of sample {sample.id}")


def _thumbnail(image) -> str:
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
