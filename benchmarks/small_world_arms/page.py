"""RESULTS.md and the top of the JSON: sentences that say what the numbers say, whatever that is."""

from __future__ import annotations

from sur_core.evaluation import NOT_EQUAL_NOTE
from sur_core.training_progress import duration_words

from .groups import BASE, COMPLEX, SUR
from .plan import GROUPS
from .scores import MEAN
from .tables import (
    arm_table,
    curve_table,
    gain_table,
    interval,
    paper_table,
    percent,
    points,
    property_table,
    quality_table,
    share,
)

AIM_POINTS, AIM_GAP = 25.0, 0.6
AIM_BASE = {"counting": 90.0, "color": 90.0, "action": 85.0}
"""Percent of complex prompts that the base should draw right."""
_TITLES = {
    "value": ("What Eq. 6 reads: the extension query_in_value", "Eq. 6"),
    "layers": ("Layer of the language model (paper: Table 4)", "vectors from"),
    "terms": ("LLM and complex-prompt terms (paper: Table 5)", "terms"),
    "start": ("Start of phi_1 (paper: Fig. 6)", "phi_1"),
    "stages": ("Stages at equal compute", "stages"),
    "llmdiff": ("The other system: LLMDiff-Adapter", "adapter"),
    "authors": ("As the authors' code, difference by difference", "training step"),
}


def headline_figures(groups: dict) -> dict:
    """The first entries of the JSON; empty objects for what was not run."""
    names = ("gain_points", "gap_closed", "ci95", "base", "base_complex", "sur", "kid")
    found: dict = {name: {} for name in names}
    if "main" in groups:
        rows = groups["main"]["rows"]
        gains, closed = rows[SUR]["gain_points"], rows[SUR]["gap_closed"]
        found["gain_points"] = {kind: gain["value"] for kind, gain in gains.items()}
        found["gap_closed"] = {kind: each["value"] for kind, each in closed.items()}
        found["ci95"] = {kind: [gain["low"], gain["high"]] for kind, gain in gains.items()}
        for name, arm in (("base", BASE), ("base_complex", COMPLEX), ("sur", SUR)):
            found[name] = {kind: value["mean"] for kind, value in rows[arm]["percent"].items()}
    if "quality" in groups:
        rows = groups["quality"]["rows"]
        found["kid"] = {
            name: rows[arm]["kid"]["mean"]
            for name, arm in (("base", BASE), ("base_complex", COMPLEX), ("sur", SUR))
        }
        difference = rows[SUR]["kid_minus_base"]
        found["kid"]["sur_minus_base"] = difference["mean"]
        found["kid"]["ci95"] = [difference["low"], difference["high"]]
    return found


def page(figures: dict) -> str:
    """The whole of RESULTS.md."""
    groups = figures["tables"]
    parts = [
        "# What the SUR-adapter does in the small world",
        "Written by `python benchmarks/small_world.py`; every sentence and number here comes from that "
        "program. The figures, with many more, are in `benchmarks/small_world.json`.",
        _missing(groups),
    ]
    writers = {"main": _main, "quality": _quality, "eta": _eta}
    for name, found in groups.items():
        parts += writers[name](found) if name in writers else _ablation(name, found)
        if name == "main":
            parts.append(_method(figures))
    return "\n\n".join([*parts, *_how(figures)]) + "\n"


def _missing(groups: dict) -> str:
    missing = [name for name in GROUPS if name not in groups]
    if not missing:
        return f"All groups were run: {', '.join(GROUPS)}."
    return f"Not run yet, or only with other settings: {', '.join(missing)}."


# --- main ---------------------------------------------------------------------------------------------------


def _main(found: dict) -> list[str]:
    rows, words = found["rows"], found["words"]
    sets = {f"larger, {_size(found)}": found, f"the paper's, {_size(found['paper'])}": found["paper"]}
    parts = {f"larger, prompts {name} ({part['prompts']})": part for name, part in words.items()}
    return [
        "## Base and SUR (paper: Table 2)",
        _seeds(found),
        headline(rows, found["prompts"]),
        "\n".join(f"- {line}" for line in verdicts(rows)),
        paper_table({**sets, **parts}),
        f"The larger test by type, {_size(found)}:",
        gain_table(found),
        "The paper's prompts by type:",
        gain_table(found["paper"]),
        *(block for name, part in parts.items() for block in (f"{name}:".capitalize(), gain_table(part))),
        "Properties: share of the larger test's pictures in which the judge finds each property of the truth "
        "by itself. A picture can have every property and yet be no valid scene.",
        property_table(found["properties"]),
    ]


