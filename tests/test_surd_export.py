"""`python -m train surd export` writes the kept samples for training, with a card, and touches no other."""

import json
import random

import numpy as np
import pytest
import yaml
from PIL import Image

from sur_core.images import decode_image, fit_image
from sur_core.surd import open_surd
from sur_core.surd_build import export_parquet
from sur_core.surd_build.export import Exported, ExportSettings, export
from sur_core.surd_build.manifest import SurdBuildError
from sur_core.surd_build.review.book import Book
from tests.surd_files import encoded, pairs, picture
from tests.surd_works import Work, gradient
from train.__main__ import main

SMALL = ExportSettings(resolution=16)
STRANGE = "“猫”, \"q\" 'p' \\ \\n\n\ttab\r\n\u2028 \x00\x0b é e\u0301 🐈\u200d⬛ </s> {{x}} #, | --- |"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def work(tmp_path) -> Work:
    made, draw = Work(tmp_path, "mine"), random.Random(1)
    for number in range(6):
        made.add(
            f"{number}.png",
            gradient(draw, (24, 36)),
            f"complex {number}",
            f"simple {number}",
            score=0.5 + number / 20,
            license="CC0-1.0",
        )
    made.add("waits.png", gradient(draw, (24, 24)), "no caption yet")
    made.add("small.png", picture(9), "x", "y", dropped="too small: 12 x 8")
    made.add("rule.png", gradient(draw, (24, 24)), "x", "y", score=0.1, rule="lower CLIP score: 0.1")
    made.manifest()
    return made


def run(made: Work, out, settings=SMALL, **options) -> Exported:
    return export(made.manifest(), out, settings, **options)


