"""`python -m train check` finds what is broken, counts what is there; training leaves out what it lists."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset

from sur_core.surd import SurdError, open_surd, quarantine_path, read_surd
from sur_core.surd_check import SurdReport, check_surd
from sur_core.surd_rows import Columns
from tests.surd_files import encoded, picture, row, write_folder, write_lines
from train.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def report_on(source, resolution=8, workers=2) -> SurdReport:
    return check_surd(read_surd(source, "train", {}, Columns()), resolution, workers, lambda items, _: items)


def listed(path) -> list[tuple[str, str, str]]:
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(entry["name"], entry["place"], entry["reason"].partition(":")[0]) for entry in entries]


def mixed_folder(folder: Path) -> Path:
    """Sound: good, twin (the same file), small, list. Broken: cut, odd, gone, empty, a second good."""
    big = (40, 30)
    images = {
        "good.png": encoded(picture(0, big)),
        "twin.png": encoded(picture(0, big)),
        "small.png": encoded(picture(1, (40, 7))),
        "list.png": encoded(picture(2, big)),
        "cut.png": encoded(picture(3, big))[:400],
        "odd.png": b"<html>",
        "empty.png": encoded(picture(4, big)),
    }
    rows = [
        row("good.png", "one two", "one two three"),
        row("twin.png", "one two", "one two three"),
        row("small.png", "one two", "other"),
        row("list.png", ["four words are here", "x"], "y"),
        row("cut.png", ["p", "q"], "r"),
        row("odd.png", "s", "t"),
        row("gone.png", "u", "v"),
        row("empty.png", "", "w"),
        row("good.png", "another", "prompt"),
    ]
    return write_folder(folder, rows, images)


BROKEN = [
    ("gone.png", "metadata.jsonl:7", "missing image"),
    ("empty.png", "metadata.jsonl:8", "empty prompt"),
    ("good.png (line 9)", "metadata.jsonl:9", "duplicate file name"),
    ("cut.png", "metadata.jsonl:5", "broken image"),
    ("odd.png", "metadata.jsonl:6", "broken image"),
]


def test_everything_is_counted(tmp_path):
    report = report_on(mixed_folder(tmp_path))
    assert (report.samples, report.images, report.has_images) == (5, 4, True)
    assert report.duplicates == [("good.png", "twin.png")] and report.small == ["small.png"]
    assert (report.list_rows, report.list_samples) == (1, 2), "not those of broken images"
    assert (report.repeated_simple, report.repeated_pairs) == (2, 1)
    assert report.simple.words == (1, 2, 3, 4) and report.simple.characters[0] == 1
    assert [(entry.name, entry.place, entry.kind) for entry in report.quarantined] == BROKEN


@pytest.mark.parametrize("workers", [1, 3])
def test_the_report_does_not_depend_on_the_threads(tmp_path, workers):
    rows = [row(f"{n}.png", f"prompt {n}") for n in range(60)]
    images = {f"{n}.png": encoded(picture(n % 50)) for n in range(60)}
    for number in (7, 23, 58):
        images[f"{number}.png"] = b"broken"
    report = report_on(write_folder(tmp_path, rows, images), workers=workers)
    assert [entry.name for entry in report.quarantined] == ["7.png", "23.png", "58.png"]
    doubled = [(f"{n}.png", f"{n + 50}.png") for n in range(10) if n not in (7, 8)]
    assert report.duplicates == doubled and report.images == 57


def test_lengths_and_the_guess_of_tokens(tmp_path):
    simple = ["word " * count for count in range(1, 101)]
    pairs = [{"text": text, "prompt": "a, b"} for text in simple]
    report = report_on(write_lines(tmp_path / "p.jsonl", pairs))
    assert report.simple.words == (1, 50, 95, 100)
    assert report.simple.characters == (4, 251, 474, 499)
    assert 0.3 < report.simple.over_limit < 0.45, "75 tokens are some 60 to 65 words"
    assert report.complex.over_limit == 0 and report.complex.words == (2, 2, 2, 2)
    assert "about" in report.to_text() and "over 77 tokens" in report.to_text()


def test_the_command_reports_lists_and_training_follows(tmp_path, capsys):
    folder = mixed_folder(tmp_path / "data")
    assert main(["check", str(folder), "--resolution", "20", "--workers", "2"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "usable samples: 5 (5 with image, 0 without)",
        "rows left out: 5 (broken images 2, missing images 1, empty prompts 1, duplicate file names 1)",
        "lists of captions: 1 rows became 2 samples",
        "2 simple prompts repeat an earlier one, 1 pairs do",
        "exact duplicate images: 1 (good.png = twin.png)",
        "smaller than 20 px (they would be enlarged): 1 (small.png)",
        "left out, broken image: 2\n  cut.png (metadata.jsonl:5): broken image: cut.png: the image is trunc",
        f"list of what is left out: {folder / 'quarantine.jsonl'}",
    ):
        assert words in printed, printed
    assert listed(folder / "quarantine.jsonl") == BROKEN
    surd = open_surd(folder)
    assert [sample.name for sample in surd] == ["good.png", "twin.png", "small.png", "list.png", "list.png#2"]
    assert sorted((e.name, e.place, e.kind) for e in surd.quarantined) == sorted(BROKEN)
    for sample in surd:
        surd.read_image(sample.index)


def test_what_is_mended_comes_back(tmp_path):
    folder = mixed_folder(tmp_path)
    assert main(["check", str(folder)]) == 0
    (folder / "cut.png").write_bytes(encoded(picture(3)))
    (folder / "gone.png").write_bytes(encoded(picture(9)))
    assert "cut.png" not in {sample.name for sample in open_surd(folder)}, "the list still names it"
    assert main(["check", str(folder)]) == 0
    assert {"cut.png", "cut.png#2", "gone.png"} <= {sample.name for sample in open_surd(folder)}
    assert [name for name, _, _ in listed(folder / "quarantine.jsonl")] == [
        "empty.png",
        "good.png (line 9)",
        "odd.png",
    ]


def test_a_list_is_written_only_where_there_is_something_to_say(tmp_path):
    folder = write_folder(tmp_path, [row("a.png"), row("b.png")])
    path = quarantine_path(folder)
    assert main(["check", str(folder)]) == 0 and not path.exists()
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:60])
    assert main(["check", str(folder)]) == 0 and len(listed(path)) == 1
    (folder / "b.png").write_bytes(whole)
    assert main(["check", str(folder)]) == 0 and listed(path) == []
    assert len(open_surd(folder)) == 2


def test_a_list_of_ones_own_choice(tmp_path, capsys):
    folder = mixed_folder(tmp_path / "data")
    own = tmp_path / "lists" / "own.jsonl"
    assert main(["check", str(folder), "--quarantine", str(own)]) == 0
    assert listed(own) == BROKEN and not quarantine_path(folder).exists()
    assert len(open_surd(folder, quarantine=own)) == 5
    table = folder / "metadata.jsonl"
    before = table.read_bytes()
    assert main(["check", str(folder), "--quarantine", str(table)]) == 1
    assert "no entry of a quarantine list" in capsys.readouterr().err
    assert table.read_bytes() == before, "the data must not be overwritten"


def test_pairs_parquet_and_columns(tmp_path, capsys):
    path = tmp_path / "p.csv"
    path.write_text("short,long\na,A\n,B\nb,C\n")
    assert main(["check", str(path)]) == 1
    assert "'short', 'long'" in capsys.readouterr().err
    assert main(["check", str(path), "--simple-column", "short", "--complex-column", "long"]) == 0
    assert "usable samples: 2 (0 with image, 2 without)" in capsys.readouterr().out
    assert listed(tmp_path / "p.csv.quarantine.jsonl") == [("line 3", "p.csv:3", "empty prompt")]

    cells = [encoded(picture(0)), encoded(picture(0)), encoded(picture(1))[:90]]
    texts = ["a", "b", "c"]
    Dataset.from_dict({"image": cells, "text": texts, "prompt": texts}).to_parquet(tmp_path / "t.parquet")
    assert main(["check", str(tmp_path / "t.parquet")]) == 0
    printed = capsys.readouterr().out
    assert "exact duplicate images: 1 (row 1 = row 2)" in printed
    assert listed(tmp_path / "t.parquet.quarantine.jsonl")[0] == ("row 3", "t.parquet: row 3", "broken image")
    assert len(open_surd(tmp_path / "t.parquet")) == 2


@pytest.mark.parametrize("image", [b"broken", None])
def test_nothing_usable_is_an_error_and_still_listed(tmp_path, capsys, image):
    folder = write_folder(tmp_path, [row("a.png")], {"a.png": image} if image else {})
    assert main(["check", str(folder)]) == 1
    caught = capsys.readouterr()
    assert "no usable sample" in caught.err and "usable samples: 0" in caught.out
    assert [name for name, _, _ in listed(quarantine_path(folder))] == ["a.png"]
    with pytest.raises(SurdError, match="no usable row"):
        open_surd(folder)


def test_an_interrupted_check_leaves_the_former_list(tmp_path):
    folder = mixed_folder(tmp_path)
    path = quarantine_path(folder)
    assert main(["check", str(folder)]) == 0
    before = path.read_bytes()
    (folder / "cut.png").write_bytes(encoded(picture(3)))

    def interrupted(items, _):
        yield from list(items)[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_surd(read_surd(folder, "train", {}, Columns()), 8, 2, interrupted)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_in_the_shell_stops_soon_and_writes_nothing(tmp_path):
    content = encoded(picture(0, (1500, 1500)))
    images = {"0.png": b"broken", **{f"{n}.png": content for n in range(1, 2)}}
    for number in range(2, 400):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "1.png")
    folder = write_folder(tmp_path, [row(f"{n}.png") for n in range(400)], images)
    command = [sys.executable, "-m", "train", "check", str(folder), "--workers", "2"]
    running = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        seen = b""
        while b"reading images" not in seen:
            seen += os.read(running.stderr.fileno(), 1000)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, errors.decode()
    assert not quarantine_path(folder).exists() and not list(folder.glob(".unfinished*"))
