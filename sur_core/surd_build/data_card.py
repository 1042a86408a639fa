"""README.md of an exported data set: what it is, how it was made, and what is not known about it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .export_rows import ExportRow, used_columns
from .manifest import Manifest
from .samples import CAPTION, CLEAN, COLLECT, REVIEW, RULE, SELECT, read_samples
from .stats import kind_of, settings_of
from .words import ranked

if TYPE_CHECKING:
    from .export import ExportSettings

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The hub's own names of sizes; beyond, "1M<n<10M"."""

HUB_LICENSES = (
    *("apache-2.0", "mit", "openrail", "creativeml-openrail-m", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "unlicense", "odc-by", "odbl"),
)
"""Licences that the hub knows by these names; one of another name is "other"."""

NOT_GIVEN = "not given"
COLUMN_WORDS = {
    "file_name": "the image",
    "text": "the simple prompt",
    "prompt": "the complex prompt",
    "id": "20 hex digits of the SHA-256 of the image file it was made from (and 8 of the caption's hash)",
    "simple_score": "CLIP's two-way softmax for the simple prompt",
    "complex_score": "and for the complex one; they add up to 1",
    "source": "the source it was collected from",
    "license": "as the source gives it",
    "origin": "where the source says the image is from",
    "rating": "as the source gives it",
    "nsfw": "true or false, if the source says so",
}


