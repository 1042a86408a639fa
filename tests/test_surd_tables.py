"""Prompts that stand in a table, the authors' or Civitai's, and the picture files they are about."""

import json

import pytest

from sur_core.surd_build.civitai import civitai_rows
from sur_core.surd_build.manifest import SurdBuildError
from sur_core.surd_build.review.book import Book
from sur_core.surd_build.samples import read_samples
from sur_core.surd_build.tables import read_rows
from sur_core.surd_quarantine import read_quarantine
from sur_core.surd_rows import Quarantined
from tests.collect_files import collected, facts, kept, kinds, samples, write_png

ONE, TWO = "dd9b038c-bd15-43ab-86ab-66e145ad7ff2", "1c1d4f13-21b0-4068-acd0-51a3ec1c18bc"
URL = "https://image.civitai.com/xG1nkqKTMzGDvpLrqFT7WA/{}/width=450/{}.jpeg"


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def document(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(value) for value in values))
    return path


def left_out(work, source):
    return {
        name: reason.partition(":")[0]
        for name, reason in read_quarantine(work / "skipped" / f"{source}.jsonl").items()
    }


def pictures(folder, *names, prompt=None):
    for seed, name in enumerate(names):
        write_png(folder / name, seed, prompt)
    return folder


def brief(manifest):
    return {key: (entry.get("simple"), entry["complex"]) for key, entry in samples(manifest).items()}


# --- the authors' -------------------------------------------------------------------------------------------


def test_the_authors_layout_is_read_as_they_published_it(tmp_path):
    """Names without an ending, pictures in ``image`` beside the folder of the tables."""
    pictures(tmp_path / "image", f"{ONE}.png", f"{TWO}.png")
    table = lines(
        tmp_path / "data" / "metadata.jsonl",
        {"file_name": ONE, "text": "a woman in black", "prompt": "cyborg, (beautiful eyes: 1.2)"},
        {"file_name": TWO, "text": "a woman in white", "prompt": "1girl, angel"},
    )
    manifest, summary = collected(tmp_path / "work", table)
    assert brief(manifest) == {
        f"data/{ONE}.png": ("a woman in black", "cyborg, beautiful eyes"),
        f"data/{TWO}.png": ("a woman in white", "1girl, angel"),
    }
    assert summary.metadata == {"table": 2}
    again, summary = collected(tmp_path / "again", table.parent)
    assert brief(again) == brief(manifest)


def test_the_authors_list_of_prompts_is_read(tmp_path):
    pictures(tmp_path / "image", f"{ONE}.png", f"{TWO}.png")
    items = [
        {"url": URL.format(name, n), "prompt": f"p {n}", "negativePrompt": "BadDream", "image_name": name}
        for n, name in enumerate((ONE, TWO))
    ]
    about = {"totalItems": 2, "imageItems": 2, "repetitionItems": 2, "ReDupItems": 2}
    table = document(tmp_path / "data" / "data.json", {"metadata": about, "items": items})
    manifest, _ = collected(tmp_path / "work", table)
    assert brief(manifest) == {f"data/{ONE}.png": (None, "p 0"), f"data/{TWO}.png": (None, "p 1")}
    record = facts(manifest, f"data/{ONE}.png")
    assert (record["metadata"], record["negative"]) == ("table", "BadDream")
    assert record["origin"] == URL.format(ONE, 0)


def test_lists_of_captions_become_further_samples(tmp_path):
    pictures(tmp_path, "a.png", "b.png", "c.png")
    table = lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.png", "text": ["a cat", "a pet"], "prompt": "long a"},
        {"file_name": "b.png", "text": ["x", "y"], "prompt": ["long x", "long y"]},
        {"file_name": "c.png", "text": "first", "prompt": "long c"},
        {"file_name": "c.png", "text": "second", "prompt": "long c"},
    )
    manifest, _ = collected(tmp_path / "work", table, name="t")
    assert brief(manifest) == {
        "t/a.png": ("a cat", "long a"),
        "t/a.png#2": ("a pet", "long a"),
        "t/b.png": ("x", "long x"),
        "t/b.png#2": ("y", "long y"),
        "t/c.png": ("first", "long c"),
        "t/c.png#2": ("second", "long c"),
    }
    lines(table, {"file_name": "a.png", "text": "a cat", "prompt": "long a"})
    manifest, summary = collected(tmp_path / "work", table, name="t")
    assert brief(manifest) == {"t/a.png": ("a cat", "long a")} and summary.gone == 2