def _method(figures: dict) -> str:
    """Which method the adapters of the first tables are."""
    if not figures["about"]["training"]["query_in_value"]:
        return "The adapters read Eq. 6 as it stands in the paper."
    words = (
        "**Not the paper's method to the letter:** these adapters, and all others unless a table says "
        "otherwise, have the extension `query_in_value`: Eq. 6 adds up tokens, and the extension lets its "
        "value keep the query as well."
    )
    rows = figures["tables"].get("value", {}).get("rows", {})
    plain = {label: row for label, row in rows.items() if label.startswith("as in the paper")}
    each = "; ".join(
        f"{label}: {percent(row['percent'][MEAN])}%, {points(row['gain_points'][MEAN])} points over the "
        f"base, {share(row['gap_closed'][MEAN])}% of the gap"
        for label, row in plain.items()
    )
    return f"{words} With Eq. 6 {each} (table below)." if each else words


def headline(rows: dict, prompts: int) -> str:
    base, complex, ours = (rows[arm]["percent"][MEAN] for arm in (BASE, COMPLEX, SUR))
    gain = rows[SUR]["gain_points"][MEAN]
    return (
        f"On {prompts} test prompts whose sentence forms and combinations no training triplet has, the base "
        f"model draws {percent(base)}% of the simple prompts right and {percent(complex)}% of the complex "
        f"ones. With the SUR-adapter at the strength it was trained with it draws {percent(ours)}% of the "
        f"same simple prompts right: {points(gain)} points, {_gain_words(gain)}."
    )


def verdicts(rows: dict) -> list[str]:
    """One sentence a type, and whether the aims are reached."""
    ours, lines = rows[SUR], []
    gains = {kind: gain for kind, gain in ours["gain_points"].items() if kind != MEAN}
    for kind, gain in gains.items():
        lines.append(f"{kind}: {points(gain)} points, {_gain_words(gain)}.")
    mean, closed = ours["gain_points"][MEAN], ours["gap_closed"][MEAN]
    lines.append(f"Aim of {AIM_POINTS:+g} points on average: {_reached(mean['value'] >= AIM_POINTS)}.")
    sure = all(gain["low"] is not None and gain["low"] > 0 for gain in gains.values())
    lines.append(f"Aim of a gain for each type whose interval excludes zero: {_reached(sure)}.")
    if closed["value"] is None:
        lines.append("There is no gap: the base draws complex prompts no better than simple ones.")
    else:
        done = _reached(closed["value"] >= AIM_GAP)
        lines.append(f"Aim of {AIM_GAP:.0%} of the gap closed: {share(closed)}% is closed; {done}.")
    for kind, aim in AIM_BASE.items():
        right = rows[COMPLEX]["percent"].get(kind)
        if right:
            lines.append(
                f"Aim of {aim:.0f}% of the complex prompts drawn right by the base, {kind}: "
                f"{percent(right)}%; {_reached(right['mean'] >= aim)}."
            )
    return lines


def _reached(yes: bool) -> str:
    return "reached" if yes else "not reached"


def _gain_words(gain: dict) -> str:
    if gain["low"] is None:
        return "whose interval is not defined: whether it is a gain cannot be said"
    if gain["low"] > 0:
        return "a gain"
    if gain["high"] < 0:
        return "a loss"
    return "no gain that could be told: the interval includes zero"


# --- the other groups ---------------------------------------------------------------------------------------


def _quality(found: dict) -> list[str]:
    ours = found["rows"][SUR]["kid_minus_base"]
    value = f"{ours['mean']:+.5f} {interval(ours, '+.5f')}"
    if ours["low"] is None:
        words = "the interval is not defined"
    elif ours["low"] > 0:
        words = "further from true pictures than the base's: quality has suffered"
    elif ours["high"] < 0:
        words = "nearer to true pictures than the base's"
    else:
        words = "the interval includes zero: these pictures do not tell the two apart"
    return [
        "## Quality (paper: Table 3)",
        _seeds(found),
        f"KID of SUR minus that of the base, both on simple prompts: {value}; {words}. Aim of a KID that is "
        f"no worse, by its value: {_reached(ours['mean'] <= 0)}.",
        quality_table(found),
        "CLIP Score: the tiny CLIP chooses between the base's picture and the arm's of the same prompt and "
        "noise; softmax, mean over pairs; 0.5 is no preference. Cosine: of picture and simple prompt. The "
        f"t-test is the paper's, one p a training seed. KID: on the tiny CLIP's features, {_size(found)}, "
        f"against {found['references']:,} true pictures of the same prompts; less is nearer. Its interval is "
        "by bootstrap over prompts, and its ends are the means of the training seeds' ends: how much the "
        f"seeds differ is not in it. {NOT_EQUAL_NOTE}",
    ]


def _eta(found: dict) -> list[str]:
    parts = [
        "## Strength eta",
        f"{_seeds(found)} The adapters of the first table at other strengths than their training's; "
        f"{_size(found)}.",
    ]
    if zero := found.get("zero"):
        same = not (zero["differing_pictures"] or zero["differing_embeddings"])
        parts.append(
            f"Eta 0 {'equals' if same else 'DOES NOT EQUAL'} the base: with Eq. 7 written out and drawn "
            f"beside the base, of {zero['pictures']:,} pictures {zero['differing_pictures']:,} differ from "
            "the base's in any "
            f"pixel, and of {zero['embeddings']:,} embeddings {zero['differing_embeddings']:,} differ in any "
            "bit. (The row of eta 0 is the base's own pictures: at 0 the adapter is not asked.)"
        )
    return [*parts, arm_table(found, "SUR at")]


