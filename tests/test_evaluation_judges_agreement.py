"""Agreement of a judge with people, against figures worked out by hand and by counting."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from small_world.dice import Dice
from small_world.judge import WorldJudge
from small_world.render import render
from small_world.scenes import meanings, to_truth
from sur_core.evaluation import EvalPrompt
from sur_core.evaluation.judging import NOT_COMPARABLE, agreement, agreement_table
from sur_core.evaluation.judging.agreement import kappa_of_shares
from tests.small_world_scenes import some_scenes

FAST = {"resamples": 400}


def marks(both: int, judge_only: int, people_only: int, neither: int, start: str = "p"):
    """(judge, people) with so many pictures of each kind."""
    rows = [(True, True)] * both + [(True, False)] * judge_only
    rows += [(False, True)] * people_only + [(False, False)] * neither
    names = [f"{start}{at}" for at in range(len(rows))]
    return dict(zip(names, (a for a, _ in rows), strict=True)), dict(
        zip(names, (b for _, b in rows), strict=True)
    )


def kappa_by_pairs(judge, people) -> float:
    """Expected agreement counted over all pairs of a mark of the one and a mark of the other."""
    ours, theirs = [judge[name] for name in people], list(people.values())
    observed = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
    expected = np.mean([a == b for a, b in itertools.product(ours, theirs)])
    return (observed - expected) / (1 - expected)


def test_kappa_of_a_table_worked_out_by_hand():
    """20, 5, 10, 15 of 50: observed 35/50 = 0.7; the one says right 25 times, the other 30 times, so expected
    are 0.5 * 0.6 + 0.5 * 0.4 = 0.5; kappa = 0.2 / 0.5 = 0.4.
    """
    found = agreement(*marks(20, 5, 10, 15), **FAST)[0]
    assert (found.both, found.judge_only, found.people_only, found.neither) == (20, 5, 10, 15)
    assert (found.pictures, found.type) == (50, "all")
    assert found.accuracy == pytest.approx(0.7) and found.kappa == pytest.approx(0.4)


@pytest.mark.parametrize("cells", [(3, 1, 2, 9), (1, 7, 0, 2), (0, 5, 5, 0), (12, 0, 0, 4), (0, 0, 3, 3)])
def test_kappa_is_agreement_beyond_that_of_all_pairs(cells):
    pair = marks(*cells)
    assert agreement(*pair, **FAST)[0].kappa == pytest.approx(kappa_by_pairs(*pair), abs=1e-12)


@pytest.mark.parametrize("cells", [(5, 0, 0, 0), (0, 0, 0, 5)])
def test_kappa_is_not_defined_where_all_marks_are_the_same(cells):
    found = agreement(*marks(*cells), **FAST)[0]
    assert found.kappa is None and found.accuracy == 1 and found.kappa_interval.low is None
    assert "not defined" in agreement_table((found,)) and "both call all pictures right" in agreement_table(
        (found,)
    )
    assert math.isnan(kappa_of_shares(np.array(cells) / 5))


def test_types_are_told_apart_and_together():
    judge, people = (a | b for a, b in zip(marks(4, 1, 1, 4, "c"), marks(9, 0, 3, 2, "n"), strict=True))
    types = {name: {"c": "Color", "n": "Counting"}[name[0]] for name in people}
    color, counting, every = agreement(judge, people, types, **FAST)
    assert [one.type for one in (color, counting, every)] == ["Color", "Counting", "all"]
    assert (color.both, counting.both, every.both) == (4, 9, 13)
    assert every.pictures == color.pictures + counting.pictures == 24
    assert every.kappa == pytest.approx(kappa_by_pairs(judge, people))


def test_what_people_did_not_mark_is_left_out_and_what_the_judge_did_not_is_told():
    judge, people = marks(3, 1, 1, 3)
    more = {**judge, "never shown": True}
    assert agreement(more, people, **FAST) == agreement(judge, people, **FAST)
    del judge["p1"]
    with pytest.raises(
        ValueError, match="1 of the 8 pictures that people marked have no mark of the judge.*'p1'"
    ):
        agreement(judge, people)
    with pytest.raises(ValueError, match="8 of the 8 pictures .* have no type"):
        agreement(more, people, {})
    with pytest.raises(ValueError, match="no marks by people"):
        agreement(judge, {})


def test_a_picture_may_be_named_by_anything():
    """Such as its path and its prompt, as the answers of a marking sheet are."""
    judge, people = marks(6, 2, 1, 7)
    pairs = [{("pictures", name): mark for name, mark in one.items()} for one in (judge, people)]
    assert agreement(*pairs, **FAST) == agreement(judge, people, **FAST)


def test_intervals_are_those_of_a_bootstrap_over_prompts():
    """Pictures of one prompt stand or fall together, so that the interval is that of few prompts."""
    draw = np.random.default_rng(0)
    judge, people, prompts = {}, {}, {}
    for prompt, picture in itertools.product(range(12), range(10)):
        name = f"{prompt}-{picture}"
        people[name], prompts[name] = bool(draw.random() < 0.5), f"p{prompt}"
        judge[name] = people[name] == (prompt % 3 > 0)
    over_prompts = agreement(judge, people, prompts=prompts)[0]
    over_pictures = agreement(judge, people)[0]
    right = [np.mean([judge[n] == people[n] for n in people if prompts[n] == f"p{at}"]) for at in range(12)]
    means = [np.mean(draw.choice(right, 12)) for _ in range(4000)]
    kappas = [kappa_of_draw(draw, judge, people, prompts) for _ in range(600)]
    for interval, samples in ((over_prompts.accuracy_interval, means), (over_prompts.kappa_interval, kappas)):
        assert (interval.low, interval.high) == pytest.approx(np.percentile(samples, [2.5, 97.5]), abs=0.08)
    widths = [one.accuracy_interval.high - one.accuracy_interval.low for one in (over_prompts, over_pictures)]
    assert widths[0] > 2 * widths[1]


def kappa_of_draw(draw, judge, people, prompts) -> float:
    counts = Counter(draw.integers(0, 12, 12).tolist())
    pairs = Counter()
    for name in people:
        pairs[judge[name], people[name]] += counts[int(prompts[name][1:])]
    order = ((True, True), (True, False), (False, True), (False, False))
    return kappa_by_pairs(*marks(*(pairs[key] for key in order)))


def test_one_prompt_alone_has_no_interval():
    judge, people = marks(3, 1, 1, 3)
    found = agreement(judge, people, prompts=dict.fromkeys(people, "p"), **FAST)[0]
    assert found.accuracy_interval.low is None and found.kappa == pytest.approx(0.5)
    assert "needs two prompts or more of each type" in agreement_table((found,))


def test_the_table_says_what_it_is_not():
    judge, people = (a | b for a, b in zip(marks(4, 1, 1, 4, "c"), marks(9, 0, 3, 2, "n"), strict=True))
    types = {name: {"c": "Color", "n": "Counting"}[name[0]] for name in people}
    table = agreement_table(agreement(judge, people, types, **FAST))
    assert NOT_COMPARABLE in table
    row = next(line for line in table.splitlines() if line.startswith("| Counting"))
    assert [cell.strip() for cell in row.split("|")[2:7]] == ["14", "9", "0", "3", "2"]
    assert "78.57% [" in row


def test_against_the_exact_judge_of_the_small_world_a_bad_judge_has_the_errors_it_was_given():
    """A judge that says the opposite for a known share of pictures, measured on drawn scenes."""
    exact, people, judge, types = WorldJudge(), {}, {}, {}
    for type in ("counting", "color", "action"):
        for index, scene in enumerate(some_scenes(type, 30, "agreement")):
            dice = Dice("agreement", type, index)
            asked = scene.meaning if index % 2 else dice.pick(meanings(type))
            name = f"{type}/{index}"
            prompt = EvalPrompt(name, type, "a picture", truth=to_truth(asked))
            people[name] = exact.mark(render(scene), prompt).right
            judge[name] = people[name] != (index % 10 == 0)
            types[name] = type
    assert 0.4 < np.mean(list(people.values())) < 0.6
    for one in agreement(judge, people, types, **FAST):
        assert one.accuracy == pytest.approx(0.9)
        chosen = {name: mark for name, mark in people.items() if one.type in (types[name], "all")}
        assert one.kappa == pytest.approx(kappa_by_pairs(judge, chosen))
