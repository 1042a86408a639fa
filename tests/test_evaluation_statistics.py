"""Every statistic against scipy, a formula written out, or brute force."""

import itertools
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from sur_core.evaluation import compare, kid_of_arms, kid_value, resample_means, share_of_gap
from sur_core.evaluation.kid import _estimator, _groups
from sur_core.evaluation.statistics import (
    Interval,
    SignificanceTest,
    by_prompt_t,
    independent_t,
    mcnemar,
    paired_t,
    paired_t_interval,
)


def samples(kind: str, seed: int, size: int = 30) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    if kind == "marks":
        return (draw.random(size) < 0.7).astype(float), (draw.random(size) < 0.4).astype(float)
    return draw.normal(0.3, 1.0, size), draw.normal(0.0, 2.0, size)


cases = pytest.mark.parametrize(("kind", "seed"), list(itertools.product(("marks", "real"), range(4))))


def p_of(t: float, degrees: float) -> float:
    return 2 * stats.t.sf(abs(t), degrees)


@cases
def test_the_papers_t_test_pools_the_variances(kind, seed):
    ours, base = samples(kind, seed)
    n = len(ours)
    pooled = ((n - 1) * ours.var(ddof=1) + (n - 1) * base.var(ddof=1)) / (2 * n - 2)
    t = (ours.mean() - base.mean()) / math.sqrt(pooled * 2 / n)
    found = independent_t(ours, base)
    assert (found.statistic, found.degrees, found.p) == pytest.approx((t, 2 * n - 2, p_of(t, 2 * n - 2)))


@cases
def test_welch_does_not(kind, seed):
    ours, base = samples(kind, seed)
    a, b = ours.var(ddof=1) / len(ours), base.var(ddof=1) / len(base)
    degrees = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(base) - 1))
    t = (ours.mean() - base.mean()) / math.sqrt(a + b)
    found = independent_t(ours, base, equal_variances=False)
    assert (found.statistic, found.degrees, found.p) == pytest.approx((t, degrees, p_of(t, degrees)))


@cases
def test_paired_t_and_its_interval(kind, seed):
    ours, base = samples(kind, seed)
    expected, found = stats.ttest_rel(ours, base), paired_t(ours, base)
    assert (found.statistic, found.p, found.degrees) == pytest.approx(
        (expected.statistic, expected.pvalue, 29)
    )
    bounds, interval = expected.confidence_interval(0.9), paired_t_interval(ours, base, 0.9)
    assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high))


@pytest.mark.parametrize("seed", range(3))
def test_the_test_over_prompts_is_of_their_means(seed):
    """Prompts in any order, with pictures in any number."""
    draw = np.random.default_rng(seed)
    prompts = draw.permutation(np.repeat([f"p{number}" for number in range(9)], draw.integers(1, 6, 9)))
    ours, base = draw.normal(0.3, 1, len(prompts)), draw.normal(0, 1, len(prompts))
    means = [[part[prompts == name].mean() for name in np.unique(prompts)] for part in (ours, base)]
    expected = stats.ttest_rel(*means)
    found = compare("a", "b", ours, base, prompts, ["x"] * len(prompts), measure="siglip").by_prompt
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.degrees == 8


def test_the_test_over_prompts_holds_where_those_over_pictures_find_what_is_not_there():
    """An arm that helps some prompts and harms others as much, of each twenty pictures: no difference."""
    draw, prompts = np.random.default_rng(0), np.repeat(np.arange(12), 20)
    wrong = {"by_prompt": 0, "paired": 0, "independent": 0}
    for _ in range(300):
        ours = np.repeat(draw.normal(0, 1, 12), 20) + draw.normal(0, 0.5, 240)
        base = draw.normal(0, 0.5, 240)
        found = {"by_prompt": by_prompt_t(ours, base, prompts), "paired": paired_t(ours, base)}
        found["independent"] = independent_t(ours, base)
        for name, test in found.items():
            wrong[name] += test.p < 0.05
    assert wrong["by_prompt"] < 30 and min(wrong["paired"], wrong["independent"]) > 120


@pytest.mark.parametrize(
    ("only_ours", "only_base"), [(0, 0), (1, 0), (5, 0), (3, 3), (9, 2), (2, 9), (30, 17)]
)
def test_mcnemar_is_exact(only_ours, only_base):
    ours = [1.0] * only_ours + [0.0] * only_base + [1.0, 0.0] * 7
    base = [0.0] * only_ours + [1.0] * only_base + [1.0, 0.0] * 7
    n = only_ours + only_base
    weights = [math.comb(n, k) / 2**n for k in range(n + 1)]
    p = sum(weight for weight in weights if weight <= weights[only_ours] * (1 + 1e-9))
    found = mcnemar(ours, base)
    assert (found.arm_only, found.baseline_only) == (only_ours, only_base)
    assert found.p == pytest.approx(p)


