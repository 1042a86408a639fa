"""A data set is read as it stands: JSON lines, CSV, parquet and hub data sets, their columns and splits."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from sur_core.surd import SurdError, open_surd
from sur_core.surd_parquet import DatasetTable
from sur_core.surd_rows import Columns
from tests.surd_files import encoded, only_bad, pairs, picture, row, write_folder, write_lines, write_parquet


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


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
