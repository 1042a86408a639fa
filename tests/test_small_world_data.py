"""SURD-Shapes' files: the training set is the same everywhere, and the test prompts share nothing with it."""

import json
import re
from collections import Counter
from hashlib import sha256
from itertools import product

import numpy as np
import pytest
from PIL import Image

from small_world.dataset import (
    TEST_SETS,
    test_prompts,
    training_row,
    unseen_words,
    write_reference,
    write_surd,
)
from small_world.dice import Dice
from small_world.places import PROMPT_SETS
from small_world.prompts import complex_prompt, simple_prompt
from small_world.render import render
from small_world.scenes import TYPES, from_truth, is_held_out, meanings, place
from small_world.sentences import FRAMES, PARTS, sentence_form, sentence_forms
from sur_core.evaluation.prompt_sets import load_prompts
from sur_core.surd import open_surd
from train.__main__ import main

WITH_UNSEEN = {"paper": 23, "large": 150, "final": 150}
FIRST_ROWS = "02f567bd1723167b6b29d106c7d0f03c0de1a2254e00099ed8c63226a9709adb"


@pytest.fixture(scope="module")
def prompts():
    return {name: load_prompts(path) for name, path in PROMPT_SETS.items()}


@pytest.fixture(scope="module")
def training_texts():
    return [training_row(index, 0)[0]["text"] for index in range(6000)]


# --- training set -------------------------------------------------------------------------------------------


def test_the_first_rows_are_the_same_on_every_machine():
    digest = sha256()
    for index in range(60):
        row, draw = training_row(index, 0)
        digest.update(json.dumps(row).encode() + draw().tobytes())
    assert digest.hexdigest() == FIRST_ROWS


def test_it_is_read_as_surd_with_every_row(tmp_path):
    surd = open_surd(write_surd(tmp_path / "surd", 30, 1))
    assert len(surd) == 30 and surd.has_images and not surd.quarantined
    for index, sample in enumerate(surd):
        row, draw = training_row(index, 1)
        assert (sample.simple, sample.complex) == (row["text"], row["prompt"])
        assert np.array_equal(np.asarray(surd.read_image(index)), draw())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_call_writes_the_same_bytes_and_a_longer_set_begins_with_a_shorter(tmp_path):
    first, second = (contents(write_surd(tmp_path / name, 24, 3)) for name in "ab")
    longer = contents(write_surd(tmp_path / "c", 30, 3))
    assert first == second
    assert all(longer[name] == first[name] for name in first if name.endswith(".png"))
    assert longer["metadata.jsonl"].startswith(first["metadata.jsonl"])
    assert first != contents(write_surd(tmp_path / "d", 24, 4))


class Interrupted(Exception):
    pass


def test_a_stopped_call_is_finished_and_a_complete_set_is_kept(tmp_path):
    def stop(what, done, total):
        if done == 10:
            raise Interrupted

    folder = tmp_path / "surd"
    with pytest.raises(Interrupted):
        write_surd(folder, 24, 0, stop)
    assert not (folder / "metadata.jsonl").exists()
    cut = folder / "00002.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    kept = (folder / "00001.png").stat().st_mtime_ns
    write_surd(folder, 24, 0)
    assert contents(folder) == contents(write_surd(tmp_path / "whole", 24, 0))
    assert (folder / "00001.png").stat().st_mtime_ns == kept
    calls = []
    write_surd(folder, 24, 0, lambda *progress: calls.append(progress))
    assert not calls


def test_another_data_set_is_not_overwritten(tmp_path):
    before = contents(write_surd(tmp_path, 12, 0))
    with pytest.raises(ValueError, match="another data set"):
        write_surd(tmp_path, 12, 1)
    assert contents(tmp_path) == before


def test_training_rows_show_no_held_out_combination_and_all_types_equally_often():
    def shown(complex_text):  # its first two keywords name the combination
        return tuple(complex_text.split(", ")[:2])

    held_out, types = set(), {}
    for meaning in (meaning for type in TYPES for meaning in meanings(type)):
        combination = shown(complex_prompt(meaning, Dice(0)))
        types[combination] = meaning.type
        held_out |= {combination} if is_held_out(meaning) else set()
    found = Counter(shown(training_row(index, 0)[0]["prompt"]) for index in range(6000))
    assert len(held_out) == 48 + 2 * 112 + 12 and len(found) > 600 and not found.keys() & held_out
    assert Counter(types[row] for row in found.elements()) == dict.fromkeys(TYPES, 2000)


def test_reference_pictures_show_what_the_prompts_ask_for(tmp_path):
    asked = test_prompts(2)
    folder = write_reference(tmp_path / "reference", asked, each=2, seed=5)
    assert len(list(folder.glob("*.png"))) == 12
    for prompt, number in product(asked, range(2)):
        scene = place(from_truth(prompt.truth), Dice("reference", 5, prompt.id, number))
        picture = np.asarray(Image.open(folder / f"{prompt.id}-{number:02}.png"))
        assert np.array_equal(picture, render(scene))


# --- test prompts -------------------------------------------------------------------------------------------


