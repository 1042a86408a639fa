"""SURD-Shapes as files: a training set in SURD's layout, pictures to compare with, and the test prompts.

Training and test share no combination of what is shown and no sentence form, and half of the test prompts
have words that no training prompt has.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sur_core.atomic import atomic_write
from sur_core.evaluation.pictures import UNFINISHED, is_whole, write_picture
from sur_core.evaluation.prompt_sets import EvalPrompt, write_prompts

from .dice import Dice
from .places import PROMPT_SETS
from .prompts import complex_prompt, simple_prompt
from .render import render
from .scenes import TYPES, Action, Counting, Meaning, from_truth, is_held_out, meanings, place, to_truth
from .words import (
    AS_MANY_AS,
    COLOR_OF,
    COLOR_WORDS,
    DOING,
    KIND_WORDS,
    NUMBER_WORDS,
    PEOPLE,
    POSE_WORDS,
)

ROWS = 6000
METADATA = "metadata.jsonl"
TEST_SETS = {"paper": (15, 0), "large": (100, 0), "final": (100, 1)}  # prompts of each type, and a seed
Report = Callable[[str, int, int], None]


def training_row(index: int, seed: int) -> tuple[dict[str, str], Callable[[], np.ndarray]]:
    """Row ``index`` of the training set ``seed`` as SURD's table has it, and what draws its picture.

    A row depends on nothing but these two numbers; a longer set begins with a shorter one.
    """
    dice = Dice("surd", seed, index)
    meaning = dice.pick(_TRAINING[TYPES[index % len(TYPES)]])
    row = {
        "file_name": f"{index:05}.png",
        "text": simple_prompt(meaning, dice, "train").text,
        "prompt": complex_prompt(meaning, dice),
    }
    return row, lambda: render(place(meaning, dice))


def write_surd(
    folder: str | os.PathLike, count: int = ROWS, seed: int = 0, report: Report = lambda *_: None
) -> Path:
    """Write a training set in SURD's layout: PNGs and ``metadata.jsonl``, the types in equal shares.

    What a stopped call left is finished; a complete set is kept. The table is written last.

    Raises:
        ValueError: ``folder`` holds another data set.
        OSError: something cannot be written.
    """
    rows = [training_row(index, seed) for index in range(count)]
    pictures = [(row["file_name"], draw) for row, draw in rows]
    return _write_folder(Path(folder), [row for row, _ in rows], pictures, report)


def write_reference(
    folder: str | os.PathLike,
    prompts: Sequence[EvalPrompt],
    each: int = 10,
    seed: int = 0,
    report: Report = lambda *_: None,
) -> Path:
    """True pictures of what ``prompts`` ask for, ``each`` for every one: what drawn pictures should be like.

    They are called ``<prompt id>-<number>.png``, by which an evaluation knows whose they are.

    Errors as :func:`write_surd`.
    """
    rows, pictures = [], []
    for prompt in prompts:
        meaning = from_truth(prompt.truth)
        for number in range(each):
            scene = place(meaning, Dice("reference", seed, prompt.id, number))
            rows.append({"file_name": f"{prompt.id}-{number:02}.png", "text": prompt.complex})
            pictures.append((rows[-1]["file_name"], lambda scene=scene: render(scene)))
    return _write_folder(Path(folder), rows, pictures, report)


def _write_folder(folder: Path, rows: list[dict], pictures: list, report: Report) -> Path:
    table = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")
    path = folder / METADATA
    if path.is_file():
        if path.read_bytes() != table:
            raise ValueError(
                f"{path}: the folder holds another data set (other rows, another seed, or one of an older "
                "version). Choose another folder, or delete this one"
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(UNFINISHED):
        left.unlink(missing_ok=True)
    for done, (name, draw) in enumerate(pictures, start=1):
        if not is_whole(folder / name):
            write_picture(folder / name, draw(), compress_level=1)
        report("pictures", done, len(pictures))
    with atomic_write(path) as file:
        file.write(table)
    return folder


# --- test prompts -------------------------------------------------------------------------------------------


def test_prompts(per_type: int, seed: int = 0) -> list[EvalPrompt]:
    """Prompts about held-out combinations in test forms, no text twice; half of them have unseen words.

    Combinations are taken in turn, so that counts, pairs of kinds and poses occur equally often, and each of
    them with unseen words as often as without. A prompt's ``truth`` is
    :func:`~small_world.scenes.to_truth` of its meaning. A smaller set of a seed is the beginning, type by
    type, of a larger one.
    """
    prompts, texts = [], set()
    for type in TYPES:
        ordered, groups = _in_turn(type, Dice("test order", seed, type))
        for number in range(per_type):
            meaning = ordered[number % len(ordered)]
            dice = Dice("test", seed, type, number)
            # By place, round and cycle: else some counts and poses would always have unseen words.
            unseen = (number % groups + number // groups + number // len(ordered)) % 2 == 0
            while True:
                simple = simple_prompt(meaning, dice, "test")
                if bool(simple.unseen) == unseen and simple.text not in texts:
                    break
            texts.add(simple.text)
            id, wish = f"{type}-{number:03}", complex_prompt(meaning, dice)
            prompts.append(EvalPrompt(id, type, simple.text, wish, to_truth(meaning)))
    return prompts


def write_prompt_sets(folder: str | os.PathLike) -> list[Path]:
    """Write the test prompts that the repository keeps into ``folder``, and return the files.

    OSError if one cannot be written.
    """
    paths = [Path(folder) / PROMPT_SETS[name].name for name in TEST_SETS]
    for path, (per_type, seed) in zip(paths, TEST_SETS.values(), strict=True):
        write_prompts(path, test_prompts(per_type, seed))
    return paths


test_prompts.__test__ = False  # to pytest, its name is a test's


def unseen_words(text: str) -> tuple[str, ...]:
    """The words in a simple prompt that no training triplet shows, in the order they stand in."""
    return tuple(match[0] for match in _UNSEEN.finditer(text))


def _in_turn(type: str, dice: Dice) -> tuple[list[Meaning], int]:
    """The held-out meanings of a type, group after group in rounds; and how many groups there are."""
    groups = defaultdict(list)
    for meaning in dice.shuffled(_HELD_OUT[type]):
        groups[_group(meaning)].append(meaning)
    waiting, result = dice.shuffled(list(groups.values())), []
    while waiting:
        result += [group.pop() for group in waiting]
        waiting = [group for group in waiting if group]
    return result, len(groups)


def _group(meaning: Meaning):
    if isinstance(meaning, Counting):
        return meaning.count
    return meaning.pose if isinstance(meaning, Action) else (meaning.kind, meaning.other_kind)


def _unseen_pattern() -> re.Pattern:
    tables = (COLOR_WORDS, COLOR_OF, KIND_WORDS, NUMBER_WORDS, AS_MANY_AS, POSE_WORDS, DOING)
    words = [*PEOPLE[1], *(word for table in tables for _, unseen in table.values() for word in unseen)]
    # Longest first: a phrase before a word that begins it. Nouns may stand in the plural.
    return re.compile(
        r"\b(?:" + "|".join(sorted(map(re.escape, words), key=len, reverse=True)) + r")(?=s?\b)"
    )


_UNSEEN = _unseen_pattern()
_HELD_OUT = {type: [meaning for meaning in meanings(type) if is_held_out(meaning)] for type in TYPES}
_TRAINING = {type: [meaning for meaning in meanings(type) if not is_held_out(meaning)] for type in TYPES}
