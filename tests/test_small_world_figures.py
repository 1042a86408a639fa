"""From marks to the figures, tables and sentences of the small world's benchmark."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.small_world_arms import page, scores, tables
from benchmarks.small_world_arms.groups import BASE, COMPLEX, SUR
from benchmarks.small_world_arms.scores import MEAN, Marks
from sur_core.evaluation import compare, share_of_gap

TYPES = ("counting", "color", "action")


def some_marks(seeds=3, prompts=20, noises=2, rates=(0.2, 0.6, 0.9), seed=0) -> Marks:
    """Of a base, an arm of several training seeds, and a ceiling."""
    draw = np.random.default_rng(seed)
    ids = np.repeat([f"{kind}-{n}" for kind in TYPES for n in range(prompts)], noises)
    types = np.repeat(TYPES, prompts * noises)
    rows = {
        name: (draw.random((count, len(ids))) < rate).astype(float)
        for name, count, rate in zip((BASE, SUR, COMPLEX), (1, seeds, 1), rates, strict=True)
    }
    return Marks(ids, types, rows)


def test_percentages_are_means_over_training_seeds():
    marks = some_marks()
    found = marks.percent(SUR)
    for kind in TYPES:
        each = [100 * row[marks.types == kind].mean() for row in marks.of[SUR]]
        assert found[kind] == {"mean": pytest.approx(np.mean(each)), "per_seed": pytest.approx(each)}
    assert found[MEAN]["mean"] == pytest.approx(np.mean([found[kind]["mean"] for kind in TYPES]))


def test_with_one_training_seed_the_intervals_are_the_librarys():
    marks = some_marks(seeds=1)
    base, ours, ceiling = (marks.of[name][0] for name in (BASE, SUR, COMPLEX))
    gain, gap = scores.gains(marks, SUR, BASE, 500), scores.gaps_closed(marks, SUR, BASE, COMPLEX, 500)
    for kind in TYPES:
        chosen = marks.types == kind
        parts = marks.prompts[chosen], marks.types[chosen]
        expected = compare("a", "b", ours[chosen], base[chosen], *parts, resamples=500)
        assert gain[kind]["value"] == pytest.approx(100 * expected.difference)
        interval = expected.over_prompts
        assert (gain[kind]["low"], gain[kind]["high"]) == pytest.approx(
            (100 * interval.low, 100 * interval.high)
        )
        share, interval = share_of_gap(base[chosen], ours[chosen], ceiling[chosen], *parts, resamples=500)
        assert gap[kind]["value"] == pytest.approx(share)
        assert (gap[kind]["low"], gap[kind]["high"]) == pytest.approx((interval.low, interval.high))


def test_training_seeds_that_differ_widen_the_interval():
    marks = some_marks()
    same = Marks(marks.prompts, marks.types, {**marks.of, SUR: np.repeat(marks.of[SUR][:1], 3, axis=0)})
    apart = {**marks.of, SUR: np.stack([np.zeros(120), marks.of[SUR][0], np.ones(120)])}
    widths = []
    for each in (same, Marks(marks.prompts, marks.types, apart)):
        found = scores.gains(each, SUR, BASE, 500)[MEAN]
        widths.append(found["high"] - found["low"])
    assert widths[1] > 3 * widths[0]


def test_training_seeds_count_with_their_unbiased_variance():
    """Where prompts do not vary, the bootstrap's variance of the mean over seeds is s**2 / n."""
    marks, rates = some_marks(), np.array([0.1, 0.4, 0.8])
    rows = {SUR: np.stack([np.full(120, rate) for rate in rates]), BASE: np.zeros((1, 120))}
    part = Marks(marks.prompts, marks.types, rows)
    ours, base = scores.resampled([rows[SUR], rows[BASE]], part, 20_000)
    assert ours.var() == pytest.approx(rates.var(ddof=1) / 3, rel=0.03)
    assert ours.mean() == pytest.approx(rates.mean(), abs=0.01)
    assert (base == 0).all()


def test_arms_of_the_same_training_seeds_share_their_draw():
    """A difference that is the same for each training seed does not vary with them."""
    marks = some_marks()
    rows = np.stack([np.full(120, value) for value in (0.1, 0.4, 0.8)])
    paired = Marks(marks.prompts, marks.types, {"a": rows + 0.1, "b": rows})
    found = scores.gains(paired, "a", "b", 300)[MEAN]
    assert (found["value"], found["low"], found["high"]) == pytest.approx((10.0, 10.0, 10.0))


def test_no_gap_and_no_interval_are_told_as_such():
    marks = some_marks(rates=(0.9, 0.5, 0.2))
    assert scores.gaps_closed(marks, SUR, BASE, COMPLEX, 200)[MEAN] == {
        "value": None,
        "low": None,
        "high": None,
    }
    lonely = some_marks(prompts=1)
    assert scores.gains(lonely, SUR, BASE, 200)[MEAN]["low"] is None
    assert tables.share({"value": None, "low": None, "high": None}) == "no gap"
    assert "not defined" in tables.points(scores.gains(lonely, SUR, BASE, 200)[MEAN])


# --- sentences ----------------------------------------------------------------------------------------------


def rows_of(rates, prompts=60) -> dict:
    marks = some_marks(prompts=prompts, rates=rates)
    rows = {name: {"percent": marks.percent(name)} for name in marks.of}
    rows[SUR]["gain_points"] = scores.gains(marks, SUR, BASE, 300)
    rows[SUR]["gap_closed"] = scores.gaps_closed(marks, SUR, BASE, COMPLEX, 300)
    return rows


@pytest.mark.parametrize(
    ("rates", "sentence", "aims"),
    [
        ((0.1, 0.9, 0.95), "points, a gain.", ["reached", "reached", "reached"]),
        ((0.3, 0.5, 0.95), "points, a gain.", ["not reached", "reached", "not reached"]),
        ((0.8, 0.2, 0.95), "points, a loss.", ["not reached", "not reached", "not reached"]),
        ((0.5, 0.5, 0.95), "no gain that could be told", ["not reached"] * 3),
    ],
)
def test_the_sentences_say_what_the_numbers_say(rates, sentence, aims):
    rows = rows_of(rates)
    text, lines = page.headline(rows, 180), page.verdicts(rows)
    assert sentence in text
    for arm in (BASE, SUR, COMPLEX):
        assert f"{rows[arm]['percent'][MEAN]['mean']:.1f}" in text
    assert f"{rows[SUR]['gain_points'][MEAN]['value']:+.1f}" in text
    assert [line.rpartition(": ")[2].rpartition("; ")[2].rstrip(".") for line in lines[3:6]] == aims
    right = rows[COMPLEX]["percent"]
    expected = [page._reached(right[kind]["mean"] >= aim) for kind, aim in page.AIM_BASE.items()]
    assert [line.rpartition("; ")[2].rstrip(".") for line in lines[6:]] == expected


def test_a_kid_that_is_worse_is_said_to_be():
    rows = rows_of((0.2, 0.6, 0.9))
    for row in rows.values():
        row |= {"cosine": scores.spread([0.3]), "kid": scores.spread([0.1])}
    found = {"rows": rows, "prompts": 1, "noises": 1, "references": 4, "training_seeds": [0]}
    for low, high, words in ((0.1, 0.2, "quality has suffered"), (-0.2, -0.1, "nearer"), (-0.1, 0.1, "zero")):
        rows[SUR]["kid_minus_base"] = {"mean": (low + high) / 2, "per_seed": [0.0], "low": low, "high": high}
        assert words in page._quality(found)[2]