def test_mcnemar_refuses_what_is_neither_right_nor_wrong():
    with pytest.raises(ValueError, match="0 and 1"):
        mcnemar([0.5, 1.0], [0.0, 1.0])


# --- what is not defined ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "base", "note"),
    [
        ([1, 1, 1], [1, 1, 1], "both are the same"),
        ([1, 1, 1], [0, 0, 0], "but they differ"),
        ([1], [0], "two pictures or more"),
        ([0.1 + 0.2] * 3, [0.3] * 3, "both are the same"),
    ],
)
def test_a_t_test_without_spread_is_not_defined_and_says_why(ours, base, note):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in (independent_t(ours, base), independent_t(ours, base, equal_variances=False)):
            assert (found.p, found.statistic) == (None, None) and note in found.note


@pytest.mark.parametrize(
    ("ours", "base", "note"),
    [
        ([1, 0, 1], [1, 0, 1], "every pair is equal"),
        ([1.5, 0.5, 1.0], [1.0, 0.0, 0.5], "differs by the same"),
        ([1], [0], "two pairs"),
    ],
)
def test_so_is_a_paired_test(ours, base, note):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert note in paired_t(ours, base).note and paired_t(ours, base).p is None
        assert paired_t_interval(ours, base).low is None and note in paired_t_interval(ours, base).note


def test_one_prompt_has_no_test_over_prompts_and_equal_prompts_have_none():
    assert "two prompts or more" in by_prompt_t([1, 0, 1], [0, 0, 1], ["p"] * 3).note
    found = by_prompt_t([1, 0, 1, 1], [0, 1, 1, 1], ["p", "p", "q", "q"])
    assert found.p is None and found.note == "every prompt is equal"


def test_marks_all_alike_in_one_arm_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 < independent_t([1.0] * 10, [1.0, 0.0] * 5).p < 1


def comparison(ours, base, prompts, types=None, **options):
    return compare("ours", "base", ours, base, prompts, types or ["a"] * len(ours), **options)


def test_one_prompt_has_no_interval_over_prompts():
    found = comparison([1, 0, 1], [0, 0, 1], ["p"] * 3)
    assert found.over_prompts.low is None and "two prompts" in found.over_prompts.note
    mixed = comparison([1, 0, 1], [0, 0, 1], ["p", "q", "r"], ["a", "a", "b"])
    assert mixed.over_prompts.low is None, "a type of one prompt cannot vary, so neither can the whole"


def test_marks_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        comparison([1.0, math.nan], [0.0, 1.0], ["p", "q"])
    with pytest.raises(ValueError, match="one length"):
        comparison([1.0], [0.0, 1.0], ["p", "q"])
    with pytest.raises(ValueError, match="'b'"):
        comparison([1.0, 0.0], [0.0, 1.0], ["p", "q"], type="b")


# --- bootstrap over prompts ---------------------------------------------------------------------------------


def test_the_bootstrap_draws_prompts_as_brute_force_does():
    ours = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    prompts = ["p", "p", "q", "q", "q", "r", "r"]
    groups = [ours[:2], ours[2:5], ours[5:]]
    exact = [np.concatenate(pick).mean() for pick in itertools.product(groups, repeat=3)]
    drawn = resample_means([ours], prompts, ["a"] * 7, resamples=40_000, seed=1)[:, 0]
    for value in set(np.round(exact, 12)):
        share = np.mean(np.isclose(exact, value))
        assert np.mean(np.isclose(drawn, value)) == pytest.approx(share, abs=0.012)
    assert set(np.round(drawn, 12)) == set(np.round(exact, 12))


def test_every_sample_has_each_type_as_often_as_the_set():
    types = ["a"] * 6 + ["b"] * 2
    means = resample_means([[1.0] * 6 + [0.0] * 2], list("ppqqrrst"), types, 500)
    assert np.all(means == 0.75)


def test_a_drawn_prompt_brings_the_pictures_of_all_arms():
    draw = np.random.default_rng(0)
    base, prompts = draw.random(40), [f"p{number // 4}" for number in range(40)]
    means = resample_means([base, base + 0.25], prompts, ["a"] * 40, 300)
    assert means[:, 0].std() > 0.01 and np.allclose(means[:, 1] - means[:, 0], 0.25)


