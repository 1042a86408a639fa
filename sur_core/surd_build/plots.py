"""Pictures of :class:`~.stats.Statistics`: for the page in its own colors, and as PNG."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from ..page_elements import svg_for_page
from ..themes import THEMES
from .stats import LONGEST, Content, Scores, Statistics
from .words import ranked

MOST = 20
"""Bars of a ranking."""


@dataclass(frozen=True)
class Colors:
    """As matplotlib takes them."""

    paper: str
    ink: str
    line: str
    first: str
    second: str


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


_THEME = THEMES["light"]
LIGHT = Colors(*(_hex(getattr(_THEME, name)) for name in ("paper", "ink", "line", "first", "second")))
STAND_INS = Colors("#010201", "#010202", "#010203", "#010204", "#010205")
"""Colors that only stand for the page's, which differ in light and dark."""
_FOR_PAGE = {
    STAND_INS.paper: "var(--paper)",
    STAND_INS.ink: "var(--ink)",
    STAND_INS.line: "var(--faint)",
    STAND_INS.first: "var(--first)",
    STAND_INS.second: "var(--second)",
}


@dataclass(frozen=True)
class Plot:
    """A picture that can be drawn.

    Attributes:
        name: of its file, without extension.
        title: what it shows.
        words: the same in a sentence, for who cannot see it.
        draw: given an axis of matplotlib and colors.
        size: inches.
    """

    name: str
    title: str
    words: str
    draw: Callable[[Any, Colors], None]
    size: tuple[float, float] = (4.8, 2.8)

    def svg(self) -> Element:
        """For the page; text stays text. Raises ImportError: no matplotlib."""
        from matplotlib import rc_context

        # The salt makes the ids of one figure differ from those of the next, and the same every time.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            content = self._drawn("svg", STAND_INS, metadata={"Date": None, "Creator": None})
        drawn = svg_for_page(content.decode("utf-8"), _FOR_PAGE)
        drawn.attrib |= {"role": "img", "aria-label": f"{self.title}. {self.words}"}
        return drawn

    def png(self) -> bytes:
        """Raises ImportError: no matplotlib."""
        return self._drawn("png", LIGHT, dpi=130, facecolor=LIGHT.paper, metadata={"Software": None})

    def _drawn(self, kind: str, colors: Colors, **options) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=self.size, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        self.draw(axis, colors)
        if kind == "png":  # the page has its own headings
            axis.set_title(self.title, fontsize=10, color=colors.ink)
        else:
            figure.patch.set_visible(False)
        axis.patch.set_visible(False)
        axis.tick_params(which="both", colors=colors.ink, labelsize=8)
        axis.spines[:].set_color(colors.line)
        axis.spines[["top", "right"]].set_visible(False)
        content = io.BytesIO()
        with warnings.catch_warnings():  # scripts that the font lacks are boxes in the PNG, whole in the page
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(content, format=kind, **options)
        return content.getvalue()


def plots_of(found: Statistics) -> dict[str, Plot]:
    """{name: plot} of all there is something to show for."""
    plots = []
    for kind, content in (("complex", found.complex), ("simple", found.simple)):
        if content is None or not content.prompts:
            continue
        plots.append(_lengths(kind, content))
        for what, counts in (("nouns", content.nouns), ("words", content.words), ("pairs", content.pairs)):
            if counts:
                plots.append(_ranking(kind, what, counts, content.prompts))
    if found.scores is not None:
        plots.append(_softmax(found.scores))
        if len(found.scores.cosines[0]):
            plots.append(_cosines(found.scores))
    return {plot.name: plot for plot in plots}


RANKED = {"nouns": "nouns", "words": "words", "pairs": "pairs of words"}