def test_the_files_in_the_repository_are_what_the_command_writes(tmp_path):
    assert main(["world", "--prompts", str(tmp_path / "again")]) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert written == {path.name: path.read_bytes() for path in PROMPT_SETS.values()}


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_so_many_prompts_of_each_type_no_text_twice(prompts, name):
    per_type = TEST_SETS[name][0]
    assert Counter(prompt.type for prompt in prompts[name]) == dict.fromkeys(TYPES, per_type)
    assert len({prompt.prompt for prompt in prompts[name]}) == 3 * per_type


def test_the_final_set_shares_no_prompt_with_those_that_settings_were_chosen_with(prompts):
    for texts in (lambda prompt: prompt.prompt, lambda prompt: prompt.complex):
        final, large, paper = ({texts(p) for p in prompts[name]} for name in ("final", "large", "paper"))
        assert len(final) > 290 and not final & (large | paper)
    assert set(map(repr, prompts["paper"])) <= set(map(repr, prompts["large"]))


def group(meaning):
    return (
        getattr(meaning, "pose", None)
        or getattr(meaning, "count", None)
        or (meaning.kind, meaning.other_kind)
    )


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_combinations_are_held_out_and_evenly_spread_with_and_without_unseen_words(prompts, name):
    for type in TYPES:
        asked = [prompt for prompt in prompts[name] if prompt.type == type]
        shown = [from_truth(prompt.truth) for prompt in asked]
        assert all(is_held_out(meaning) and meaning.type == type for meaning in shown)
        for parts in (shown, [m for m, p in zip(shown, asked, strict=True) if unseen_words(p.prompt)]):
            often = Counter(map(group, parts))
            assert max(often.values()) - min(often.values()) <= 1, type


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_half_of_the_prompts_have_words_that_no_training_prompt_has(prompts, training_texts, name):
    everything, with_unseen = "\n".join(training_texts), 0
    for prompt in prompts[name]:
        words = unseen_words(prompt.prompt)
        with_unseen += bool(words)
        assert not [word for word in words if re.search(rf"\b{word}s?\b", everything)]
    assert with_unseen == WITH_UNSEEN[name], "about half of them, as the generator says"


def test_unseen_words_are_found_as_they_were_chosen():
    for index in range(2000):
        dice = Dice("unseen", index)
        meaning = dice.pick(meanings(TYPES[index % 3]))
        made = simple_prompt(meaning, dice, "web")
        assert sorted(unseen_words(made.text)) == sorted(made.unseen), made


def as_patterns(type, part):
    """Patterns that match every prompt of the type's forms, and hardly anything else."""
    patterns = []
    for frame in FRAMES[type][part]:
        pattern = re.escape(frame).replace(r"\{\}", ".+")
        for name, words in PARTS[part].items():
            pattern = pattern.replace(f"<{name}>", "(?:" + "|".join(map(re.escape, words)) + ")")
        patterns.append(re.compile(pattern))
    return patterns


def test_no_test_prompt_fits_a_training_form(prompts):
    """So none equals a training prompt, however many of those are made."""
    forms = [pattern for type in TYPES for pattern in as_patterns(type, "train")]
    for prompt in (prompt for asked in prompts.values() for prompt in asked):
        fitting = [form.pattern for form in forms if form.fullmatch(prompt.prompt)]
        assert not fitting, (prompt.prompt, fitting)


def triples(words):
    return set(zip(words, words[1:], words[2:], strict=False))


def carrier_triples(part):
    """Three words in a row between the slots of any form."""
    runs = (run for type in TYPES for form in sentence_forms(type, part) for run in form.split("{}"))
    return {triple for run in set(runs) for triple in triples(run.split())}


def test_no_three_carrier_words_of_a_test_form_stand_in_a_training_form_or_prompt(training_texts):
    """The forms prove it for the carriers of any number of prompts; the prompts show that no phrase in a slot
    makes up the same words either.
    """
    ours, theirs = carrier_triples("test"), carrier_triples("train")
    written = {triple for text in training_texts for triple in triples(text.split())}
    assert len(ours) > 500 and len(theirs) > 500 and len(theirs & written) > 400
    assert not ours & theirs and not ours & written


def test_training_and_test_share_no_part_and_no_frame():
    for name, words in PARTS["train"].items():
        assert not set(words) & set(PARTS["test"][name]), name
    frames = {part: {frame for type in TYPES for frame in FRAMES[type][part]} for part in PARTS}
    assert not frames["train"] & frames["test"]


@pytest.mark.parametrize("type", TYPES)
def test_forms_are_those_that_sentences_are_made_of(type):
    for part in PARTS:
        known = set(sentence_forms(type, part))
        assert len(known) > 500
        assert {sentence_form(type, part, Dice("form", number)) for number in range(300)} <= known


def test_every_test_prompt_fits_a_test_form_and_every_training_prompt_a_training_form(
    prompts, training_texts
):
    for type in TYPES:
        for prompt in (prompt for asked in prompts.values() for prompt in asked if prompt.type == type):
            assert any(form.fullmatch(prompt.prompt) for form in as_patterns(type, "test"))
        patterns = as_patterns(type, "train")
        for text in training_texts[TYPES.index(type) :: 3]:
            assert any(form.fullmatch(text) for form in patterns)