def test_large_sets_are_drawn_in_blocks_without_a_seam(monkeypatch):
    from sur_core.evaluation import statistics

    draw = np.random.default_rng(0)
    arms, prompts = draw.random((3, 60)), [f"p{number // 2}" for number in range(60)]
    whole = resample_means(arms, prompts, ["a"] * 60, 500, seed=7)
    monkeypatch.setattr(statistics, "_BLOCK", 30 * 3 * 64)
    assert np.array_equal(whole, resample_means(arms, prompts, ["a"] * 60, 500, seed=7))


def test_equal_seeds_give_equal_intervals():
    ours, base = samples("marks", 0, 60)
    prompts = [f"p{number // 6}" for number in range(60)]
    first, second, other = (comparison(ours, base, prompts, resamples=500, seed=seed) for seed in (1, 1, 2))
    assert first == second and first.over_prompts != other.over_prompts


def test_the_interval_over_prompts_covers_the_truth_where_the_plain_one_does_not():
    """Prompts differ in how much an adapter helps them; the pictures of one prompt go together."""
    draw, truth, covered, plain, repeats = np.random.default_rng(5), 0.2, 0, 0, 250
    prompts = np.repeat([f"p{number}" for number in range(25)], 8)
    for repeat in range(repeats):
        gain = np.repeat(np.clip(draw.normal(truth, 0.15, 25), -0.3, 0.7), 8)
        base = (draw.random(200) < 0.3).astype(float)
        ours = (draw.random(200) < 0.3 + gain).astype(float)
        found = comparison(ours, base, prompts, resamples=300, seed=repeat)
        covered += found.over_prompts.low <= truth <= found.over_prompts.high
        plain += found.paired_interval.low <= truth <= found.paired_interval.high
    assert 0.89 <= covered / repeats <= 0.98
    assert plain < covered


def redrawn(draw, prompts: int, shift: float = 0.0, **options):
    """Ten pictures of each prompt, which an arm draws better or worse by lot, prompt by prompt."""
    base = draw.random((prompts, 10))
    ours = base + shift + draw.normal(0, 0.3, (prompts, 1)) + draw.normal(0, 0.1, (prompts, 10))
    names = np.repeat([f"p{n}" for n in range(prompts)], 10)
    kinds = ["Color"] * len(names)
    return compare("a", "b", ours.ravel(), base.ravel(), names, kinds, measure="x", resamples=200, **options)


@pytest.mark.parametrize("prompts", [2, 3, 5])
def test_arms_that_differ_by_chance_are_seldom_told_apart_however_few_the_prompts(prompts):
    """The interval alone, of 95%, tells them apart far too often."""
    draw = np.random.default_rng(prompts)
    found = [redrawn(draw, prompts) for _ in range(200)]
    wrong = sum(one.told_apart for one in found), sum(excludes_zero(one) for one in found)
    assert wrong[0] <= 20 < wrong[1], "ten are expected; more than twenty come once in a thousand times"
    better = [redrawn(draw, 4 * prompts, shift=0.8) for _ in range(20)]
    assert sum(one.told_apart for one in better) >= 19