def _ablation(name: str, found: dict) -> list[str]:
    title, what = _TITLES[name]
    parts = [
        f"## {title}",
        f"{_seeds(found)} {_size(found)[0].upper()}{_size(found)[1:]}.",
        _against_default(found),
        arm_table(found, what),
    ]
    if name in ("terms", "stages"):
        parts.append(
            "Numbers of steps are such that all rows cost about what the default costs, by the seconds of an "
            "align and of a full step, which were measured by turns before the first training."
        )
    if name == "llmdiff":
        parts.append(
            "LLMDiff reads the simple prompts with the tiny language model of this world, which for SUR only "
            "made the knowledge vectors; `small_world/llmdiff.toml` has its settings. Its steps are full "
            "ones, as many as the default's whole training is worth by SUR's seconds a step. *Beside*: the "
            "text encoder is still heard. *In its place*, as in the paper: it is not, and training begins "
            "with no text at all."
        )
    if "curves" in found:
        parts += ["Losses, means over the training seeds and over the steps since the row before:"]
        parts.append(curve_table(found["curves"]))
    return parts


def _against_default(found: dict) -> str:
    """Which rows are better or worse than the one they are compared with, as far as can be told."""
    sorted_out: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for label, row in found["rows"].items():
        gain = row.get("against_default", {}).get(MEAN)
        if gain is None:
            continue
        clear = gain["low"] is not None and (gain["low"] > 0 or gain["high"] < 0)
        verdict = ("better" if gain["low"] > 0 else "worse") if clear else "not told apart"
        sorted_out[verdict].append(f"{label} ({points(gain)})")
    words = "; ".join(f"{verdict}: {', '.join(rows) or 'none'}" for verdict, rows in sorted_out.items())
    count = sum(map(len, sorted_out.values()))
    return (
        f"Against '{found['default']}', over all types, in points: {words}. Each of these {count} intervals "
        "is a 95% one by itself; where nothing differs, one in twenty still excludes zero."
    )


def _seeds(found: dict) -> str:
    seeds = found["training_seeds"]
    if len(seeds) == 1:
        return f"One training seed ({seeds[0]}): how much another would change is not known."
    return f"Training seeds {', '.join(map(str, seeds))}; each has its own training set."


def _size(found: dict) -> str:
    noises = found["noises"]
    return f"{found['prompts']:,} prompts, {noises} picture{'s' * (noises > 1)} of each"


# --- how ----------------------------------------------------------------------------------------------------


def _long(settings: dict) -> str:
    if not settings:
        return ""
    words = ", ".join(f"{name} {value:,}" for name, value in settings.items())
    return f"the adapters of the groups main, quality and eta are trained longer ({words}); "


def _how(figures: dict) -> list[str]:
    about = figures["about"]
    training, versions = about["training"], about["versions"]
    return [
        "## How it was counted",
        "Percentages are means over the training seeds, in brackets the smallest and the largest. Intervals "
        "in square brackets are 95% intervals by bootstrap. An adapter's mark of a picture is the mean over "
        "the training seeds' marks; the bootstrap draws prompts, with all their pictures, within their type, "
        "and training seeds, both with replacement, the latter's differences made larger by the root of "
        "n / (n - 1). Three seeds can still tell only roughly how much training varies, so that intervals "
        "may be too narrow. All arms draw the same prompts from the same noise. The gap is from the base on "
        "simple to the base on complex prompts; over all types it is that of the means. The judge is exact "
        "and reads pixels alone. Rows of equal name in different tables differ where numbers of pictures do.",
        "## What was run",
        f"SURD-Shapes, {about['rows']:,} training triplets a seed; {training['train_batch_size']} a step, "
        f"{training['align_steps']:,} align and {training['full_steps']:,} full steps, eta {about['eta']:g}; "
        f"{_long(about['long'])}"
        "all other settings as in `small_world/demo.toml`. Drawing: "
        f"{about['drawing_steps']} steps, guidance {about['guidance']:g}. Models: fingerprint "
        f"`{about['models_fingerprint']}`. Machine: {about['cpu']}, {about['cores']} cores, "
        f"{about['threads']} threads, device {about['device']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
        _time_words(figures),
    ]


def _time_words(figures: dict) -> str:
    """What all of it took."""
    times = "; ".join(f"{name} {duration_words(value)}" for name, value in figures["seconds"].items())
    training = figures["training"]
    if not training:
        return f"Time of drawing and judging: {times}."
    costs = training["costs"]
    return (
        f"Time: {training['adapters']} adapters, {duration_words(training['seconds'])} of training in all, "
        "of which some may have run beside each other. Before the first, on their own: an align step "
        f"{1000 * costs['align_step']:.0f} ms, a full step {1000 * costs['full_step']:.0f} ms, drawing and "
        f"judging a picture {1000 * costs['picture']:.0f} ms. Drawing and judging: {times}."
    )