def _lengths(kind: str, content: Content) -> Plot:
    lengths = content.lengths
    low, middle, high = lengths.quartiles
    longest = min(LONGEST, int(lengths.words.max()))
    width = 1 if longest <= 60 else 5

    def draw(axis, colors: Colors) -> None:
        edges, counts = lengths.histogram(width)
        bins = int(np.ceil((longest + 1) / width))
        # A bar stands over its number of words, or on its range of them.
        place = {"width": 0.92 * width, "align": "center" if width == 1 else "edge"}
        axis.bar(edges[:bins], counts[:bins], color=colors.first, **place)
        axis.set_ylim(0, 1.28 * counts.max())  # room for the notes
        axis.axvline(middle, color=colors.second, linewidth=1.2)
        _note(axis, colors, middle, 1.0, f"median {middle:g}")
        if content.limit and content.limit <= longest:
            axis.axvline(content.limit, color=colors.ink, linewidth=1, linestyle="--")
            _note(axis, colors, content.limit, 0.9, "77 tokens")
        axis.set_xlabel("words" + (f" ({LONGEST}: and more)" if lengths.over else ""), color=colors.ink)
        axis.set_ylabel("prompts", color=colors.ink)
        axis.yaxis.get_major_locator().set_params(integer=True)

    words = (
        f"Mean {lengths.mean:.1f} words, quartiles {low:g}, {middle:g} and {high:g}; longest "
        f"{int(lengths.words.max())}."
    )
    return Plot(f"length-{kind}", f"Length of {kind} prompts", words, draw)


def _ranking(kind: str, what: str, counts: Counter[str], prompts: int) -> Plot:
    rows = ranked(counts, MOST)

    def draw(axis, colors: Colors) -> None:
        places = range(len(rows))[::-1]
        axis.barh(places, [count / prompts * 100 for _, count in rows], color=colors.first, height=0.72)
        axis.set_yticks(places, [shortened(text) for text, _ in rows])
        for label in axis.get_yticklabels():
            label.set_parse_math(False)  # a prompt's dollar signs are no formula
        axis.set_xlabel(f"% of {prompts:,} {kind} prompts", color=colors.ink)
        axis.margins(y=0.01)

    words = "Most frequent: " + ", ".join(f"{text} ({count:,})" for text, count in rows[:5])
    size = (5.6, 0.9 + 0.2 * len(rows))
    return Plot(f"{what}-{kind}", f"Most frequent {RANKED[what]} of {kind} prompts", words, draw, size)


def _softmax(scores: Scores) -> Plot:
    values, passed, border = scores.simple, scores.passed, scores.border
    share = float(passed.mean())

    def draw(axis, colors: Colors) -> None:
        edges = np.linspace(0, 1, 41)
        kept, left = (np.histogram(values[mask], edges)[0] for mask in (passed, ~passed))
        style = {"width": 0.023, "align": "edge"}
        axis.bar(edges[:-1], kept, color=colors.first, label="passed", **style)
        axis.bar(edges[:-1], left, bottom=kept, color=colors.second, label="left out", **style)
        if border is not None:
            axis.axvline(border, color=colors.ink, linewidth=1, linestyle="--", label="the rule's border")
        axis.set_xlim(0, 1)
        axis.set_xlabel("CLIP's preference for the simple prompt (0.5: both fit equally)", color=colors.ink)
        axis.set_ylabel("samples", color=colors.ink)
        axis.yaxis.get_major_locator().set_params(integer=True)
        _legend(axis, colors)

    words = f"{share:.1%} of {len(values):,} samples pass; median {float(np.median(values)):.3f}."
    return Plot("clip-scores", "CLIP's choice between simple and complex prompt", words, draw)


def _cosines(scores: Scores) -> Plot:
    simple, complex_ = scores.cosines

    def draw(axis, colors: Colors) -> None:
        both = np.concatenate([simple, complex_])
        edges = np.linspace(float(both.min()), float(both.max()) + 1e-6, 51)
        for values, color, label in ((simple, colors.first, "simple"), (complex_, colors.second, "complex")):
            counts, _ = np.histogram(values, edges)
            axis.stairs(counts, edges, color=color, linewidth=1.5, label=label)
        axis.set_xlabel("cosine of image and prompt", color=colors.ink)
        axis.set_ylabel("samples", color=colors.ink)
        axis.yaxis.get_major_locator().set_params(integer=True)
        _legend(axis, colors)

    words = f"Means: simple {float(simple.mean()):.3f}, complex {float(complex_.mean()):.3f}."
    return Plot("clip-cosines", "How well CLIP finds each prompt fits its image", words, draw)


def _note(axis, colors: Colors, x: float, height: float, text: str) -> None:
    """Beside an upright line at ``x``; height as a share of the axis."""
    place = {"xycoords": ("data", "axes fraction"), "xytext": (4, -2), "textcoords": "offset points"}
    axis.annotate(text, (x, height), va="top", fontsize=8, color=colors.ink, **place)


def _legend(axis, colors: Colors) -> None:
    axis.legend(frameon=False, fontsize=8, labelcolor=colors.ink)


def shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
