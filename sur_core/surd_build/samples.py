"""What the manifest and the reviewers' decisions say of every sample, put together.

A file's facts come from ``collect``; which files become samples, and their complex prompts, from ``select``;
the simple prompt from the source itself or from ``caption``; scores and the rule's verdict from ``clean``;
and a person's decision stands above the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .manifest import Manifest, SurdBuildError, hash_of
from .reviews import Decision, Said, decide, fingerprints, read_said

COLLECT, SELECT, CAPTION, CLEAN, RULE, REVIEW = "collect", "select", "caption", "clean", "rule", "review"
SOURCE = "source"
PREFER = "prefer"
"""Step of the record "simple": whether the "given" plain prompt (as without it) or the "caption" counts."""


@dataclass(frozen=True, slots=True)
class BuildSample:
    """An image with its prompts, on its way into the data set.

    Attributes:
        id: 20 hex digits of the image file's SHA-256; further captions of one image end in "-2", "-3", ...
        name: "<source>/<path under it>", for people.
        path: the image file.
        facts: its collect record.
        complex: the elaborate prompt as it is now: edited, else cleaned, else as found.
        simple: the plain prompt as it is now: edited, else given by the source, else captioned; "" if none.
        scores: its clean record, {} if there is none of these prompts yet.
        dropped: (step, "kind: detail") where it was left out, else ().
        decision: a person's, if there is one.
    """

    id: str
    name: str
    path: Path
    facts: dict = field(repr=False)
    complex: str
    simple: str
    scores: dict = field(default_factory=dict, repr=False)
    dropped: tuple[str, str] | tuple[()] = ()
    decision: Decision | None = None


def source_folders(manifest: Manifest) -> dict[str, Path]:
    """{source's name: its folder of images}."""
    return {key: Path(record["folder"]) for key, record in manifest.records(SOURCE).items()}


def image_path(folders: dict[str, Path], name: str) -> Path:
    """The file of "<source>/<path under it>". Raises SurdBuildError: no such source."""
    source, _, inside = name.partition("/")
    if source not in folders:
        raise SurdBuildError(f"{name}: the manifest has no source {source!r}; collect it again")
    return folders[source] / inside


def read_samples(manifest: Manifest, said: Mapping[str, Said] | None = None) -> Iterator[BuildSample]:
    """Every sample that ``select`` has judged, in the order of names, dropped ones too.

    Args:
        manifest: of the work folder.
        said: {sample id: what people have said of it} in place of the review logs; {} for samples as they are
            without people.

    Raises:
        SurdBuildError, OSError: the manifest or a review log is damaged.
    """
    folders = source_folders(manifest)
    said = read_said(manifest.folder) if said is None else said
    collected = manifest.records(COLLECT)
    captions_first = (manifest.record(PREFER, "simple") or {}).get("value") == "caption"
    for key, select in sorted(manifest.records(SELECT).items()):
        facts = collected.get(select["file"], {})
        if select.get("gone") or facts.get("gone"):
            continue
        caption = (manifest.record(CAPTION, select["id"]) or {}).get("caption", "")
        plain = (select.get("simple", ""), caption)
        found = BuildSample(
            id=select["id"],
            name=key,
            path=image_path(folders, select["file"]),
            facts=facts,
            complex=select.get("complex", ""),
            simple=next(filter(None, reversed(plain) if captions_first else plain), ""),
        )
        words = said.get(found.id)
        decision = decide(words, fingerprints(found.simple, found.complex)) if words else None
        yield as_decided(manifest, found, decision)


def as_decided(manifest: Manifest, found: BuildSample, decision: Decision | None) -> BuildSample:
    """A sample ``found`` without people's prompts and verdict, as people leave it."""
    texts = {
        "simple": (decision and decision.simple) or found.simple,
        "complex": (decision and decision.complex) or found.complex,
    }
    scores = current_record(manifest, CLEAN, found.id, **texts)
    sample = replace(found, **texts, scores=scores, decision=decision)
    return replace(sample, dropped=left_out(manifest, sample))


def current_record(manifest: Manifest, step: str, id: str, simple: str, complex: str) -> dict:
    """What ``clean`` or the rule say of a sample with these prompts, {} if nothing, or only of others."""
    record = manifest.record(step, id) or {}
    current = record and str(record.get("of", "")).startswith(hash_of(simple, complex))
    return record if current else {}


def left_out(manifest: Manifest, sample: BuildSample) -> tuple[str, str] | tuple[()]:
    """(step, reason) of a sample that was left out, else (), by its prompts and decision as they are now.

    A person cannot keep what is no sample at all, but can overrule the captioner and the rule. What the rule
    has said of other prompts does not count.
    """
    select, decision = manifest.record(SELECT, sample.name), sample.decision
    caption = manifest.record(CAPTION, sample.id) or {}
    if select.get("dropped"):
        return SELECT, select["dropped"]
    if decision is not None and decision.verdict == "drop":
        return REVIEW, f"dropped by a person: {decision.by}"
    if caption.get("dropped") and not (select.get("simple") or (decision and decision.simple)):
        return CAPTION, caption["dropped"]
    rule = current_record(manifest, RULE, sample.id, sample.simple, sample.complex)
    if rule.get("dropped") and not (decision is not None and decision.verdict == "keep"):
        return CLEAN, rule["dropped"]
    return ()
