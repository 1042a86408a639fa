"""The manifest says what was found, whatever happened while it was found."""

from __future__ import annotations

import json
import random

import pytest

from sur_core.processes import Processes
from sur_core.surd_build.journal import Journal, journal_paths, read_journal
from sur_core.surd_build.manifest import Manifest, SurdBuildError
from sur_core.surd_build.steps import Task, alone_in, run_step
from tests.helpers import killed_at_a_rename

SETTINGS = {"model": "one"}


def tasks(count: int, of: str = "") -> list[Task]:
    return [Task(f"{number:03}", of, number) for number in range(count)]


def squares(batch: list[Task]) -> list[dict]:
    return [{"value": task.payload**2} for task in batch]


def run(folder, given: list[Task], work=squares, settings=SETTINGS, **options):
    return run_step(Manifest(folder), "square", settings, given, work, batch_size=3, **options)


def content(folder) -> bytes:
    return (folder / "manifest.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, tasks(20)).finished
    return content(folder)


def test_every_line_is_json_and_every_task_has_its_record(tmp_path, whole):
    lines = [json.loads(line) for line in whole.decode().splitlines()]
    assert lines[0] == {"format": "surd-manifest", "version": 1}
    assert [line["value"] for line in lines if line.get("step") == "square"] == [n**2 for n in range(20)]


@pytest.mark.parametrize("seed", range(6))
def test_stopped_at_any_batch_and_gone_on_it_ends_the_same(tmp_path, whole, seed):
    draw, done = random.Random(seed), 0
    given = tasks(20)
    while not (outcome := run(tmp_path, given, stopped=lambda: draw.random() < 0.5)).finished:
        assert not (tmp_path / "manifest.jsonl").exists()
        assert outcome.kept == done
        done += outcome.done
        draw.shuffle(given)
    assert content(tmp_path) == whole and not journal_paths(tmp_path, "square", "*")


@pytest.mark.parametrize("torn", [1, 7, 40])
def test_a_torn_last_line_is_done_again(tmp_path, whole, torn):
    batches = iter([False, False, True])
    run(tmp_path, tasks(20), stopped=lambda: next(batches))
    (path,) = journal_paths(tmp_path, "square", "*")
    before = read_journal(path)
    path.write_bytes(path.read_bytes()[:-torn])
    assert read_journal(path) == before[:-1]
    outcome = run(tmp_path, tasks(20))
    assert outcome.kept == len(before) - 1 and content(tmp_path) == whole


def test_an_error_keeps_the_batches_before_it(tmp_path, whole):
    def fails(batch):
        if batch[0].payload == 9:
            raise OSError("unplugged")
        return squares(batch)

    with pytest.raises(OSError, match="unplugged"):
        run(tmp_path, tasks(20), fails)
    outcome = run(tmp_path, tasks(20))
    assert outcome.kept == 9 and content(tmp_path) == whole


@pytest.mark.parametrize("counts", [(2,), (3, 2), (1, 4, 1)])
def test_as_many_processes_as_one_likes_give_the_same_manifest(tmp_path, whole, counts):
    """One after another: each but the last stops early, and the next run has another number of processes."""
    for index, count in enumerate(counts):
        for rank in range(count):
            answers = iter([False, index < len(counts) - 1] + [True] * 20)
            last = index == len(counts) - 1
            run(
                tmp_path,
                tasks(20),
                processes=Processes(rank, count),
                stopped=(lambda: False) if last else lambda answers=answers: next(answers),
            )
    assert run(tmp_path, tasks(20)).finished  # the main process was first, and not all were there then
    assert content(tmp_path) == whole


def test_killed_while_the_manifest_is_written_nothing_is_lost(tmp_path, whole):
    killed_at_a_rename(1, lambda: run(tmp_path, tasks(20)))
    assert not (tmp_path / "manifest.jsonl").exists()
    outcome = run(tmp_path, tasks(20))
    assert outcome.done == 0 and content(tmp_path) == whole
    assert not journal_paths(tmp_path, "square", "*")


def test_done_again_nothing_is_added(tmp_path):
    run(tmp_path, tasks(5))
    before = content(tmp_path)
    outcome = run(tmp_path, tasks(5))
    assert (outcome.done, outcome.kept, outcome.finished) == (0, 5, True) and content(tmp_path) == before


def test_only_what_has_changed_is_done_again(tmp_path):
    run(tmp_path, tasks(5))
    given = [*tasks(4), Task("004", "changed", 7), Task("005", "", 5)]
    assert run(tmp_path, given).done == 2
    assert [r["value"] for r in Manifest(tmp_path).records("square").values()] == [0, 1, 4, 9, 49, 25]


def test_other_settings_do_everything_again_and_what_was_begun_with_them_is_kept(tmp_path):
    run(tmp_path, tasks(6))
    answers = iter([False, True])
    other = {"model": "two"}
    assert run(tmp_path, tasks(6), settings=other, stopped=lambda: next(answers)).done == 3
    assert run(tmp_path, tasks(6)).done == 0, "the first settings' results are still there"
    assert run(tmp_path, tasks(6), settings=other).kept == 3
    recorded = [r for r in Manifest(tmp_path).records("settings").values()]
    assert [r["values"] for r in recorded] == [SETTINGS, other]


def test_what_was_begun_of_other_things_is_kept_while_these_are_finished(tmp_path):
    others = [Task(f"other {number}", "", number) for number in range(6)]
    answers = iter([False, True])
    assert run(tmp_path, others, stopped=lambda: next(answers)).done == 3
    assert run(tmp_path, tasks(4)).finished
    assert set(Manifest(tmp_path).records("square")) == {task.key for task in tasks(4)}
    assert run(tmp_path, others).kept == 3
    assert not journal_paths(tmp_path, "square", "*")


def test_the_last_record_counts_and_equal_ones_are_not_added(tmp_path):
    manifest = Manifest(tmp_path)
    first, second = ({"step": "a", "key": "x", "value": value} for value in (1, 2))
    assert [manifest.add([first]), manifest.add([first]), manifest.add([second])] == [1, 0, 1]
    assert manifest.record("a", "x") == second == Manifest(tmp_path).record("a", "x")
    assert manifest.record("a", "y") is None and manifest.record("b", "x") is None


def test_any_text_survives(tmp_path):
    texts = ["naïve\n\r\t\u2028\x85", "😀" * 5, "\ud800 a lone half", 'quote " and \\', "\0"]
    Manifest(tmp_path).add({"step": "a", "key": text, "value": text} for text in texts)
    assert [r["value"] for r in Manifest(tmp_path).records("a").values()] == texts


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    with Journal(tmp_path, "a", "x") as journal:
        journal.append([{"key": "one"}])
        raw = journal._file

        class Full:
            room = 5

            def write(self, data):
                if not self.room:
                    raise OSError(28, "No space left on device")
                written = raw.write(bytes(data)[: self.room])
                self.room -= written
                return written

            def __getattr__(self, name):
                return getattr(raw, name)

        journal._file = Full()
        with pytest.raises(OSError, match="No space left.*what was done before is kept") as told:
            journal.append([{"key": "two"}])
        assert told.value.filename == str(journal.path)
        journal._file = raw
        journal.append([{"key": "three"}])
    assert read_journal(journal.path) == [{"key": "one"}, {"key": "three"}]


@pytest.mark.parametrize(
    "written, said",
    [
        (b"", "no manifest of this program"),
        (b'{"format": "something else"}\n', "its first line should be"),
        (b'{"format": "surd-manifest", "version": 1}\nrubbish\n', "line 2 is no record"),
        (b'{"format": "surd-manifest", "version": 1}\n{"step": "a"}\n', "line 2 is no record"),
        (b'{"format": "surd-manifest", "version": 2}\n', "newer version of this program"),
    ],
)
def test_a_damaged_manifest_is_refused_and_left_alone(tmp_path, written, said):
    (tmp_path / "manifest.jsonl").write_bytes(written)
    with pytest.raises(SurdBuildError, match=said):
        Manifest(tmp_path)
    assert content(tmp_path) == written


def test_two_programs_cannot_work_in_one_folder(tmp_path):
    with (
        alone_in(tmp_path),
        pytest.raises(SurdBuildError, match="another program is working"),
        alone_in(tmp_path),
    ):
        pass
    with alone_in(tmp_path):
        pass
