"""Loss curves from a run's log.csv, as SVG in the page's own colors."""

from __future__ import annotations

import io
from xml.etree.ElementTree import Element

from sur_core.page_elements import element, svg_for_page

PANELS = (
    ("llm", "Distillation of the language model (Eq. 5)"),
    ("cp", "Complex prompt (Eq. 9)"),
    ("simple", "Diffusion (Eq. 8)"),
)
# Colors that only stand for the page's, which differ in light and dark.
_STAND_INS = {
    "#010203": "var(--ink)",
    "#010204": "var(--faint)",
    "#010205": "var(--first)",
    "#010206": "var(--second)",
}
_INK, _FAINT, _FIRST, _SECOND = _STAND_INS


def loss_curves(rows: list[dict[str, str]]) -> list[Element]:
    """A figure for each loss that the run had. ``rows``: of :func:`sur_core.training_log.read_log`."""
    figures = []
    for column, title in PANELS:
        training, validation = _points(rows, column), _points(rows, f"validation_{column}")
        if not any(value for _, value in training):
            continue
        (first, start), (last, end) = training[0], training[-1]
        change = f"from {start:.4g} at step {first} to {end:.4g} at step {last}"
        base = _points(rows, "validation_simple_without_adapter") if column == "simple" else []
        drawn = _draw(column, training, validation, base, _stage_end(rows))
        label = f"Curve of the loss over the steps: {change}"
        drawn.attrib |= {"role": "img", "aria-label": f"{title}. {label}"}
        caption = f"{title}: {change}. Solid: training; dots: validation."
        if base:
            caption += f" Dashed: validation without the adapter, {base[0][1]:.4g}."
        figures.append(element("figure", drawn, element("figcaption", caption)))
    return figures


def _points(rows: list[dict[str, str]], column: str) -> list[tuple[int, float]]:
    return [
        (int(row["step"]), float(row[column])) for row in rows if row.get(column) not in (None, "", "nan")
    ]


def _stage_end(rows: list[dict[str, str]]) -> int | None:
    """The last step of stage align, if another stage follows."""
    aligning = [int(row["step"]) for row in rows if row["stage"] == "align"]
    return aligning[-1] if aligning and rows[-1]["stage"] != "align" else None


def _draw(name: str, training: list, validation: list, base: list, stage_end: int | None) -> Element:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The salt makes the ids of one figure differ from those of the next, and the same every time.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        axis.plot(*zip(*training, strict=True), linewidth=1.2, color=_FIRST)
        if validation:
            axis.plot(*zip(*validation, strict=True), linestyle="", marker="o", markersize=3.5, color=_SECOND)
        if base:
            axis.axhline(base[0][1], linestyle="--", linewidth=1, color=_INK)
        if stage_end is not None and training[0][0] <= stage_end:
            axis.axvline(stage_end, linewidth=1, color=_FAINT)
            axis.annotate(" full", (stage_end, 1), xycoords=("data", "axes fraction"), va="top", color=_INK)
        values = [value for _, value in (*training, *validation)]
        if min(values) > 0 and max(values) > 20 * min(values):
            axis.set_yscale("log")
        axis.set_xlabel("step", color=_INK)
        axis.tick_params(which="both", colors=_INK)
        axis.grid(color=_FAINT, linewidth=0.5)
        axis.spines[:].set_color(_FAINT)
        for part in (figure.patch, axis.patch):
            part.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return svg_for_page(text.getvalue(), _STAND_INS)
