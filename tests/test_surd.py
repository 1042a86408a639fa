"""A data set is read as it stands: every layout, every row used or listed with its reason."""

import pickle
import re
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value, load_dataset

from sur_core.images import ImageError
from sur_core.surd import SurdError, open_surd, quarantine_path
from sur_core.surd_parquet import DatasetTable
from sur_core.surd_quarantine import write_quarantine
from sur_core.surd_rows import Columns, Quarantined
from tests.surd_files import encoded, picture, row, write_folder, write_lines


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def pairs(surd) -> list[tuple[str, str, str]]:
    return [(sample.name, sample.simple, sample.complex) for sample in surd]


def only_bad(surd) -> Quarantined:
    (entry,) = surd.quarantined
    return entry


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


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_prompt_pairs_as_json_lines(tmp_path, mark, newline):
    path = tmp_path / "pairs.jsonl"
    lines = ['{"text": "ä", "prompt": "A"}', "", '{"simple": "x"}', '{"text": "b", "prompt": "B\\nC"}']
    path.write_bytes(mark + newline.join(line.encode() for line in lines))
    surd = open_surd(path)
    assert pairs(surd) == [("line 1", "ä", "A"), ("line 4", "b", "B\nC")]
    assert only_bad(surd).place == "pairs.jsonl:3"
    assert not any(sample.has_image for sample in surd)
    for read in (surd.image_bytes, surd.image_stamp, surd.read_image):
        with pytest.raises(SurdError, match="without images"):
            read(0)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("header", [b"id,text,prompt", b'"id", "text","prompt"', b"id,simple,complex"])
def test_prompt_pairs_as_csv(tmp_path, mark, header):
    path = tmp_path / "pairs.csv"
    rows = [
        '1,"a cat, sitting","line one\nline ""two"""',
        "",
        "2,ä,ö",
        "3,too,many,fields",
        "4,,empty",
        b"5,Fu\xdf,latin",
        '6,"last\r\none",fin',
    ]
    encoded_rows = [entry if isinstance(entry, bytes) else entry.encode() for entry in rows]
    path.write_bytes(mark + b"\r\n".join([header, *encoded_rows]))
    surd = open_surd(path)
    assert pairs(surd) == [
        ("line 2", "a cat, sitting", 'line one\nline "two"'),
        ("line 5", "ä", "ö"),
        ("line 9", "last\r\none", "fin"),
    ]
    assert [(entry.place, entry.kind) for entry in surd.quarantined] == [
        ("pairs.csv:6", "wrong fields"),
        ("pairs.csv:7", "empty prompt"),
        ("pairs.csv:8", "not UTF-8"),
    ]


def test_a_csv_with_file_names_has_images(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text,prompt\na,x,X\n")
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    for source in (tmp_path, tmp_path / "metadata.csv"):
        assert open_surd(source).read_image(0).size == (12, 8)
    surd = open_surd(tmp_path, image_column="none")
    assert not surd[0].has_image and surd[0].name == "line 2"


def test_a_quote_left_open_is_refused_not_swallowed(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('text,prompt\na,A\nb,"B\nc,C\n')
    with pytest.raises(SurdError, match=r"p\.csv: the row that begins in line 3 .*quotation mark"):
        open_surd(path)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (
            '{"caption": "a", "prompt": "b"}',
            {},
            ["'caption', 'prompt'", "'text'", "'complex'", "simple_column"],
        ),
        ('{"text": "a", "complex": "b"}', {}, ["'text', 'complex'", "expected"]),
        ('{"text": "a", "prompt": "b"}', {"simple_column": "short"}, ["the given 'short'", "'text'"]),
        ('{"text": "a", "prompt": "b"}', {"image_column": "img"}, ["the given 'img'"]),
        ('{"text": "a", "prompt": "b"}', {"simple_column": "prompt"}, ["both be column 'prompt'"]),
    ],
)
def test_wrong_columns_are_refused_with_those_found_and_expected(tmp_path, content, options, words):
    path = write_lines(tmp_path / "p.jsonl", [content])
    with pytest.raises(SurdError) as caught:
        open_surd(path, **options)
    assert all(word in str(caught.value) for word in ["p.jsonl", *words]), caught.value


