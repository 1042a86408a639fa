"""Every row of a data set is used, or listed with its place and reason; images are found where they lie."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest

from sur_core.images import ImageError
from sur_core.surd import SurdError, open_surd, quarantine_path
from sur_core.surd_quarantine import write_quarantine
from sur_core.surd_rows import Quarantined
from tests.surd_files import encoded, only_bad, pairs, picture, row, write_folder, write_lines, write_parquet


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_the_authors_layout(tmp_path):
    rows = [row("a.png", " a cat\n", "a cat, fur "), row("sub/b.jpg", "ein Fuß", "狗")]
    folder = write_folder(
        tmp_path / "surd", rows, {"a.png": encoded(picture(1)), "sub/b.jpg": encoded(picture(2), "JPEG")}
    )
    surd = open_surd(folder)
    assert pairs(surd) == [("a.png", "a cat", "a cat, fur"), ("sub/b.jpg", "ein Fuß", "狗")]
    assert [sample.index for sample in surd] == [0, 1] and all(sample.has_image for sample in surd)
    assert surd.quarantined == [] and surd.name == "surd" and surd.source == folder
    assert surd.image_bytes(1) == (folder / "sub/b.jpg").read_bytes()
    assert (np.asarray(surd.read_image(0)) == np.asarray(picture(1))).all()
    assert surd[-1] == surd[1]
    with pytest.raises(IndexError, match="no sample 2"):
        surd[2]


def test_the_metadata_file_alone_or_the_folder_of_a_split(tmp_path):
    folder = write_folder(tmp_path / "surd" / "train", [row("a.png")])
    write_folder(tmp_path / "surd" / "test", [row("t.png")])
    for source in (folder, folder / "metadata.jsonl", str(folder), tmp_path / "surd"):
        assert pairs(open_surd(source))[0][0] == "a.png"
    assert open_surd(tmp_path / "surd", "test")[0].name == "t.png"
    with pytest.raises(SurdError, match="'valid'"):
        open_surd(folder, "valid")


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp"])
def test_file_names_without_extension(tmp_path, suffix):
    content = encoded(picture())
    folder = write_folder(
        tmp_path, [row("0001"), row("sub/v1.5")], {f"0001{suffix}": content, f"sub/v1.5{suffix}": content}
    )
    surd = open_surd(folder)
    assert [sample.name for sample in surd] == ["0001", "sub/v1.5"]
    assert surd.image_bytes(0) == surd.image_bytes(1) == content


def test_two_candidates_for_a_name_are_explained(tmp_path):
    content = encoded(picture())
    images = {"0001.png": content, "0001.jpg": content, "0002.png": content, "0003": content, "0003.png": b""}
    surd = open_surd(write_folder(tmp_path, [row("0001"), row("0002"), row("0003")], images))
    assert [sample.name for sample in surd] == ["0002", "0003"]
    assert surd.image_bytes(1) == content, "the name as it is written comes first"
    entry = only_bad(surd)
    assert (entry.name, entry.place, entry.kind) == ("0001", "metadata.jsonl:1", "ambiguous image")
    assert "0001.png" in entry.reason and "0001.jpg" in entry.reason


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "sub/../../secret.png", "{root}/secret.png", "..\\secret.png", "C:\\a.png", "a\0.png"],
)
def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    name = name.replace("{root}", str(tmp_path))
    folder = write_folder(tmp_path / "data", [row("ok.png"), row(name)], {"ok.png": encoded(picture())})
    (folder / "sub").mkdir()
    surd = open_surd(folder)
    assert len(surd) == 1
    assert only_bad(surd).kind == "unsafe path" and only_bad(surd).place == "metadata.jsonl:2"


def test_links_inside_the_folder_are_followed(tmp_path):
    (tmp_path / "store").write_bytes(encoded(picture()))
    folder = write_folder(tmp_path / "data", [row("a.png")], {})
    (folder / "a.png").symlink_to(tmp_path / "store")
    assert open_surd(folder).image_bytes(0) == encoded(picture())


GOOD = row("good.png")


@pytest.mark.parametrize(
    ("bad", "name", "reason"),
    [
        (row("gone.png"), "gone.png", "missing image: no file 'gone.png'"),
        (row("sub"), "sub", "missing image: no file 'sub'"),
        (row("none/gone.png"), "none/gone.png", "missing image"),
        (row(None), "line 2", "missing image: the row names no file"),
        ({"text": "a", "prompt": "b"}, "line 2", "missing image: the row names no file"),
        (row(7), "line 2", "wrong type: the file name should be text, found int"),
        (row("b.png", ""), "b.png", "empty prompt: the simple prompt is empty"),
        (row("b.png", "a", " \n\t"), "b.png", "empty prompt: the complex prompt is empty"),
        (row("b.png", None), "b.png", "empty prompt: the simple prompt is missing"),
        (row("b.png", []), "b.png", "empty prompt: the simple prompt is missing"),
        (row("b.png", ["a", " "]), "b.png", r"empty prompt: the simple prompt is empty \(caption 2 of 2\)"),
        (row("b.png", 3), "b.png", "wrong type: the simple prompt should be text, found int"),
        (row("b.png", "a", ["x", 3]), "b.png", "wrong type: the complex prompt should be text, found int"),
        (row("b.png", {"en": "a"}), "b.png", "wrong type: the simple prompt should be text, found dict"),
        (row("b.png", ["a", "b"], ["x", "y", "z"]), "b.png", "wrong lists: 2 simple .* 3 complex"),
        ({"file_name": "b.png", "text": "a"}, "line 2", "missing column: no 'prompt'"),
        (row("b.png", "half \ud83d"), "b.png", "not UTF-8: the simple prompt"),
        ('{"file_name": "b.png", "text": "a', "line 2", "broken JSON: "),
        ("[" * 100_000, "line 2", "broken JSON: "),
        ('["b.png", "a", "b"]', "line 2", "wrong type: expected a JSON object, found list"),
        ('{"file_name": "b.png", "text": "Fuß"}'.encode("latin-1"), "line 2", "not UTF-8: byte 35"),
    ],
)
def test_an_unusable_row_is_put_aside_with_its_line_and_reason(tmp_path, bad, name, reason):
    content = encoded(picture())
    rows = [GOOD, bad, row("last.png")]
    folder = write_folder(tmp_path, rows, {n: content for n in ("good.png", "b.png", "last.png")})
    (folder / "sub").mkdir()
    surd = open_surd(folder)
    assert [sample.name for sample in surd] == ["good.png", "last.png"]
    entry = only_bad(surd)
    assert (entry.name, entry.place) == (name, "metadata.jsonl:2")
    assert re.match(reason, entry.reason), entry.reason


def test_lists_of_captions(tmp_path):
    rows = [
        row("one.png", ["a"], ["A"]),
        row("many.png", ["b", " c ", "d"], "BCD"),
        row("both.png", ["e", "f"], ["E", "F"]),
        row("right.png", "g", ["G", "H"]),
    ]
    surd = open_surd(write_folder(tmp_path, rows))
    assert pairs(surd) == [
        ("one.png", "a", "A"),
        ("many.png", "b", "BCD"),
        ("many.png#2", "c", "BCD"),
        ("many.png#3", "d", "BCD"),
        ("both.png", "e", "E"),
        ("both.png#2", "f", "F"),
        ("right.png", "g", "G"),
        ("right.png#2", "g", "H"),
    ]
    assert surd.image_bytes(1) == surd.image_bytes(2) == (tmp_path / "many.png").read_bytes()
    assert surd.image_stamp(1) == surd.image_stamp(3) != surd.image_stamp(4)
    assert surd.row_name(2) == "many.png" and surd.caption_number(2) == 1


@pytest.mark.parametrize(
    ("again", "words"),
    [
        (row("a.png", "a", "A"), "line 1 has it too, with the same prompts"),
        (row("a.png", "other", "A"), "line 1 has it too, with other prompts"),
        (row("a.png", ["a", "b"], "A"), "line 1 has it too, with other prompts"),
    ],
)
def test_the_second_row_of_a_file_name_is_put_aside(tmp_path, again, words):
    surd = open_surd(write_folder(tmp_path, [row("a.png", "a", "A"), row("b.png"), again, row("c.png")]))
    assert [sample.name for sample in surd] == ["a.png", "b.png", "c.png"]
    assert surd[0].simple == "a"
    entry = only_bad(surd)
    assert (entry.name, entry.place) == ("a.png (line 3)", "metadata.jsonl:3")
    assert entry.kind == "duplicate file name" and words in entry.reason


def test_third_rows_and_names_like_captions_are_duplicates_too(tmp_path):
    rows = [row("a.png", ["x", "y"]), row("a.png#2"), row("a.png"), row("a.png")]
    surd = open_surd(write_folder(tmp_path, rows))
    assert [sample.name for sample in surd] == ["a.png", "a.png#2"]
    assert [entry.place.rpartition(":")[2] for entry in surd.quarantined] == ["2", "3", "4"]


def test_a_row_after_an_unusable_one_of_its_name_is_used(tmp_path):
    surd = open_surd(write_folder(tmp_path, [row("a.png", ""), row("a.png", "mended")]))
    assert pairs(surd)[0][:2] == ("a.png", "mended")
    assert only_bad(surd).kind == "empty prompt"


def test_the_stamp_tells_a_changed_file(tmp_path):
    folder = write_folder(tmp_path, [row("a.png"), row("b.png")])
    surd = open_surd(folder)
    before = surd.image_stamp(0), surd.image_stamp(1)
    assert before == (open_surd(folder).image_stamp(0), open_surd(folder).image_stamp(1))
    (folder / "a.png").write_bytes(encoded(picture(5, (20, 20))))
    assert surd.image_stamp(0) != before[0] and surd.image_stamp(1) == before[1]
    (folder / "b.png").unlink()
    for read in (surd.image_bytes, surd.image_stamp):
        with pytest.raises(FileNotFoundError, match=r"b\.png"):
            read(1)


def test_a_truncated_image_is_named_when_read(tmp_path):
    folder = write_folder(tmp_path, [row("a.png")])
    (folder / "a.png").write_bytes(encoded(picture(size=(64, 64)))[:3000])
    with pytest.raises(ImageError, match=r"a\.png: the image is truncated"):
        open_surd(folder).read_image(0)


def test_the_fingerprint_follows_names_prompts_and_order(tmp_path):
    rows = [row("a.png", "x", "y"), row("b.png", "u", "v")]
    seen = set()
    variants = (
        rows,
        rows[::-1],
        rows[:1],
        [row("a.png", "xy", ""), rows[1]],
        [row("c.png", "x", "y"), rows[1]],
    )
    for number, variant in enumerate(variants):
        seen.add(open_surd(write_folder(tmp_path / str(number), variant)).fingerprint)
    assert len(seen) == len(variants)
    moved = [row("a.png", " x ", "y"), row("broken.png", ""), rows[1]]
    assert open_surd(write_folder(tmp_path / "same", moved)).fingerprint in seen, "only what is used counts"


def test_rows_on_the_list_are_left_out(tmp_path):
    rows = [row("a.png"), row("b.png", ["x", "y"]), row("c.png", ["x", "y", "z"]), row("d.png", "")]
    folder = write_folder(tmp_path / "data", rows)
    listed = [Quarantined(name, "old place", "broken image: ä") for name in ("b.png", "c.png#2", "gone.png")]
    own = tmp_path / "own.jsonl"
    write_quarantine(own, listed)
    surd = open_surd(folder, quarantine=own)
    assert [sample.name for sample in surd] == ["a.png", "c.png", "c.png#3"]
    assert [(entry.name, entry.place, entry.reason[:12]) for entry in surd.quarantined] == [
        ("b.png", "metadata.jsonl:2", "broken image"),
        ("c.png#2", "metadata.jsonl:3", "broken image"),
        ("d.png", "metadata.jsonl:4", "empty prompt"),
    ]
    assert len(open_surd(folder)) == 6
    own.rename(quarantine_path(folder))
    assert len(open_surd(folder)) == 3, "the list beside the data is followed without being named"


def test_a_list_that_is_none_is_refused(tmp_path):
    folder = write_folder(tmp_path, [row("a.png")])
    for content in ('{"file_name": "a.png"}', "a.png", "[]"):
        (folder / "quarantine.jsonl").write_text(content)
        with pytest.raises(SurdError, match=r"quarantine\.jsonl: line 1 .*train check"):
            open_surd(folder)


def test_a_data_set_travels_to_another_process(tmp_path):
    surd = pickle.loads(pickle.dumps(open_surd(write_folder(tmp_path / "a", [row("a.png"), row("b.png")]))))
    assert pairs(surd)[1][0] == "b.png" and surd.image_bytes(1)
    surd = pickle.loads(pickle.dumps(open_surd(write_parquet(tmp_path / "t.parquet"))))
    assert surd.image_bytes(2) == encoded(picture(2))


def test_sixty_thousand_samples_take_less_than_30_mb(tmp_path):
    """Told from 10,000, whose prompts together have 300 characters each: 500 bytes a sample."""
    count = 10_000
    rows = [row(f"{n:06d}", f"{n} " + "x" * 54, f"{n} " + "word, " * 40) for n in range(count)]
    write_lines(tmp_path / "metadata.jsonl", rows)
    for number in range(count):
        (tmp_path / f"{number:06d}.png").touch()
    del rows
    len(open_surd(tmp_path))  # whatever is loaded once
    found = []
    for _ in range(3):  # threads that other tests have left may allocate meanwhile, which is counted too
        tracemalloc.start()
        surd = open_surd(tmp_path)
        found.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
        assert len(surd) == count
        del surd
    held, peak = min(found)
    assert held < 500 * count and peak < 600 * count