def test_what_else_a_row_says_is_carried_along(tmp_path):
    pictures(tmp_path, "a.png", "b.png", prompt="from the file")
    table = lines(
        tmp_path / "metadata.jsonl",
        {
            "file_name": "a.png",
            "prompt": "from the row",
            "negative_prompt": "bad",
            "license": "CC0",
            "source": "http://here",
            "rating": "Mature",
            "nsfw": True,
        },
        {"file_name": "b.png", "text": "a caption alone"},
    )
    manifest, _ = collected(tmp_path / "work", table, name="t", drop_nsfw=True)
    record = facts(manifest, "t/a.png")
    assert [record[key] for key in ("prompt", "negative", "license", "origin", "rating", "nsfw")] == [
        "from the row",
        "bad",
        "CC0",
        "http://here",
        "Mature",
        True,
    ]
    assert kinds(manifest) == {"t/a.png": "nsfw"}
    assert brief(manifest)["t/b.png"] == ("a caption alone", "from the file")
    assert facts(manifest, "t/b.png")["metadata"] == "automatic1111"


def test_rows_that_cannot_be_used_are_listed_and_the_others_are_used(tmp_path):
    pictures(tmp_path, "a.png", "b.png", "b.jpg", "sub/c.png", "other/c.png")
    table = lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.png", "text": "s", "prompt": "good"},
        {"file_name": "a.png", "text": "s", "prompt": "good"},
        {"file_name": "../a.png", "text": "s", "prompt": "outside"},
        {"file_name": "b", "text": "s", "prompt": "which one"},
        {"file_name": "c.png", "text": "s", "prompt": "which folder"},
        {"file_name": "nowhere.png", "text": "s", "prompt": "gone"},
        {"file_name": "b.png", "text": ["s", ""], "prompt": "empty caption"},
        {"file_name": "b.jpg", "text": "s", "prompt": ["1", "2", "3"], "text2": 1},
        {"file_name": "sub\\c.png", "text": "s", "prompt": "from Windows"},
        {"file_name": 3, "text": "s", "prompt": "p"},
        {"text": "s", "prompt": "no name"},
        '{"file_name": "b.png", "text": "s", "prompt": "half \\ud800"}',
        "{broken",
        "[1]",
    )
    manifest, summary = collected(tmp_path / "work", table, name="t")
    assert {key for key in kept(manifest)} == {"t/a.png", "t/b.jpg", "t/b.jpg#2", "t/b.jpg#3", "t/sub/c.png"}
    told = [(entry.place, entry.kind) for entry in summary.found[0].skipped]
    assert sorted(told, key=lambda pair: int(pair[0].partition(":")[2])) == [
        ("metadata.jsonl:2", "repeated row"),
        ("metadata.jsonl:3", "missing image"),
        ("metadata.jsonl:4", "ambiguous image"),
        ("metadata.jsonl:5", "ambiguous image"),
        ("metadata.jsonl:6", "missing image"),
        ("metadata.jsonl:7", "empty prompt"),
        ("metadata.jsonl:10", "wrong type"),
        ("metadata.jsonl:11", "missing image"),
        ("metadata.jsonl:12", "not UTF-8"),
        ("metadata.jsonl:13", "broken JSON"),
        ("metadata.jsonl:14", "wrong type"),
    ]
    assert left_out(tmp_path / "work", "t")["nowhere.png"] == "missing image"