def state(folder) -> dict[str, tuple[bytes, int]]:
    """{file: (content, time of change)} of all but the hidden index."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".surd-export" not in path.parts
    }


def rows_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("layout", ["authors", "parquet", "both"])
def test_training_reads_the_kept_samples_and_check_finds_nothing_wrong(work, tmp_path, layout, capsys):
    done = run(work, tmp_path / "out", ExportSettings(16, layout=layout))
    assert done.finished and done.rows == 6
    assert done.others == {"no simple prompt yet": 1, "left out by select": 1, "left out by clean": 1}
    surd = open_surd(tmp_path / "out")
    found = sorted((sample.simple, sample.complex) for sample in surd)
    assert found == [(f"simple {n}", f"complex {n}") for n in range(6)]
    assert surd.quarantined == []
    assert all(surd.read_image(index).size == (16, 16) for index in range(6))
    assert main(["check", str(tmp_path / "out"), "--resolution", "16"]) == 0
    said = capsys.readouterr().out
    assert "usable samples: 6 (6 with image, 0 without)" in said
    assert "rows left out: 0" in said


@pytest.mark.parametrize("layout", ["authors", "parquet", "both"])
def test_the_hubs_library_reads_it_with_its_card(work, tmp_path, layout):
    import datasets

    run(work, tmp_path / "out", ExportSettings(16, layout=layout))
    data = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert sorted(data["text"]) == [f"simple {n}" for n in range(6)]
    assert data[0]["image"].size == (16, 16)
    assert set(data[0]) >= {"prompt", "id", "simple_score", "license", "source"}


@pytest.mark.parametrize("layout", ["authors", "parquet"])
@pytest.mark.parametrize(
    "text", [STRANGE, "x" * 10_000, "- a: [b]", "null", "1", "Negative prompt: x\nSteps: 3"]
)
def test_texts_are_exactly_those_of_the_manifest(tmp_path, layout, text):
    made = Work(tmp_path)
    made.add("a.png", picture(1), text, f"s {text} s")
    run(made, tmp_path / "out", ExportSettings(8, layout=layout))
    ((_, simple, complex_),) = pairs(open_surd(tmp_path / "out"))
    assert simple == f"s {text} s"
    assert complex_ == text.strip()  # reading takes outer white space off


def test_edited_counts_before_given_and_given_before_captioned(tmp_path):
    made = Work(tmp_path)
    made.add("1.png", picture(1), "c1", "captioned 1")
    made.add("2.png", picture(2), "c2", "captioned 2", given="given 2")
    edited = made.add("3.png", picture(3), "c3", "captioned 3", given="given 3")
    made.manifest()
    with Book(made.folder, "ann") as book:
        book.act(edited, "edit", "mark-0001", simple="edited 3", complex="edited c3")
    run(made, tmp_path / "out")
    assert sorted((row["text"], row["prompt"]) for row in rows_of(tmp_path / "out")) == [
        ("captioned 1", "c1"),
        ("edited 3", "edited c3"),
        ("given 2", "c2"),
    ]


def test_a_person_decides_above_the_rule(work, tmp_path):
    ids = {record["id"]: key for key, record in work.manifest().records("select").items()}
    names = {key: id for id, key in ids.items()}
    with Book(work.folder, "ann") as book:
        book.act(names["mine/rule.png"], "keep", "mark-0001")
        book.act(names["mine/0.png"], "drop", "mark-0002")
    done = run(work, tmp_path / "out")
    found = {row["id"] for row in rows_of(tmp_path / "out")}
    assert names["mine/rule.png"] in found and names["mine/0.png"] not in found
    assert done.others["left out by review"] == 1


def test_several_captions_of_one_picture_become_rows_of_their_own(tmp_path):
    made, image = Work(tmp_path), encoded(picture(1))
    made.add("a.png", image, "c", "one")
    made.add("a.png", image, "c", "two", number=2)
    run(made, tmp_path / "out")
    assert [row["text"] for row in rows_of(tmp_path / "out")] == ["one", "two"]
    assert len(open_surd(tmp_path / "out")) == 2


@pytest.mark.parametrize("crop", ["center", "squash"])
def test_pixels_are_those_of_training_and_metadata_stays_behind(tmp_path, crop):
    made, draw = Work(tmp_path), random.Random(3)
    made.add("a.png", gradient(draw, (40, 24)), "my secret prompt", "a")
    run(made, tmp_path / "out", ExportSettings(16, crop))
    (row,) = rows_of(tmp_path / "out")
    path = tmp_path / "out" / row["file_name"]
    original = (made.images / "a.png").read_bytes()
    assert b"secret" in original and b"secret" not in path.read_bytes()
    with Image.open(path) as image:
        assert not image.info
        wanted = fit_image(decode_image(original, "a"), 16, crop).pixels
        assert np.array_equal(np.asarray(image), wanted)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("wanted", ["png", "jpg", "webp", "original"])
def test_formats_are_what_was_asked_for_and_sizes_stay_with_resolution_0(tmp_path, kind, wanted):
    made, suffix = Work(tmp_path), {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "png"}[kind]
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "my secret prompt", 6  # description; lies on its side
    options = {"exif": exif} if kind != "BMP" else {}
    data = encoded(gradient(random.Random(4), (20, 12)), kind, **options)
    made.add("a", data, "c", "s", format=kind)
    run(made, tmp_path / "out", ExportSettings(0, image_format=wanted))
    (row,) = rows_of(tmp_path / "out")
    path = tmp_path / "out" / row["file_name"]
    assert path.suffix == f".{suffix if wanted == 'original' else wanted}"
    assert b"secret" not in path.read_bytes()
    with Image.open(path) as image:
        assert image.size == ((20, 12) if kind == "BMP" else (12, 20))
        assert not image.getexif()
        difference = np.asarray(image.convert("RGB"), int) - np.asarray(decode_image(data, "a"), int)
        assert np.abs(difference).mean() < (1 if path.suffix == ".png" else 12)


@pytest.mark.parametrize("layout", ["authors", "parquet", "both"])
def test_done_again_nothing_is_written(work, tmp_path, layout):
    settings = ExportSettings(16, layout=layout)
    run(work, tmp_path / "out", settings)
    before = state(tmp_path / "out")
    done = run(work, tmp_path / "out", settings)
    assert state(tmp_path / "out") == before
    assert (done.made, done.removed, done.kept) == (0, 0, len(before))


def test_only_what_changed_is_written_and_only_what_the_export_made_is_removed(work, tmp_path):
    out = tmp_path / "out"
    run(work, out)
    own = out / "images" / "my-notes.txt"
    own.write_text("mine")
    before = state(out)
    draw = random.Random(7)
    new = work.add("new.png", gradient(draw, (30, 30)), "complex new", "simple new")
    old = rows_of(out)[0]
    work.record(**{**work.manifest().record("rule", old["id"]), "dropped": "low CLIP score: 0.1"})
    done = run(work, out)
    after = state(out)
    assert before.keys() - after.keys() == {old["file_name"]}
    assert after.keys() - before.keys() == {f"images/{new[:2]}/{new}.png"}
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed == {"metadata.jsonl", "README.md"}
    assert (done.made, done.removed) == (3, 1)
    assert own.read_text() == "mine"


def test_one_edited_prompt_changes_one_shard(work, tmp_path, monkeypatch):
    monkeypatch.setattr(export_parquet, "SHARD_BYTES", 300)
    settings, out = ExportSettings(16, layout="parquet"), tmp_path / "out"
    run(work, out, settings)
    before = {name: content for name, content in state(out).items() if name.endswith(".parquet")}
    assert len(before) > 1
    with Book(work.folder, "ann") as book:
        book.act(next(iter(work.manifest().records("caption"))), "edit", "mark-0001", simple="edited")
    run(work, out, settings)
    after = {name: content for name, content in state(out).items() if name.endswith(".parquet")}
    assert sum(before[name] != after[name] for name in before) == 1
    assert before.keys() == after.keys()
    assert "edited" in {sample.simple for sample in open_surd(out)}
    assert len(open_surd(out)) == 6


def test_another_layout_replaces_the_files_of_the_first(work, tmp_path):
    run(work, tmp_path / "out", ExportSettings(16, layout="both"))
    run(work, tmp_path / "out", ExportSettings(16, layout="parquet"))
    assert {name.partition("/")[0] for name in state(tmp_path / "out")} == {"data", "README.md"}
    assert not (tmp_path / "out" / "images").exists()


@pytest.mark.parametrize("layout", ["authors", "both", "parquet"])
def test_stopped_and_done_again_it_is_as_if_it_had_never_stopped(work, tmp_path, layout):
    settings = ExportSettings(16, layout=layout)
    run(work, tmp_path / "whole", settings)
    for number in range(40):
        asked = iter([False] * number + [True] * 1000)
        done = run(work, tmp_path / "out", settings, stopped=lambda asked=asked: next(asked))
        if done.finished:
            break
        assert not (tmp_path / "out" / "metadata.jsonl").exists()
    assert done.finished and number > 1
    contents = [
        {name: content for name, (content, _) in state(tmp_path / f).items()} for f in ("whole", "out")
    ]
    for found in contents:
        del found["README.md"]  # has the folder's name
    assert contents[0] == contents[1]


def test_a_file_that_was_damaged_or_deleted_since_is_written_again(work, tmp_path):
    out = tmp_path / "out"
    run(work, out)
    before = {name: content for name, (content, _) in state(out).items()}
    first, second = (out / row["file_name"] for row in rows_of(out)[:2])
    first.unlink()
    second.write_bytes(b"short")
    assert run(work, out).made == 2
    assert {name: content for name, (content, _) in state(out).items()} == before


def test_what_a_killed_export_left_half_written_is_cleaned_up(work, tmp_path):
    out = tmp_path / "out"
    run(work, out)
    before = state(out)
    for folder in (out, out / rows_of(out)[0]["file_name"]):
        place = folder if folder.is_dir() else folder.parent
        (place / ".unfinished-99-00000000.tmp").write_bytes(b"half")
    run(work, out)
    assert state(out) == before


def test_a_card_changed_by_hand_is_left_as_it_is(work, tmp_path):
    run(work, tmp_path / "out")
    card = tmp_path / "out" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nMy own words.\n", encoding="utf-8")
    before = card.read_bytes()
    done = run(work, tmp_path / "out")
    assert card.read_bytes() == before
    assert any("README.md" in note for note in done.notes)


def refusal(made: Work, out, settings=SMALL) -> str:
    with pytest.raises(SurdBuildError) as error:
        run(made, out, settings)
    return str(error.value)


def test_a_folder_of_other_files_is_refused_and_left_alone(work, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"x")
    assert "holiday.jpg" in refusal(work, out)
    assert [path.name for path in out.iterdir()] == ["holiday.jpg"]


def test_a_folder_that_would_be_collected_or_is_the_work_folder_is_refused(work):
    assert "collect" in refusal(work, work.images / "export")
    assert not (work.images / "export").exists()
    assert "work folder" in refusal(work, work.folder)


def test_an_export_of_other_pictures_is_not_replaced(work, tmp_path):
    other = Work(tmp_path / "other")
    other.add("a.png", picture(77), "c", "s")
    run(other, tmp_path / "out")
    before = state(tmp_path / "out")
    assert "other pictures" in refusal(work, tmp_path / "out")
    assert state(tmp_path / "out") == before


def test_a_name_taken_by_a_foreign_file_is_refused(work, tmp_path):
    run(work, tmp_path / "out")
    new = work.add("new.png", picture(5), "c", "s")
    foreign = tmp_path / "out" / "images" / new[:2] / f"{new}.png"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"mine")
    assert foreign.name in refusal(work, tmp_path / "out")
    assert foreign.read_bytes() == b"mine"


def test_what_the_disk_cannot_hold_is_not_begun(work, tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("sur_core.surd_build.export_folder.shutil.disk_usage", lambda _: free)
    assert "0.00 GB" in refusal(work, tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()


def test_a_picture_that_changed_since_it_was_collected_stops_the_export_and_says_what_to_do(work, tmp_path):
    (work.images / "3.png").write_bytes(encoded(picture(1)))
    (work.images / "4.png").unlink()
    told = refusal(work, tmp_path / "out")
    assert "2 pictures" in told and "3.png" in told and "4.png" in told and "ollect again" in told
    assert not (tmp_path / "out" / "metadata.jsonl").exists()


def test_nothing_to_export_is_said_with_the_reasons(tmp_path):
    made = Work(tmp_path)
    made.add("a.png", picture(1), "c")
    assert "no simple prompt yet: 1" in refusal(made, tmp_path / "out")


@pytest.mark.parametrize(
    "wrong", [{"crop": "left"}, {"layout": "csv"}, {"image_format": "gif"}, {"resolution": -1}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SurdBuildError, match=str(next(iter(wrong.values())))):
        ExportSettings(**wrong)


def card_of(folder) -> tuple[dict, str]:
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.mark.parametrize(
    ("licenses", "wanted", "name"),
    [
        ((None, None), "unknown", None),
        (("CC0-1.0", "CC0-1.0"), "cc0-1.0", None),
        (("CC0-1.0", None), "other", "mixed"),
        (("CC0-1.0", "MIT"), "other", "mixed"),
        (("My: own | licence", "My: own | licence"), "other", "My: own | licence"),
    ],
)
def test_the_card_claims_a_licence_only_if_every_sample_has_it(tmp_path, licenses, wanted, name):
    made = Work(tmp_path)
    for number, given in enumerate(licenses):
        made.add(f"{number}.png", picture(number), "c", "s", license=given)
    run(made, tmp_path / "out")
    head, body = card_of(tmp_path / "out")
    assert (head["license"], head.get("license_name")) == (wanted, name)
    for given in set(licenses):
        assert f"| {'not given' if given is None else given.replace('|', chr(92) + '|')} | " in body


def test_the_card_counts_what_was_left_out_and_names_models_and_settings(work, tmp_path):
    for key, record in work.manifest().records("caption").items():
        work.record(**{**record, "key": key, "settings": "mark"})
    work.record(step="settings", key="caption mark", values={"model": "abc", "beams": 3})
    work.record(step="model", key="abc", name="Salesforce/blip")
    work.record(step="settings", key="select", values={"min_side": 256})
    run(work, tmp_path / "out")
    head, body = card_of(tmp_path / "out")
    assert head["size_categories"] == ["n<1K"]
    assert "9 image files were found; 6 samples are in this data set and 3 are not." in body
    for row in ("| select | too small | 1 |", "| clean | lower CLIP score | 1 |",
                "| export | no simple prompt yet | 1 |"):  # fmt: skip
        assert row in body
    assert 'model: "Salesforce/blip"; beams: 3' in body and "min_side: 256" in body.replace("\\", "")
    assert "does not mean harmless" in body
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_texts_of_others_cannot_break_the_card(tmp_path):
    made = Work(tmp_path, "<script> | *x*")
    made.add("a.png", picture(1), "c", "s", license="a | b\n# head", rating="`x` [y](z)", origin=STRANGE)
    run(made, tmp_path / "out: - x")
    head, body = card_of(tmp_path / "out: - x")
    assert head["pretty_name"] == "out: - x"
    assert "\n# head" not in body and "<script>" not in body
    assert "a \\| b \\# head" in body


def test_the_command_says_what_it_did_and_how_to_get_vectors(work, tmp_path, capsys):
    out = tmp_path / "my out"
    arguments = ["surd", "export", str(work.folder), str(out), "--resolution", "16", "--workers", "2"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "6 samples; 8 files written" in said
    assert "not exported, no simple prompt yet: 1" in said
    assert f"python -m train vectors '{out}'" in said


def test_with_llm_the_vectors_of_the_export_are_computed(work, tmp_path):
    from sur_core.knowledge import open_knowledge
    from tests.tiny_models import make_tiny_llm

    llm, out = make_tiny_llm(tmp_path / "llm"), tmp_path / "out"
    arguments = ["surd", "export", str(work.folder), str(out), "--resolution", "16", "--llm", str(llm)]
    assert main([*arguments, "--layer", "2", "--vectors-device", "cpu"]) == 0
    vectors = open_knowledge(out / "vectors" / "llm-layer2.safetensors")
    assert (vectors.find([f"simple {n}" for n in range(6)]) >= 0).all()
    assert main([*arguments, "--layer", "2"]) == 0  # the vectors are no foreign file
    assert len(open_surd(out)) == 6
