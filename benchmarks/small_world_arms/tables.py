"""Figures as Markdown tables."""

from __future__ import annotations

from sur_core.evaluation.tables import ABSENT, markdown, p_words

from .groups import BASE, COMPLEX, SUR
from .scores import MEAN


def kinds(figures: dict) -> list[str]:
    """The types, and ``"mean"``."""
    return list(figures["rows"][BASE]["percent"])


def paper_table(sets: dict[str, dict]) -> str:
    """The layout of the paper's Table 2: a test set a row, base and SUR side by side for each type."""
    names = kinds(next(iter(sets.values())))
    head = ["Test", "CLIP Score base", "SUR"]
    for name in names:
        head += [f"{name} (%) base", "SUR"]
    rows = [head]
    for words, figures in sets.items():
        base, ours = figures["rows"][BASE], figures["rows"][SUR]
        row = [words, *_clip_pair(ours)]
        for name in names:
            row += [percent(base["percent"][name]), percent(ours["percent"][name])]
        rows.append(row)
    return markdown(rows)


def gain_table(figures: dict) -> str:
    """By type: both ends of the gap, SUR, its gain and its share of the gap, with intervals."""
    rows = [["", BASE, COMPLEX, SUR, "gain in points", "share of the gap closed (%)"]]
    found = figures["rows"]
    for name in kinds(figures):
        ends = [percent(found[arm]["percent"][name]) for arm in (BASE, COMPLEX, SUR)]
        rows.append(
            [name, *ends, points(found[SUR]["gain_points"][name]), share(found[SUR]["gap_closed"][name])]
        )
    return markdown(rows)


def property_table(found: dict) -> str:
    """Share of pictures that have each property of the truth, by arm."""
    first = next(iter(found.values()))
    columns = [(kind, what) for kind, each in first.items() for what in each]
    rows = [["", *(f"{kind}: {what} (%)" for kind, what in columns)]]
    for arm, each in found.items():
        rows.append([arm, *(f"{each[kind][what]:.1f}" for kind, what in columns)])
    return markdown(rows)


def arm_table(figures: dict, what: str) -> str:
    """All arms of a group with everything that is known of them."""
    names = kinds(figures)
    default = figures.get("default")
    head = [what, *(f"{name} (%)" for name in names), "gain, mean (points)", "gap closed, mean (%)"]
    head += ["CLIP Score", "KID minus base"]
    head += [f"against '{default}', mean (points)", "steps, align + full"] if default else []
    rows = [head]
    for arm, row in figures["rows"].items():
        cells = [arm, *(percent(row["percent"][name]) for name in names)]
        cells += [points(row.get("gain_points", {}).get(MEAN)), share(row.get("gap_closed", {}).get(MEAN))]
        cells += [_clip_pair(row)[1], _kid_difference(row)]
        if default:
            cells += [points(row.get("against_default", {}).get(MEAN)), _steps(row)]
        rows.append(cells)
    return markdown(rows)


def quality_table(figures: dict) -> str:
    """The layout of the paper's Table 3, with the measures that a small world allows."""
    rows = [["Arm", "CLIP Score base", "arm", "cosine", "t-test p of the cosine", "KID", "KID minus base"]]
    for arm, row in figures["rows"].items():
        tests = ", ".join(p_words(p) for p in row.get("cosine_t_test_p", [])) or ABSENT
        rows.append(
            [
                arm,
                *_clip_pair(row),
                spread(row["cosine"], ".4f"),
                tests,
                spread(row["kid"], ".5f"),
                _kid_difference(row),
            ]
        )
    return markdown(rows)


def curve_table(curves: dict[str, dict], marks: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)) -> str:
    """Losses at some steps, by start of phi_1: what the paper's Fig. 6 draws."""
    words = {"loss": "Eq. 10", "llm": "Eq. 5", "cp": "Eq. 9", "simple": "Eq. 8"}
    rows: list[list[str]] = []
    for column, equation in words.items():
        steps = [step for step, _ in next(iter(curves.values()))[column]]
        if not steps:
            continue
        chosen = sorted({steps[round(mark * (len(steps) - 1))] for mark in marks})
        rows.append([f"**{equation} at step**", *(f"**{step:,}**" for step in chosen)])
        for arm, each in curves.items():
            values = dict(map(tuple, each[column]))
            rows.append([arm, *(f"{values[step]:.4g}" for step in chosen)])
    width = max(map(len, rows))
    return markdown([["phi_1", *[""] * (width - 1)], *(row + [""] * (width - len(row)) for row in rows)])


# --- cells --------------------------------------------------------------------------------------------------


def percent(found: dict) -> str:
    return spread(found, ".1f")


def spread(found: dict, places: str) -> str:
    """``"63.2 (61.0 to 65.1)"``: mean, smallest and largest over the training seeds."""
    each = found["per_seed"]
    words = f"{found['mean']:{places}}"
    return words if len(each) == 1 else f"{words} ({min(each):{places}} to {max(each):{places}})"


def points(gain: dict | None) -> str:
    """``"+31.0 [+27.1, +35.2]"``."""
    return ABSENT if gain is None else f"{gain['value']:+.1f} {interval(gain, '+.1f')}"


def share(closed: dict | None) -> str:
    if closed is None:
        return ABSENT
    if closed["value"] is None:
        return "no gap"
    scaled = {name: value if value is None else 100 * value for name, value in closed.items()}
    return f"{scaled['value']:.0f} {interval(scaled, '.0f')}"


def interval(found: dict, places: str) -> str:
    if found["low"] is None:
        return "[not defined]"
    # Adding up leaves zeros such as -1e-16, which no one should read as "-0".
    low, high = (round(found[end], 12) + 0.0 for end in ("low", "high"))
    return f"[{low:{places}}, {high:{places}}]"


def _clip_pair(row: dict) -> list[str]:
    """CLIP Score of base and arm, which add up to 1."""
    if "clip_score" not in row:
        return [ABSENT, ABSENT]
    found = row["clip_score"]
    other = {"mean": 1 - found["mean"], "per_seed": [1 - value for value in found["per_seed"]]}
    return [f"{other['mean']:.3f}", spread(found, ".3f")]


def _kid_difference(row: dict) -> str:
    found = row.get("kid_minus_base")
    return ABSENT if found is None else f"{found['mean']:+.5f} {interval(found, '+.5f')}"


def _steps(row: dict) -> str:
    training = row.get("training")
    return ABSENT if training is None else f"{training['align_steps']:,} + {training['full_steps']:,}"