def test_only_files_whose_rows_have_changed_are_read_again(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    rows = [{"file_name": f"{n}.png", "text": "s", "prompt": f"long {n}"} for n in "ab"]
    table = lines(tmp_path / "metadata.jsonl", *rows)
    collected(tmp_path / "work", table, name="t")
    lines(table, rows[1], rows[0] | {"text": "other"})
    manifest, summary = collected(tmp_path / "work")
    assert summary.outcome.done == 1 and brief(manifest)["t/a.png"] == ("other", "long a")


# --- Civitai's ----------------------------------------------------------------------------------------------


def image(number, uuid=None, prompt="a prompt", **more):
    meta = None if prompt is None else {"prompt": prompt, "negativePrompt": "bad", "steps": 20, "cfgScale": 7}
    return {
        "id": number,
        "url": URL.format(uuid or f"u{number}", number),
        "nsfw": "None",
        "meta": meta,
        **more,
    }


def models(*images, **more):
    about = {"allowNoCredit": True, "allowCommercialUse": "Rent", "nsfw": False, **more}
    version = {"id": 5, "name": "8", "images": list(images)}
    return {"items": [{"id": 1, "name": "a model", **about, "modelVersions": [version]}], "metadata": {}}


def test_saved_pages_of_both_kinds_one_after_another_are_read(tmp_path):
    pictures(tmp_path / "pics", "7.jpeg.png", f"{ONE}.png", "9.png", "sub/10.jpg", "11.png")
    table = document(
        tmp_path / "pages.json",
        models(image(8, ONE, "by uuid"), image(9, prompt="by id")),
        {"items": [image(10, prompt="of the images api"), image(11, prompt=None)], "metadata": {}},
    )
    manifest, summary = collected(tmp_path / "work", table, images=tmp_path / "pics")
    assert {key: text for key, (_, text) in brief(manifest).items()} == {
        f"pages/{ONE}.png": "by uuid",
        "pages/9.png": "by id",
        "pages/sub/10.jpg": "of the images api",
        "pages/11.png": "",
    }
    assert kinds(manifest) == {"pages/11.png": "no prompt"}
    record = facts(manifest, "pages/9.png")
    assert (record["metadata"], record["negative"]) == ("civitai", "bad")
    assert (
        record["parameters"]["steps"] == 20
        and "allowCommercialUse=Rent" in (record["parameters"]["model_permissions"])
    )
    assert record["origin"].endswith("/u9/width=450/9.jpeg")
    collected(tmp_path / "work", table)
    assert facts(manifest, "pages/9.png") == record, "where the images lie is remembered"


def test_every_row_without_a_file_is_listed(tmp_path):
    pictures(tmp_path / "images", "1.png")
    rows = [image(1), image(2), image(1, prompt="again"), image(3, type="video"), {"meta": {"prompt": "p"}}]
    table = document(tmp_path / "civitai" / "page.json", {"items": rows})
    manifest, _ = collected(tmp_path / "work", table)
    assert kept(manifest) == ["page/1.png"]
    assert sorted(left_out(tmp_path / "work", "page").values()) == [
        "missing image",
        "missing image",
        "not an image",
        "repeated row",
    ]


@pytest.mark.parametrize("shape", ["pages", "list", "lines", "items in lines", "one model"])
def test_however_the_answers_were_saved(tmp_path, shape):
    pictures(tmp_path, "1.png", "2.png")
    pages = [models(image(1)), {"items": [image(2)]}]
    table = tmp_path / ("all.jsonl" if "lines" in shape else "all.json")
    if shape == "list":
        document(table, pages)
    elif shape == "one model":
        document(table, models(image(1), image(2))["items"][0])
    elif shape == "items in lines":
        lines(table, image(1), image(2))
    else:
        document(table, *pages)
    manifest, _ = collected(tmp_path / "work", table)
    assert kept(manifest) == ["all/1.png", "all/2.png"]


@pytest.mark.parametrize(
    ("said", "model", "rating", "nsfw"),
    [
        ({"nsfw": "None"}, {}, "None", False),
        ({"nsfw": "Soft"}, {}, "Soft", True),
        ({"nsfw": "X"}, {}, "X", True),
        ({"nsfw": True, "nsfwLevel": "Mature"}, {}, "Mature", True),
        ({"nsfw": False, "nsfwLevel": "None"}, {}, "None", False),
        ({"nsfwLevel": 1}, {}, "PG", False),
        ({"nsfwLevel": 2}, {}, "PG-13", True),
        ({"nsfwLevel": 4}, {}, "R", True),
        ({"nsfwLevel": 16}, {}, "XXX", True),
        ({"nsfwLevel": 28}, {}, "XXX", True),
        ({}, {"nsfw": True}, "", True),
        ({}, {}, "", None),
    ],
)
def test_ratings_are_carried_in_the_words_of_the_source(said, model, rating, nsfw):
    picture = {key: value for key, value in image(1).items() if key != "nsfw"} | said
    page = models(picture)
    page["items"][0] = {key: value for key, value in page["items"][0].items() if key != "nsfw"} | model
    ((_, _, values),) = civitai_rows(page, "page")
    assert (values["rating"], values["nsfw"]) == (rating, nsfw)


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        ({"source": "http://s"}, "http://s"),
        ({"source": "a name", "origin": "http://o"}, "http://o"),
        ({"source": "a name", "url": "http://u"}, "http://u"),
        ({"url": "http://u", "origin": "http://o"}, "http://o"),
    ],
)
def test_what_is_called_the_origin_counts_before_what_is_called_the_source(tmp_path, said, origin):
    table = lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "prompt": "p", **said})
    ((_, _, values),) = read_rows(table)
    assert values["origin"] == origin