def test_columns_given_by_name(tmp_path):
    rows = [{"pic": "a.png", "short": "s", "long": "l", "text": "t", "prompt": "p"}]
    write_lines(tmp_path / "t.jsonl", rows)
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    surd = open_surd(tmp_path / "t.jsonl", simple_column="short", complex_column="long", image_column="pic")
    assert pairs(surd) == [("a.png", "s", "l")] and surd[0].has_image


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("p.csv", b"", "Found none"),
        ("p.csv", b"text;prompt\na;b\n", "commas"),
        ("p.csv", b"text,prompt,text\na,b,c\n", "twice"),
        ("p.csv", b"text,prompt\n", "no usable row"),
        ("p.csv", "text,prompt\na,b\n".encode("utf-16"), "UTF-16"),
        ("p.jsonl", b"", "the file is empty"),
        ("p.jsonl", b"\n\n", "the file is empty"),
        ("p.jsonl", b"[\n{}\n]\n", "Line 1: broken JSON"),
        ("p.jsonl", b'[{"text": "a", "prompt": "b"}]', "found list"),
        ("p.jsonl", b'{"text": "", "prompt": "b"}', "no usable row. p.jsonl:1: empty prompt"),
        ("p.txt", b"text", "expected a folder"),
        ("p.parquet", b"PAR1 no", "not readable as parquet"),
    ],
)
def test_a_table_without_rows_is_refused(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SurdError, match=word) as caught:
        open_surd(tmp_path / name)
    assert name in str(caught.value)


def test_no_data_set_there(tmp_path):
    with pytest.raises(SurdError, match="Expected metadata.jsonl.*found a.png"):
        open_surd(write_folder(tmp_path / "x", [row("a.png")]).rename(tmp_path / "y") / ".." / only(tmp_path))
    with pytest.raises(SurdError, match="no such file or folder"):
        open_surd(tmp_path / "gone")
    with pytest.raises(SurdError, match="no such quarantine list"):
        open_surd(write_folder(tmp_path / "z", [row("a.png")]), quarantine=tmp_path / "gone.jsonl")