def data_card(
    manifest: Manifest,
    name: str,
    settings: ExportSettings,
    rows: Sequence[ExportRow],
    others: Mapping[str, int],
) -> str:
    """The whole file. ``others``: {why samples are not in the data set: how many}."""
    parts = [
        _front_matter(name, settings, rows),
        f"# {_inline(name)}\n\n{_about(settings, rows)}",
        f"## Columns\n\n{_columns(settings, rows)}",
        f"## How it was made\n\n{_making(manifest)}",
        f"## What was left out\n\n{_left_out(manifest, rows, others)}",
        f"## Where it comes from\n\n{_origins(rows)}",
        f"## What is not filtered\n\n{_LIMITS}{_unjudged(rows)}",
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """\
- No picture was looked at for nudity, violence, real people, trademarks or other people's works. Ratings,
  where there are any, are what the sources say; a missing one does not mean harmless.
- Licences are copied from the sources and were not verified. Where none is given, none is known.
- Prompts may hold names of living artists and other people, and are otherwise unfiltered.
- Simple prompts written by a model have its errors; a CLIP score says which of two prompts fits better, not
  that either is right."""


def _unjudged(rows: Sequence[ExportRow]) -> str:
    count = sum(row.extras.get("simple_score") is None for row in rows)
    return f"\n- {count:,} of {len(rows):,} samples have prompts that CLIP has not judged." * bool(count)


def _front_matter(name: str, settings: ExportSettings, rows: Sequence[ExportRow]) -> str:
    lines = [f"pretty_name: {_quoted(name)}", *_license(rows)]
    lines += ["task_categories:", "- text-to-image", "size_categories:", f"- {_size(len(rows))}"]
    lines += ["tags:", "- surd", "- sur-adapter", "- stable-diffusion", "configs:"]
    # One kind of files only: the hub reads all configurations of a data set in the same way.
    files = ["metadata.jsonl", "images/**"] if settings.layout == "authors" else ["data/train-*.parquet"]
    lines += ["- config_name: default", "  data_files:", "  - split: train", "    path:"]
    lines += [f"    - {_quoted(path)}" for path in files]
    return "---\n" + "\n".join(lines) + "\n---"


def _license(rows: Sequence[ExportRow]) -> list[str]:
    counts = _counts(rows, "license")
    if set(counts) == {NOT_GIVEN}:
        return ["license: unknown"]
    if len(counts) == 1:
        only = next(iter(counts))
        known = re.sub(r"[\s_]+", "-", only.strip().lower())
        if known in HUB_LICENSES:
            return [f"license: {known}"]
        return ["license: other", f"license_name: {_quoted(only)}"]
    return ["license: other", "license_name: mixed"]


def _size(count: int) -> str:
    return next((name for limit, name in SIZES if count < limit), "1M<n<10M")


def _about(settings: ExportSettings, rows: Sequence[ExportRow]) -> str:
    if settings.resolution:
        how = "the middle square of each" if settings.crop == "center" else "squeezed to a square"
        images = f"{settings.resolution} x {settings.resolution} pixels, {how}"
    else:
        images = "in their own sizes"
    different = len({row.simple for row in rows})
    return (
        f"{len(rows):,} images with a simple and a complex prompt each, in the manner of SURD (Zhong et al., "
        "*SUR-adapter: Enhancing Text-to-Image Pre-trained Diffusion Models with Large Language Models*, "
        f"2023). {different:,} of the simple prompts are different ones.\n\nThe images are RGB, {images}; "
        "metadata of the original files, such as the settings they were drawn with, is not in them."
    )


def _columns(settings: ExportSettings, rows: Sequence[ExportRow]) -> str:
    names = ["file_name", "text", "prompt", "id", *used_columns(rows)]
    lines = [f"- `{name}`: {COLUMN_WORDS[name]}" for name in names]
    if settings.layout != "authors":
        lines.append("- `image`: in the parquet files, the image itself")
    return "\n".join(lines)


def _making(manifest: Manifest) -> str:
    """The settings of each step, and the models by name."""
    rows = [[SELECT, _told((manifest.record("settings", SELECT) or {}).get("values", {}))]]
    for step in (CAPTION, CLEAN, RULE):
        for values in settings_of(manifest, step):
            if identity := values.get("model"):
                name = (manifest.record("model", identity) or {}).get("name", identity)
                values = {**values, "model": name}
            rows.append([step, _told(values)])
    rows = [row for row in rows if row[1]]
    if not rows:
        return "The manifest it was made from says nothing about settings."
    return _table(["step", "settings"], rows)


def _left_out(manifest: Manifest, rows: Sequence[ExportRow], others: Mapping[str, int]) -> str:
    counts, files = Counter(), sum(not r.get("gone") for r in manifest.records(COLLECT).values())
    for sample in read_samples(manifest):
        if sample.dropped:
            counts[(sample.dropped[0], kind_of(sample.dropped[1]))] += 1
    lines = [[step, kind, f"{counts[step, kind]:,}"]
             for step in (SELECT, CAPTION, CLEAN, REVIEW)
             for (at, kind), _ in ranked(counts, len(counts)) if at == step]  # fmt: skip
    for reason, count in sorted(others.items()):
        if not reason.startswith("left out by"):
            lines.append(["export", reason, f"{count:,}"])
    total = sum(others.values())
    words = (
        f"{files:,} image files were found; {len(rows):,} samples are in this data set and {total:,} are not."
    )
    return words + ("\n\n" + _table(["step", "reason", "samples"], lines) if lines else "")


def _origins(rows: Sequence[ExportRow]) -> str:
    tables = []
    for name, title in (("source", "source"), ("license", "licence"), ("rating", "rating"), ("nsfw", "nsfw")):
        counts = _counts(rows, name)
        if name == "nsfw" and set(counts) == {NOT_GIVEN}:
            continue
        shown = [[text, f"{count:,}"] for text, count in ranked(counts, 30)]
        if (rest := len(counts) - len(shown)) > 0:
            shown.append([f"{rest:,} others", f"{len(rows) - sum(c for _, c in ranked(counts, 30)):,}"])
        tables.append(_table([title, "samples"], shown))
    return "\n\n".join(tables)


def _counts(rows: Sequence[ExportRow], name: str) -> Counter[str]:
    """How many rows say what; a flag as JSON writes it."""
    said = {None: NOT_GIVEN, True: "true", False: "false"}
    return Counter(said.get(row.extras[name], row.extras[name]) for row in rows)


def _told(values: Mapping) -> str:
    return "; ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_inline(cell) for cell in line) + " |" for line in lines)


def _inline(text: str) -> str:
    """Text of others as plain text within a line of Markdown."""
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
    return re.sub(r"([\\`*_\[\]<>|#!$~])", r"\\\1", text)


def _quoted(text: str) -> str:
    """As a string of YAML, of which JSON's are a kind."""
    return json.dumps(text.encode("utf-8", "backslashreplace").decode("utf-8"))