def test_a_decision_stays_with_its_caption_when_the_rows_are_sorted_anew(tmp_path):
    pictures(tmp_path, "a.png")
    rows = [{"file_name": "a.png", "text": text, "prompt": "long"} for text in ("a cat", "a pet", "a dog")]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]):
        table = lines(tmp_path / "metadata.jsonl", *(rows[number] for number in order))
        manifest, _ = collected(tmp_path / "work", table, name="t")
        if order == [0, 1, 2]:
            wrong = next(sample.id for sample in read_samples(manifest) if sample.simple == "a dog")
            with Book(tmp_path / "work", "ann") as book:
                book.act(wrong, "drop", "mark-0001")
        found = {sample.simple: sample.dropped[:1] for sample in read_samples(manifest)}
        assert found == {"a cat": (), "a pet": (), "a dog": ("review",)}


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "text",
        [],
        {},
        {"items": None},
        {"items": [None, 3, [], "x"]},
        {"items": [{"modelVersions": [3]}]},
    ]
    + [{"items": [{"modelVersions": [{"images": [None, 3]}]}]}, {"items": [{"id": 1, "stats": {}}]}],
)
def test_strange_json_has_no_rows(value):
    assert list(civitai_rows(value, "page")) == []


@pytest.mark.parametrize(
    "row", [{"id": 1, "meta": [1]}, {"id": [1], "url": 3, "meta": {"prompt": 4}}, {"url": "", "meta": {}}]
)
def test_strange_rows_are_put_aside_or_have_no_prompt(row):
    for found in civitai_rows({"items": [row]}, "page"):
        assert isinstance(found, Quarantined) or found[2]["prompt"] == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", "not readable as JSON"),
        ("a.json", "[" * 100_000, "not readable as JSON"),
        ("a.json", "3", "no rows found"),
        ("a.json", "", "no rows found"),
        ("a.jsonl", "\n", "no rows found"),
        ("a.json", b"\xff\xfe{}", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_words(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SurdBuildError, match=f"{name}.*{words}"):
        collected(tmp_path / "work", path)
    assert not (tmp_path / "work" / "manifest.jsonl").exists()
