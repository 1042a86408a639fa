"""report.html: what a data set in the making consists of, in one file that needs nothing else."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from ..atomic import atomic_write
from ..page_elements import element, page, readable, table
from .manifest import Manifest
from .plots import MOST, RANKED, Plot, plots_of
from .report_cards import cards
from .report_style import STYLE
from .samples import CAPTION, CLEAN, REVIEW, SELECT
from .stats import Content, Statistics
from .steps import Progress
from .words import ranked

log = logging.getLogger(__name__)

REPORT_NAME, FIGURES = "report.html", "figures"
STEP_WORDS = {
    SELECT: "unusable, too small, duplicate or unwanted",
    CAPTION: "no caption could be made",
    REVIEW: "dropped by a person",
    CLEAN: "the rule about CLIP's scores",
}
_UNKNOWN = "not given"
_NO_PICTURES = "matplotlib is not installed, so there are no curves and no PNG files (pip install matplotlib)"


def write_report(manifest: Manifest, found: Statistics, progress: Progress | None = None) -> list[Path]:
    """Write ``report.html`` and ``figures/*.png`` into the work folder, each atomic. The same manifest and
    image files give the same bytes.

    Returns:
        what was written, the page first.

    Raises:
        SurdBuildError, OSError: a review log is damaged, or something cannot be written.
    """
    plots = plots_of(found) if _can_draw() else {}
    written = [_write(manifest.folder / REPORT_NAME, _page(manifest, found, plots).encode("utf-8"))]
    for done, plot in enumerate(plots.values(), start=1):
        written.append(_write(manifest.folder / FIGURES / f"{plot.name}.png", plot.png()))
        if progress:
            progress("drawing", done, len(plots))
    for path in sorted((manifest.folder / FIGURES).glob("*.png")):
        if path.stem in _ALL_NAMES - plots.keys():  # of a state of the data set that is no more
            path.unlink()
    return written


_ALL_NAMES = {f"{what}-{kind}" for what in ("length", *RANKED) for kind in ("complex", "simple")}
_ALL_NAMES |= {"clip-scores", "clip-cosines"}


def _can_draw() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        log.warning(_NO_PICTURES)
        return False
    return True


def _write(path: Path, content: bytes) -> Path:
    with atomic_write(path) as file:
        file.write(content)
    return path


def _page(manifest: Manifest, found: Statistics, plots: dict[str, Plot]) -> str:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", "SURD in the making"),
        element("style", STYLE),
    )
    body = element(
        "body",
        element("main", _top(found), _steps(found), _contents(found, plots), _clip(found, plots)),
        _origins(found),
        element("section", element("h2", "Samples"), cards(manifest)),
        element("section", element("h2", "How this was counted"), _notes(found, plots)),
    )
    return page(head, body)


def _top(found: Statistics) -> list[Element]:
    share = f"{found.ready / found.files:.0%}" if found.files else "0%"
    lines = [
        f"{found.files:,} image files were found; {found.samples:,} samples were made of them.",
        f"{found.samples - found.kept:,} samples are left out, each with its reason (below).",
    ]
    if found.unread:
        lines.append(f"{found.unread:,} files are not judged yet: run collect again.")
    if waiting := found.kept - found.ready:
        lines.append(f"{waiting:,} have no simple prompt yet and would not be exported: run caption.")
    if found.unscored:
        lines.append(
            f"{found.unscored:,} have both prompts but no CLIP score: run clean, unless you mean to."
        )
    if found.overruled:
        lines.append(f"{found.overruled:,} are kept by a person although CLIP's rule would leave them out.")
    if found.decided or found.edited:
        lines.append(f"People have decided about {found.decided:,} samples and edited {found.edited:,}.")
    return [
        element("h1", "SURD in the making"),
        element(
            "p",
            f"{found.ready:,} samples are ready for training, {share} of the images found.",
            class_="lead",
        ),
        element("ul", [element("li", line) for line in lines]),
    ]


def _steps(found: Statistics) -> Element:
    rows, left = [], found.samples
    for step in (SELECT, CAPTION, CLEAN, REVIEW):
        counts = found.dropped.get(step, Counter())
        gone = sum(counts.values())
        left -= gone
        named = [f"{step} ", element("small", STEP_WORDS[step])]
        rows.append([named, _bar(gone, found.samples), _bar(left, found.samples)])
    head = ["step", "left out", "kept after it"]
    reasons = [
        [readable(kind), step, _bar(count, found.samples)]
        for step in (SELECT, CAPTION, CLEAN, REVIEW)
        for kind, count in ranked(found.dropped.get(step, Counter()), 1000)
    ]
    return element(
        "section",
        element("h2", "What each step kept"),
        table(head, rows, "Samples by step"),
        table(["reason", "step", "samples"], reasons, "Left out, by reason") if reasons else None,
    )


def _contents(found: Statistics, plots: dict[str, Plot]) -> Element:
    parts = [element("h2", "Prompts"), _length_table(found)]
    parts.append(element("div", [_figure(plots, f"length-{kind}") for kind in _KINDS], class_="pair"))
    for what, name in RANKED.items():
        rankings = [_ranking(what, kind, getattr(found, kind)) for kind in _KINDS]
        parts += [element("h3", f"Most frequent {name}"), element("div", rankings, class_="pair ranks")]
    return element("section", parts)


_KINDS = ("complex", "simple")


def _length_table(found: Statistics) -> Element:
    rows = []
    for kind in _KINDS:
        content = getattr(found, kind)
        low, middle, high = content.lengths.quartiles
        longest = int(content.lengths.words.max()) if content.prompts else 0
        numbers = [f"{value:g}" for value in (low, middle, high, longest)]
        rows.append(
            [kind, f"{content.prompts:,}", f"{content.distinct:,}", f"{content.lengths.mean:.1f}", *numbers]
        )
    head = ["prompts", "number", "different", "mean", "lower quartile", "median", "upper quartile", "longest"]
    return table(head, rows, "Length in words, of the kept samples")


def _ranking(what: str, kind: str, content: Content) -> Element | None:
    counts = getattr(content, what)
    shown = ranked(counts, MOST)
    rows = [
        [element("bdi", readable(text)), _bar(count, content.prompts, shown[0][1])] for text, count in shown
    ]
    if not rows:
        return element("p", f"None of {kind} prompts.", class_="note")
    return table([RANKED[what], "prompts that have it"], rows, f"Of {content.prompts:,} {kind} prompts")


def _clip(found: Statistics, plots: dict[str, Plot]) -> Element | None:
    if found.scores is None:
        return None
    figures = [_figure(plots, name) for name in ("clip-scores", "clip-cosines")]
    words = (
        "For each image CLIP chooses between its simple and its complex prompt. The preference is the "
        "softmax of the two; the paper keeps a sample if it is not below 0.5."
    )
    return element(
        "section", element("h2", "CLIP"), element("p", words), element("div", figures, class_="pair")
    )


def _origins(found: Statistics) -> Element:
    titles = {
        "source": "Sources",
        "metadata": "Where the complex prompt stood",
        "size": "Image sizes",
        "license": "Licences",
        "rating": "Ratings",
    }
    tables = []
    for name, title in titles.items():
        counts = found.origins[name]
        rows = [
            [element("bdi", readable(value or _UNKNOWN)), _bar(count, found.kept)]
            for value, count in ranked(counts, 12)
        ]
        if (rest := len(counts) - 12) > 0:
            others = sum(count for _, count in ranked(counts, len(counts))[12:])
            rows.append([f"{rest:,} others", _bar(others, found.kept)])
        if rows:
            tables.append(table(["which", "kept samples"], rows, title))
    return element("section", element("h2", "Where it comes from"), element("div", tables, class_="pair"))


def _notes(found: Statistics, plots: dict[str, Plot]) -> Element:
    lines = [
        "Length: words are whatever stands between white space. Prompts and origins are of kept samples.",
        "A word counts once a prompt, however often it stands there. Function words (the, of, with ...), "
        "numbers and <...> tags are left out; pairs stand next to each other without a mark between them.",
        f"Nouns: {found.how_nouns}.",
        f"Images carry no mark of what they show: ratings are what the files' own data say, and "
        f"'{_UNKNOWN}' does not mean harmless.",
    ]
    if found.complex.limit or found.simple.limit:
        lines.append(
            "77 tokens: the length in words that fills CLIP's text window in the mean of this data set."
        )
    if not plots and not _can_draw():
        lines.append(_NO_PICTURES[0].upper() + _NO_PICTURES[1:] + ".")
    return element("ul", [element("li", line) for line in lines])


def _figure(plots: dict[str, Plot], name: str) -> Element | None:
    if name not in plots:
        return None
    plot = plots[name]
    caption = element("figcaption", element("strong", plot.title), f". {plot.words}")
    return element("figure", plot.svg(), caption)


def _bar(count: int, of: int, most: int = 0) -> Element:
    """A count and its share ``of`` all; the bar is full at ``most``, if given, else at ``of``."""
    share, long = (count / whole if whole else 0.0 for whole in (of, most or of))
    bar = element("span", element("span", style=f"width:{100 * long:.1f}%"), class_="bar", aria_hidden="true")
    return element("span", bar, f"{count:,} ", element("small", f"{share:.1%}"), class_="count")
