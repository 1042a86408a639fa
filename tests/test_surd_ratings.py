"""What a source says of a picture's content is understood however it says so; the strictest word counts."""

import json

import pytest

from sur_core.surd_build.civitai import civitai_rows
from sur_core.surd_build.tables import read_rows
from tests.collect_files import collected, facts, kept, kinds, write_png

IMAGE = {"id": 1, "url": "https://image.civitai.com/x/width=450/1.jpeg", "meta": {"prompt": "p"}}


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pictures(folder, *names):
    for seed, name in enumerate(names):
        write_png(folder / name, seed, None)


MARKS = [
    ({"nsfw": True}, "", True),
    ({"nsfw": "true"}, "", True),
    ({"nsfw": " True "}, "", True),
    ({"nsfw": 1}, "", True),
    ({"nsfw": "1"}, "", True),
    ({"nsfw": False}, "", False),
    ({"nsfw": "false"}, "", False),
    ({"nsfw": 0}, "", False),
    ({"nsfw": "Mature"}, "Mature", True),
    ({"nsfw": "None"}, "None", False),
    ({"nsfw": "something new"}, "something new", True),
    ({"nsfw": 16}, "XXX", True),
    ({"nsfw": 8.0}, "X", True),
    ({"nsfwLevel": 0}, "", None),
    ({"nsfwLevel": 1}, "PG", False),
    ({"nsfwLevel": 2}, "PG-13", True),
    ({"nsfwLevel": 4}, "R", True),
    ({"nsfwLevel": "8"}, "X", True),
    ({"nsfwLevel": 16}, "XXX", True),
    ({"nsfwLevel": 32}, "Blocked", True),
    ({"nsfwLevel": 3}, "PG-13", True),
    ({"nsfwLevel": "Soft"}, "Soft", True),
    ({"rating": "Mature"}, "Mature", True),
    ({"rating": " PG "}, "PG", False),
    ({"rating": "five stars"}, "five stars", None),
    ({"rating": 4}, "4", None),
    ({"nsfw": False, "nsfwLevel": "X"}, "X", True),
    ({"nsfw": "X", "nsfwLevel": "None"}, "X", True),
    ({"nsfw": "None", "nsfwLevel": 32}, "Blocked", True),
    ({"nsfw": False, "rating": "Mature"}, "Mature", True),
    ({"nsfw": "Soft", "rating": "XXX"}, "XXX", True),
    ({"nsfw": True, "rating": "PG"}, "PG", True),
    ({"nsfw": True, "rating": "five stars"}, "five stars", True),
    ({"nsfw": None, "nsfwLevel": None, "rating": None}, "", None),
    ({"nsfw": "", "rating": ""}, "", None),
]


@pytest.mark.parametrize(("said", "rating", "nsfw"), MARKS)
def test_every_way_to_mark_a_picture_means_the_same_in_both_kinds_of_table(tmp_path, said, rating, nsfw):
    picture = IMAGE | said
    ((_, _, values),) = civitai_rows({"items": [picture]}, "page")
    assert (values["rating"], values["nsfw"]) == (rating, nsfw)
    table = lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "prompt": "p", **said})
    ((_, _, values),) = read_rows(table)
    assert (values.get("rating", ""), values.get("nsfw")) == (rating, nsfw)


@pytest.mark.parametrize(
    "said", [{"nsfw": []}, {"nsfw": 0.3}, {"nsfwLevel": -1}, {"nsfw": {"level": 1}}, {"rating": ["X"]}]
)
def test_a_mark_that_nobody_understands_puts_its_row_aside(tmp_path, said):
    table = lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "prompt": "p", **said})
    for (found,) in (read_rows(table), civitai_rows({"items": [IMAGE | said]}, "page")):
        assert found.kind == "wrong type" and next(iter(said)) in found.reason


def test_pictures_marked_in_any_way_are_dropped_when_asked(tmp_path):
    marked = [said for said, _, nsfw in MARKS if nsfw]
    names = [f"{number:02}.png" for number in range(len(marked))]
    pictures(tmp_path, *names, "good.png")
    rows = [{"file_name": name, "prompt": "p"} | said for name, said in zip(names, marked, strict=True)]
    table = lines(tmp_path / "metadata.jsonl", *rows, {"file_name": "good.png", "prompt": "p"})
    manifest, _ = collected(tmp_path / "work", table, name="t", drop_nsfw=True)
    assert kept(manifest) == ["t/good.png"] and set(kinds(manifest).values()) == {"nsfw"}


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_marks_of_one_file_the_strictest_counts(tmp_path, turned):
    """Of two rows, of which the second one adds nothing else, and of row and file."""
    pictures(tmp_path, "a.png", "b.png", "c.png")
    write_png(tmp_path / "d.png", 9, "p", Rating="Mature", NSFW="false")
    rows = [{"file_name": "a.png", "text": "s", "prompt": "p", "rating": "PG"}]
    rows += [{"file_name": "a.png", "text": "s", "prompt": "p", "nsfw": "X"}]
    rows += [{"file_name": "b.png", "text": text, "prompt": "p", "nsfw": text == "t"} for text in "st"]
    rows += [{"file_name": "c.png", "text": "s", "nsfw": True}, {"file_name": "c.png", "prompt": "p"}]
    rows += [{"file_name": "d.png", "text": "s", "rating": "PG", "nsfw": False}]
    table = lines(tmp_path / "metadata.jsonl", *(reversed(rows) if turned else rows))
    manifest, _ = collected(tmp_path / "work", table, name="t")
    found = {name: facts(manifest, f"t/{name}.png") for name in "abcd"}
    marks = {name: (record["rating"], record["nsfw"]) for name, record in found.items()}
    assert marks == {"a": ("X", True), "b": ("", True), "c": ("", True), "d": ("Mature", True)}


@pytest.mark.parametrize(
    ("texts", "marks"),
    [
        ({"Rating": "Mature"}, ("Mature", True)),
        ({"Rating": "X", "NSFW": "false"}, ("X", True)),
        ({"NSFW": "Soft"}, ("Soft", True)),
        ({"NSFW": "1"}, ("", True)),
        ({"NSFW": "0"}, ("", False)),
        ({"Rating": "PG"}, ("PG", False)),
        ({"Rating": "4"}, ("4", None)),
        ({}, ("", None)),
    ],
)
def test_marks_in_a_picture_itself_are_understood_as_those_of_a_table(tmp_path, texts, marks):
    write_png(tmp_path / "pics" / "a.png", 1, "p", **texts)
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics", drop_nsfw=True)
    record = facts(manifest, "pics/a.png")
    assert (record["rating"], record["nsfw"]) == marks
    assert kinds(manifest) == ({"pics/a.png": "nsfw"} if marks[1] else {})