def only(tmp_path):
    """A folder with an image and no table."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.png").write_bytes(encoded(picture()))
    return "bare"


def test_a_hub_data_set_that_cannot_be_had(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SurdError, match="^nobody/no-such-surd: no such file or folder here, and the hub"):
        open_surd("nobody/no-such-surd")


def test_without_the_datasets_library_parquet_is_refused_and_the_rest_works(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "t.parquet")
    folder = write_folder(tmp_path / "surd", [row("a.png")])
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (path, "nobody/surd"):
        with pytest.raises(SurdError, match="pip install datasets"):
            open_surd(source)
    assert open_surd(folder)[0].has_image


FEATURES = {"image": Image(), "text": Value("string"), "prompt": Value("string")}


def write_parquet(path, count=3, start=0, **columns):
    numbers = range(start, start + count)
    table = {
        "image": [{"bytes": encoded(picture(n)), "path": "same.png"} for n in numbers],
        "text": [f"s{n}" for n in numbers],
        "prompt": [f"c{n}" for n in numbers],
        **columns,
    }
    features = Features({name: FEATURES.get(name, Value("string")) for name in table})
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(table, features=features).to_parquet(path)
    return path


def test_parquet_with_embedded_images(tmp_path):
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet")
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", start=3)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", count=1, start=9)
    surd = open_surd(tmp_path)
    assert [(s.simple, s.complex) for s in surd] == [(f"s{n}", f"c{n}") for n in range(6)]
    assert len({sample.name for sample in surd}) == 6 and "row 5" in surd[4].name
    for index in range(6):
        assert surd.image_bytes(index) == encoded(picture(index))
    assert len({surd.image_stamp(index) for index in range(6)}) == 6
    assert (np.asarray(surd.read_image(5)) == np.asarray(picture(5))).all()
    assert open_surd(tmp_path, "test")[0].simple == "s9"
    with pytest.raises(SurdError, match="no split 'valid'.*test, train"):
        open_surd(tmp_path, "valid")


def test_parquet_rows_that_cannot_be_used(tmp_path):
    content = encoded(picture())
    path = write_parquet(
        tmp_path / "t.parquet",
        image=[{"bytes": content, "path": None}, None, {"bytes": content, "path": None}],
        prompt=["A", "B", " "],
    )
    surd = open_surd(path)
    assert [sample.name for sample in surd] == ["row 1"] and surd[0].has_image
    assert [(entry.place, entry.kind) for entry in surd.quarantined] == [
        ("t.parquet: row 2", "missing image"),
        ("t.parquet: row 3", "empty prompt"),
    ]


def test_parquet_with_names_lists_and_plain_bytes(tmp_path):
    data = {
        "file_name": ["a", "b", "a"],
        "image": [encoded(picture(n)) for n in range(3)],
        "simple": [["x", "y"], ["z"], ["w"]],
        "complex": ["X", "Z", "W"],
    }
    Dataset.from_dict(data).to_parquet(tmp_path / "t.parquet")
    surd = open_surd(tmp_path / "t.parquet")
    assert pairs(surd) == [("a", "x", "X"), ("a#2", "y", "X"), ("b", "z", "Z")]
    assert surd.image_bytes(2) == encoded(picture(1))
    assert only_bad(surd).name == "a (row 3)"


def test_parquet_of_pairs_or_of_file_names(tmp_path):
    Dataset.from_dict({"text": ["a"], "prompt": ["A"]}).to_parquet(tmp_path / "pairs.parquet")
    assert not open_surd(tmp_path / "pairs.parquet")[0].has_image
    names = {"file_name": ["a", "../x"], "text": ["a", "b"], "prompt": ["A", "B"]}
    Dataset.from_dict(names).to_parquet(tmp_path / "names.parquet")
    (tmp_path / "a.webp").write_bytes(encoded(picture(), "WEBP", lossless=True))
    surd = open_surd(tmp_path / "names.parquet")
    assert (np.asarray(surd.read_image(0)) == np.asarray(picture())).all()
    assert only_bad(surd).kind == "unsafe path"


def test_a_parquet_file_cannot_reach_files_outside_its_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    cells = [{"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": None, "path": "../secret.png"}]
    cells.append({"bytes": None, "path": "in.png"})
    path = tmp_path / "data" / "t.parquet"
    path.parent.mkdir()
    form = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    texts = pa.array(["a", "b", "c"])
    pq.write_table(pa.table({"image": pa.array(cells, form), "text": texts, "prompt": texts}), path)
    (tmp_path / "data" / "in.png").write_bytes(encoded(picture(4)))
    surd = open_surd(path)
    assert [entry.kind for entry in surd.quarantined] == ["unsafe path", "unsafe path"]
    assert surd.image_bytes(0) == encoded(picture(4))


def test_a_text_column_is_no_image(tmp_path):
    path = tmp_path / "t.parquet"
    Dataset.from_dict({"image": [1], "text": ["a"], "prompt": ["A"]}).to_parquet(path)
    with pytest.raises(SurdError, match="'image' does not hold images"):
        open_surd(path)


def test_files_that_datasets_has_downloaded_are_read_where_they_lie(tmp_path):
    """What the hub gives for an image folder: paths instead of bytes."""
    folder = write_folder(tmp_path, [row("a.png", "a", "A"), row("b.png", "b", "B")])
    dataset = load_dataset("imagefolder", data_dir=str(folder), split="train")
    table = DatasetTable(dataset, "hub/data", Columns(), "stamp", None)
    records = [record for _, record in table.records()]
    assert sorted(record.simple for record in records) == ["a", "b"]
    for record in records:
        locator = table.images.locate(record.image, record.line)
        assert table.images.read(locator) == (folder / f"{record.simple}.png").read_bytes()
        assert f"{record.simple}.png|" in table.images.stamp(locator)


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
    tracemalloc.start()
    surd = open_surd(tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(surd) == count
    assert held < 500 * count and peak < 600 * count
