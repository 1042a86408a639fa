"""Which of the collected pictures become samples, and with which prompts: a function of their records."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ..surd_rows import RowError, check_text
from .cleaning import clean_prompt
from .duplicates import near_duplicates
from .manifest import Manifest, hash_of
from .samples import COLLECT, SELECT

MAX_DISTANCE = 32
"""Half of a perceptual hash's bits: as far apart as unrelated pictures are."""


@dataclass(frozen=True)
class SelectSettings:
    """What makes a picture a sample.

    Attributes:
        min_side: shorter side in pixels. 256: the authors' pictures are 450 wide, and below half of
            Stable Diffusion's 512 a picture is mostly enlargement.
        near_distance: bits of 64 by which perceptual hashes may differ to count as one picture; None: look
            for no near duplicates. 4 finds copies saved anew, resized or lightly retouched; the hash sees
            brightness only, so that the same scene in other colors may also be found.
        drop_ratings: ratings whose pictures are left out, in any case of letters.
        drop_nsfw: leave out what its source marks as not safe for work.
        clean_prompts: take the tool's syntax out of the complex prompt, since CLIP never saw it when the
            picture was drawn; the authors left it in.
    """

    min_side: int = 256
    near_distance: int | None = 4
    drop_ratings: tuple[str, ...] = ()
    drop_nsfw: bool = False
    clean_prompts: bool = True

    def __post_init__(self) -> None:
        if self.min_side < 1:
            raise ValueError(f"min_side must be a positive number of pixels, found {self.min_side}")
        if self.near_distance is not None and not 0 <= self.near_distance <= MAX_DISTANCE:
            raise ValueError(
                f"near_distance must be in 0..{MAX_DISTANCE} or None, found {self.near_distance}"
            )


def select(manifest: Manifest, settings: SelectSettings) -> int:
    """Bring the manifest's select records up to date; returns how many were new. Raises OSError."""
    records = choose(manifest.records(COLLECT), settings)
    chosen = {record["key"] for record in records}
    gone = [
        {"step": SELECT, "key": key, "file": record["file"], "id": record["id"], "gone": True}
        for key, record in manifest.records(SELECT).items()
        if key not in chosen
    ]
    about = {"step": "settings", "key": SELECT, "values": asdict(settings)}
    about["values"]["drop_ratings"] = sorted(settings.drop_ratings)
    return manifest.add([about, *records, *gone])


def choose(collected: Mapping[str, dict], settings: SelectSettings) -> list[dict]:
    """A select record for every sample of every collected file that is still there, sorted by file."""
    live = {key: record for key, record in sorted(collected.items()) if not record.get("gone")}
    cleaned: dict[tuple[str, str], str] = {}
    samples = {key: list(_samples(key, record, settings, cleaned)) for key, record in live.items()}
    usable = {key for key, found in samples.items() if not all("dropped" in sample for sample in found)}
    dropped = _own_reasons(live, settings)
    dropped |= _exact_duplicates({key: live[key] for key in live.keys() - dropped.keys()}, usable)
    if settings.near_distance is not None:
        rest = {key: record for key, record in live.items() if key in usable and key not in dropped}
        dropped |= _near_duplicates(rest, settings.near_distance)
    return [
        sample | {"dropped": dropped[key]} if key in dropped else sample
        for key, found in samples.items()
        for sample in found
    ]


def _own_reasons(live: Mapping[str, dict], settings: SelectSettings) -> dict[str, str]:
    """What a file says of itself; a rating holds for every copy of the file."""
    unwanted = {rating.strip().casefold() for rating in settings.drop_ratings} - {""}
    reasons, rated = {}, {}
    for key, record in live.items():
        short = min(record["width"], record["height"])
        if record.get("problem"):
            reasons[key] = record["problem"]
        elif short < settings.min_side:
            size = f"{record['width']} x {record['height']}"
            reasons[key] = f"too small: {size}, the shorter side should be {settings.min_side} or more"
        elif record["rating"].strip().casefold() in unwanted:
            rated[record["sha256"]] = f"rating: {record['rating']}"
        elif settings.drop_nsfw and record["nsfw"]:
            rated[record["sha256"]] = f"nsfw: so marked ({record['rating'] or record['metadata'] or 'yes'})"
    for key, record in live.items():
        if key not in reasons and record["sha256"] in rated:
            reasons[key] = rated[record["sha256"]]
    return reasons


def _exact_duplicates(live: Mapping[str, dict], usable: set[str]) -> dict[str, str]:
    """The copy that knows most stays: one with a prompt, with a plain prompt; then the first by name."""
    copies = defaultdict(list)
    for key, record in live.items():
        copies[record["sha256"]].append(key)
    reasons = {}
    for keys in copies.values():
        keys.sort(key=lambda key: (key not in usable, not live[key].get("simple"), key))
        for key in keys[1:]:
            reasons[key] = f"exact duplicate: the same file as {keys[0]}"
    return reasons


def _near_duplicates(live: Mapping[str, dict], distance: int) -> dict[str, str]:
    """Of pictures that look alike the largest stays, of equally large ones the first by name."""
    keys = [key for key, record in live.items() if record["phash"]]
    keys.sort(key=lambda key: (-live[key]["width"] * live[key]["height"], key))
    reasons = {}
    for key, found in zip(keys, near_duplicates([live[key]["phash"] for key in keys], distance), strict=True):
        if found is not None:
            kept, bits = keys[found[0]], found[1]
            same = _prompts(live[key]) == _prompts(live[kept])
            words = "the same prompt" if same else "another prompt"
            reasons[key] = f"near duplicate: of {kept}, distance {bits}, {words}"
    return reasons


def _prompts(record: Mapping) -> list[str]:
    """The complex prompts, one for each plain prompt where there are several of both."""
    return record.get("prompts") or [record["prompt"]]


def _samples(key: str, record: Mapping, settings: SelectSettings, cleaned: dict) -> Iterator[dict]:
    complexes, simples = _prompts(record), record.get("simple") or [""]
    complexes = complexes if len(complexes) > 1 else complexes * len(simples)
    simples = simples if len(simples) > 1 else simples * len(complexes)
    identity = (record["sha256"] or hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())[:20]
    pairs = list(zip(simples, complexes, strict=True))
    several = len(set(pairs)) > 1
    for number, (simple, complex_) in enumerate(pairs, start=1):
        # Not by its number: with the rows in another order, a decision would be about another caption.
        tail = f"-{hash_of(simple, complex_)[:8]}" if several else ""
        mark = f"#{number}" if number > 1 else ""
        sample = {"step": SELECT, "key": key + mark, "file": key, "id": identity + tail}
        if (simple, complex_) in pairs[: number - 1]:
            yield sample | {"complex": "", "dropped": "repeated caption: the file has it already"}
            continue
        try:
            text = check_text(complex_, "the prompt")
        except RowError as error:
            yield sample | {"complex": "", "dropped": str(error)}
            continue
        if settings.clean_prompts and text:
            known = text, record["metadata"]
            text = cleaned[known] = cleaned.get(known) or clean_prompt(*known)
        sample["complex"] = text
        if simple:
            sample["simple"] = simple
        if not text:
            sample["dropped"] = f"no prompt: {_why_none(record, complex_)}"
        yield sample


def _why_none(record: Mapping, found: str) -> str:
    if found.strip():
        return "nothing but network tags and the like"
    return next(iter(record.get("remarks", ())), "neither in the file nor beside it")