def excludes_zero(found) -> bool:
    return not found.over_prompts.low <= 0 <= found.over_prompts.high


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_told_apart_needs_interval_and_test_at_the_confidence_asked(confidence):
    draw, seen = np.random.default_rng(5), set()
    for shift in np.linspace(0, 1.5, 80):
        found = redrawn(draw, 5, shift, confidence=confidence)
        both = excludes_zero(found), found.by_prompt.p <= 1 - confidence
        assert found.told_apart == all(both)
        seen.add(both)
    assert seen >= {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize(
    ("low", "high", "p", "told"),
    [
        (0.1, 0.2, 0.04, True),
        (-0.2, -0.1, 0.05, True),
        (0.1, 0.2, 0.06, False),
        (-0.1, 0.2, 0.001, False),
        (0.0, 0.2, 0.001, False),
        (None, None, 0.001, False),
        (0.1, 0.2, None, False),
    ],
)
def test_neither_interval_nor_test_tells_apart_by_itself(low, high, p, told):
    found = redrawn(np.random.default_rng(0), 7)
    found = replace(found, over_prompts=Interval(low, high), by_prompt=SignificanceTest(p=p))
    assert found.told_apart == told


@pytest.mark.parametrize(("prompts", "told"), [(2, False), (5, False), (6, True), (40, True)])
def test_where_every_prompt_differs_by_the_same_as_many_are_needed_as_by_a_sign_test(prompts, told):
    names = np.repeat([f"p{n}" for n in range(prompts)], 3)
    found = compare("a", "b", np.ones(len(names)), np.zeros(len(names)), names, ["Color"] * len(names))
    assert found.by_prompt.p is None and excludes_zero(found) and found.told_apart == told


def test_equal_arms_and_one_prompt_are_not_told_apart():
    for marks, names in (([1, 0, 1, 0], "aabb"), ([1, 1, 1, 1], "aaaa")):
        assert not compare("a", "b", marks, [1, 0, 1, 0], list(names), ["Color"] * 4).told_apart


def test_the_share_of_a_gap_that_is_closed():
    types, prompts = ["a"] * 8, list("ppqqrrss")
    base, ceiling = [0, 0, 0, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]
    ours = [0, 1, 1, 1, 0, 1, 1, 1]
    share, interval = share_of_gap(base, ours, ceiling, prompts, types)
    assert share == pytest.approx((0.75 - 0.25) / (1 - 0.25))
    assert interval.low <= share <= interval.high
    assert share_of_gap(base, base, ceiling, prompts, types)[0] == 0
    assert share_of_gap(base, ceiling, ceiling, prompts, types)[0] == 1
    nothing, undefined = share_of_gap(ceiling, ours, base, prompts, types)
    assert nothing is None and undefined.low is None and "no higher" in undefined.note


# --- KID ----------------------------------------------------------------------------------------------------


def features(size: int, seed: int, width: int = 12, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("seed", range(3))
def test_kid_equals_torchmetrics(seed):
    from torchmetrics.image.kid import poly_mmd

    ours, reference = features(40, seed, shift=0.2), features(40, 9 + seed)
    expected = poly_mmd(reference.double(), ours.double())
    assert kid_value(ours, reference) == pytest.approx(float(expected), rel=1e-9)


def brute_force(ours, reference, prompts, reference_prompts, picked=None, others=None) -> float:
    """Means over all pairs of different prompts, of the pictures at these places."""
    picked = range(len(ours)) if picked is None else picked
    others = range(len(reference)) if others is None else others

    def kernel(x, y):
        return (float(x.double() @ y.double()) / len(x) + 1) ** 3

    def mean(x, x_prompts, x_places, y, y_prompts, y_places):
        return np.mean(
            [kernel(x[i], y[j]) for i in x_places for j in y_places if x_prompts[i] != y_prompts[j]]
        )

    one, two = (ours, prompts, picked), (reference, reference_prompts, others)
    return mean(*one, *one) + mean(*two, *two) - 2 * mean(*one, *two)


def test_kid_equals_brute_force_for_sets_of_different_sizes():
    ours, reference = features(7, 1), features(4, 2, shift=0.5)
    alone = brute_force(ours, reference, range(7), range(10, 14))
    assert kid_value(ours, reference) == pytest.approx(alone)
    prompts, of = list("aabbccc"), ["c", None, "x", "a"]
    expected = brute_force(ours, reference, prompts, ["c", "alone", "x", "a"])
    assert kid_value(ours, reference, prompts, of) == pytest.approx(expected)


def test_a_resample_brings_a_prompts_pictures_on_both_sides_and_never_compares_it_with_itself():
    ours, reference = features(6, 1), features(5, 2)
    prompts, of = list("aabbcc"), ["a", "b", "b", "d", None]
    groups = _groups(6, 5, prompts, of)
    # Twice a, never b, once c; the reference of d three times, the one of no prompt once.
    value = _estimator(ours, reference, groups)(torch.tensor([[2.0, 0, 1, 3, 1]]).double())
    picked, others = [0, 1, 0, 1, 4, 5], [0, 0, 3, 3, 3, 4]
    expected = brute_force(ours, reference, prompts, ["a", "b", "b", "d", "alone"], picked, others)
    assert float(value) == pytest.approx(expected)


def test_prompts_are_drawn_for_both_sides_and_the_other_references_by_themselves():
    groups = _groups(6, 5, list("aabbcc"), ["a", "b", "b", "d", None])
    drawn = groups.draw(3000, seed=0)
    assert drawn.shape == (3000, 5)
    assert (drawn[:, :3].sum(1) == 3).all() and (drawn[:, 3:].sum(1) == 2).all()
    assert drawn.mean(0).tolist() == pytest.approx([1] * 5, abs=0.05)


def clustered(seed: int, prompts: int = 12, each: int = 4, shift: float = 0.0):
    """Pictures and references of the same prompts, which differ more than the pictures of one do."""
    middles = 1.5 * features(prompts, 3 * seed).repeat_interleave(each, 0)
    ours, reference = (0.7 * features(prompts * each, 3 * seed + part) for part in (1, 2))
    return middles + ours + shift, middles + reference, [n // each for n in range(prompts * each)]


def test_a_perfect_arm_is_around_zero_where_both_sets_are_of_the_same_prompts():
    runs = [clustered(seed) for seed in range(150)]
    found = np.array([kid_value(ours, reference, ids, ids) for ours, reference, ids in runs])
    plain = np.array([kid_value(ours, reference) for ours, reference, _ in runs])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean()) < 3 * error
    assert plain.mean() < -10 * error, "prompts that are not told of make the same arm better than perfect"


def test_against_references_of_other_prompts_it_is_around_zero_too():
    """A folder of pictures without prompts, in which every picture shows something else."""
    values, plain = [], []
    for seed in range(150):
        ours, _, ids = clustered(seed)
        reference = 1.5 * features(40, 9000 + seed) + 0.7 * features(40, 19000 + seed)
        values.append(kid_value(ours, reference, ids))
        plain.append(kid_value(ours, reference))
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error and np.mean(plain) > 5 * error


def missed(seed: int, prompts: int, each: int) -> torch.Tensor:
    """How far an arm misses each prompt, the same in all of the prompt's pictures."""
    return features(prompts, seed).repeat_interleave(each, 0)


def test_intervals_of_kid_cover_the_truth_where_those_over_pictures_do_not():
    """Two arms miss the prompts equally far on the whole, but each in its own way."""
    covered, plain, clear, size = 0, 0, 0, (10, 20)
    for seed in range(40):
        ours, reference, ids = clustered(seed, *size)
        one, two = (ours + missed(place + seed, *size) for place in (5000, 6000))
        arms = {"one": one, "two": two, "far": one + 1.0}
        _, found, far = kid_of_arms(arms, reference, ids, ids, resamples=150, seed=seed)
        _, without = kid_of_arms({"one": one, "two": two}, reference, resamples=150, seed=seed)
        covered += found.difference_interval.low <= 0 <= found.difference_interval.high
        plain += without.difference_interval.low <= 0 <= without.difference_interval.high
        clear += far.difference_interval.low > 0
    assert covered >= 36 and plain < 32 and clear >= 36, (covered, plain, clear)


def test_kid_is_around_zero_for_pictures_of_one_kind_and_its_resamples_around_it():
    values = [kid_value(features(30, seed), features(30, 500 + seed)) for seed in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    ours, reference = features(60, 1, shift=0.3), features(60, 2)
    (found,) = kid_of_arms({"base": ours}, reference, resamples=1000)
    assert found.interval.low < found.value < found.interval.high
    middle = (found.interval.low + found.interval.high) / 2
    assert abs(middle - found.value) < 0.25 * (found.interval.high - found.interval.low)


def test_the_difference_of_arms_is_resampled_in_pairs():
    base, reference = features(50, 1), features(50, 2)
    near = base + 0.01 * features(50, 3)
    first, same, close = kid_of_arms({"base": base, "same": base, "near": near}, reference, resamples=400)
    assert first.difference is None and first.difference_interval is None
    assert same.difference == same.difference_interval.low == same.difference_interval.high == 0
    assert close.value - first.value == close.difference
    width = close.difference_interval.high - close.difference_interval.low
    assert width < 0.2 * (first.interval.high - first.interval.low)
    again = kid_of_arms({"base": base, "near": near}, reference, resamples=400)
    assert again[1].difference_interval == close.difference_interval, "an arm's bounds know no other arm"


def test_kid_says_how_many_pictures_prompts_and_references_it_is_of():
    (found,) = kid_of_arms(
        {"base": features(6, 1)}, features(5, 2), list("aabbcc"), ["a", None, "b", "x", "c"]
    )
    assert (found.pictures, found.references, found.prompts, found.references_of_prompts) == (6, 5, 3, 3)


def test_kid_needs_two_prompts_of_each():
    with pytest.raises(ValueError, match="two prompts or more.*pictures of 1"):
        kid_of_arms({"base": features(1, 0)}, features(5, 1))
    with pytest.raises(ValueError, match="two prompts or more.*pictures of 1"):
        kid_value(features(4, 0), features(5, 1), list("aaaa"))
    with pytest.raises(ValueError, match="references of 1"):
        kid_value(features(4, 0), features(3, 1), list("aabb"), list("aaa"))
    with pytest.raises(ValueError, match="as many pictures of each"):
        kid_of_arms({"base": features(3, 0), "ours": features(4, 0)}, features(5, 1))
    with pytest.raises(ValueError, match="a prompt for each"):
        kid_value(features(4, 0), features(5, 1), list("abc"))
    (found,) = kid_of_arms({"base": features(2, 0)}, features(2, 1), resamples=200)
    assert math.isfinite(found.value)
    assert found.interval.low is None and "too few" in found.interval.note
