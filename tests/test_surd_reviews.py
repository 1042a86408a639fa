"""People's decisions: what logs come to, what crashes leave, how several people's are put together."""

from __future__ import annotations

import itertools
import json
import random
import resource

import pytest

from sur_core.surd_build.manifest import Manifest, SurdBuildError, hash_of
from sur_core.surd_build.review.book import Book, UnknownUndo
from sur_core.surd_build.review.merge import merge_logs
from sur_core.surd_build.review.view import FILTERS, ORDERS, Gallery, UnknownList, Wish
from sur_core.surd_build.reviews import decide, fingerprints, read_log, read_said
from sur_core.surd_build.samples import read_samples
from tests.review_runs import caption_anew, make_work, png, read_decisions, records_of

A, B, C = (f"{number:020x}" for number in (10, 11, 12))
_marks = itertools.count()


def act(book: Book, id: str, action: str, **texts) -> None:
    assert book.act(id, action, f"mark-{next(_marks):08d}", **texts)


def write(folder, reviewer: str, *actions) -> None:
    """Actions (id, name) or (id, "edit", {texts}) by a reviewer."""
    with Book(folder, reviewer) as book:
        for id, action, *texts in actions:
            act(book, id, action, **(texts[0] if texts else {}))


def samples_of(folder) -> dict:
    return {sample.id: sample for sample in read_samples(Manifest(folder))}


def test_what_was_decided_is_read_back(tmp_path):
    write(tmp_path, "anna", (A, "keep"), (B, "drop"), (C, "edit", {"simple": "ein Fuchs 🦊\nim Schnee"}))
    found = read_decisions(tmp_path)
    assert [found[id].verdict for id in (A, B, C)] == ["keep", "drop", ""]
    assert (found[C].simple, found[C].complex, found[C].by) == ("ein Fuchs 🦊\nim Schnee", "", "anna")


def test_no_log_is_no_decision(tmp_path):
    assert read_decisions(tmp_path) == {}


def test_undo_takes_back_one_action_after_the_other(tmp_path):
    steps = [(A, "keep"), (A, "edit", {"complex": "new"}), (A, "drop")]
    wanted = [None, ("keep", ""), ("keep", "new"), ("drop", "new")]
    with Book(tmp_path, "anna") as book:
        for (id, action, *texts), after in zip(steps, wanted[1:], strict=True):
            act(book, id, action, **(texts[0] if texts else {}))
            assert (book.decision(A).verdict, book.decision(A).complex) == after
        for before in reversed(wanted[:-1]):
            act(book, A, "undo")
            found = book.decision(A)
            assert (found and (found.verdict, found.complex)) == before
        with pytest.raises(UnknownUndo):
            book.act(A, "undo", "mark-without-any")
    assert read_decisions(tmp_path) == {}


def test_after_undo_a_decision_has_its_old_time(tmp_path):
    """Otherwise taking back one's slip would overrule what another has decided in between."""
    write(tmp_path, "anna", (A, "keep"))
    write(tmp_path, "ben", (A, "drop"))
    write(tmp_path, "anna", (A, "keep"), (A, "undo"))
    found = read_decisions(tmp_path)[A]
    assert (found.verdict, found.by, found.disagree) == ("drop", "ben", ("anna",))


def test_verdict_and_texts_count_each_by_themselves(tmp_path):
    write(tmp_path, "anna", (A, "drop"), (A, "edit", {"simple": "hers"}))
    write(tmp_path, "ben", (A, "edit", {"complex": "his"}))
    found = read_decisions(tmp_path)[A]
    assert (found.verdict, found.simple, found.complex, found.by) == ("drop", "hers", "his", "anna")
    assert found.disagree == ()


def test_the_newest_verdict_counts_and_others_are_named(tmp_path):
    for reviewer, verdict in (("cleo", "keep"), ("anna", "keep"), ("ben", "drop"), ("dora", "keep")):
        write(tmp_path, reviewer, (A, verdict))
    found = read_decisions(tmp_path)[A]
    assert (found.verdict, found.by, found.disagree) == ("keep", "dora", ("ben",))


def test_the_newest_word_counts_though_the_clock_was_set_back(tmp_path):
    write(tmp_path, "anna", (A, "keep"))
    path = tmp_path / "review/anna.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"at": "20', b'"at": "30'))
    write(tmp_path, "anna", (A, "drop"))
    assert read_decisions(tmp_path)[A].verdict == "drop"


def test_an_action_sent_twice_counts_once(tmp_path):
    with Book(tmp_path, "anna") as book:
        assert book.act(A, "keep", "the-same-mark") and not book.act(A, "keep", "the-same-mark")
    with Book(tmp_path, "anna") as book:
        assert not book.act(A, "keep", "the-same-mark")
        act(book, A, "undo")
        assert book.decision(A) is None
    assert len(read_log(tmp_path / "review/anna.jsonl").actions) == 2


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path):
    write(tmp_path, "anna", (A, "keep"), (B, "drop"))
    path = tmp_path / "review/anna.jsonl"
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        assert read_decisions(tmp_path).keys() == {A}
        with Book(tmp_path, "anna") as book:
            act(book, C, "keep")
        assert read_decisions(tmp_path).keys() == {A, C}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"mark": "12345678", "id": "a", "action": "keep"}',
        b'{"mark": "12345678", "id": "a", "action": "burn", "at": "2026-01-01T00:00:00.000000+00:00"}',
        b'{"mark": "12345678", "id": "a", "action": "edit", "at": "2026-01-01T00:00:00.000000+00:00"}',
        b'{"mark": "12345678", "id": "a", "action": "undo", "at": "2026-01-01T00:00:00.000000+00:00"}',
        b'{"mark": "12345678", "id": "a", "action": "keep", "at": "2026-01-01T00:00:00.000000+00:00",'
        b' "simple_was": "0123456789abcdef"}',
        b'{"mark": "12345678", "id": "a", "action": "drop", "at": "2026-01-01T00:00:00.000000+00:00",'
        b' "simple_was": "0123456789abcdef", "complex_was": "0123456789abcdef"}',
        b'{"mark": 12345678, "id": "a", "action": "keep", "at": "2026-01-01T00:00:00.000000+00:00"}',
    ],
)
def test_a_damaged_line_is_told_with_its_number(tmp_path, line):
    write(tmp_path, "anna", (A, "keep"), (B, "drop"))
    path = tmp_path / "review/anna.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[2:], b""]))
    with pytest.raises(SurdBuildError, match=r"anna\.jsonl: line 3"):
        read_decisions(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b'{"format": "surd-review", "version": 2}\n', b"null\n"]
)
def test_a_foreign_file_among_the_logs_is_told(tmp_path, content):
    (tmp_path / "review").mkdir()
    (tmp_path / "review/notes.jsonl").write_bytes(content)
    with pytest.raises(SurdBuildError, match=r"notes\.jsonl: no review log"):
        read_decisions(tmp_path)


def test_a_log_is_open_once(tmp_path):
    refused = pytest.raises(SurdBuildError, match="another review has this log open")
    with Book(tmp_path, "anna"), Book(tmp_path, "ben"), refused:
        Book(tmp_path, "anna")
    Book(tmp_path, "anna").close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "../anna", ".anna", "anna.", "con", "x" * 41, "a\0b"]
)
def test_a_reviewers_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(SurdBuildError, match="--reviewer"):
        Book(tmp_path, name)


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path):
    with Book(tmp_path, "anna") as book:
        act(book, A, "keep")
        before = book.path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
        try:
            with pytest.raises(OSError, match="could not be written"):
                book.act(B, "drop", "does-not-fit")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert book.path.read_bytes() == before and book.decision(B) is None
        assert book.act(B, "drop", "does-not-fit")
    assert read_decisions(tmp_path)[B].verdict == "drop"


def test_an_open_book_sees_what_others_decide(tmp_path):
    with Book(tmp_path, "anna") as book:
        act(book, A, "keep")
        write(tmp_path, "ben", (A, "drop"), (B, "keep"))
        assert book.refresh() == {A, B} and book.refresh() == set()
        assert book.decision(A).disagree == ("anna",) and book.decision(B).by == "ben"
        (tmp_path / "review/ben.jsonl").unlink()
        assert book.refresh() == {A, B} and book.decision(B) is None


# ---- what a decision is about

OLD, NEW = fingerprints("old", "same"), fingerprints("new", "same")
OTHER = fingerprints("old", "other")


def decided(folder, now) -> tuple:
    """(verdict, simple, complex, [what has lapsed]) for prompts with these fingerprints."""
    found = decide(read_said(folder).get(A, {}), now)
    return found.verdict, found.simple, found.complex, [word.value for word in found.lapsed]


@pytest.mark.parametrize(
    ("steps", "then", "now"),
    [
        ([("keep", OLD)], ("keep", "", "", []), ("", "", "", ["keep"])),
        ([("keep", None)], ("keep", "", "", []), ("keep", "", "", [])),
        ([("drop", None)], ("drop", "", "", []), ("drop", "", "", [])),
        ([("drop", None), ("keep", OLD)], ("keep", "", "", []), ("", "", "", ["keep"])),
        ([("keep", OLD), ("drop", None), ("keep", NEW)], ("", "", "", ["keep"]), ("keep", "", "", [])),
        ([("keep", OLD), ("keep", NEW)], ("keep", "", "", []), ("keep", "", "", [])),
        ([("simple", OLD)], ("", "simple", "", []), ("", "", "", ["simple"])),
        ([("complex", OLD)], ("", "", "complex", []), ("", "", "complex", [])),
        ([("simple", None)], ("", "simple", "", []), ("", "simple", "", [])),
        ([("simple", OLD), ("keep", NEW)], ("", "simple", "", ["keep"]), ("keep", "", "", [])),
        ([("keep", OLD), ("simple", OLD)], ("keep", "simple", "", []), ("", "", "", ["keep", "simple"])),
    ],
)  # fmt: skip
def test_a_word_counts_for_the_prompts_it_was_said_of(tmp_path, steps, then, now):
    with Book(tmp_path, "anna") as book:
        for action, was in steps:
            texts = {action: action} if action in ("simple", "complex") else {}
            act(book, A, "edit" if texts else action, was=was, **texts)
    assert decided(tmp_path, OLD) == then
    assert decided(tmp_path, NEW) == now
    with Book(tmp_path, "anna") as book:
        assert book.own_verdict(A, NEW) == now[0]


def test_a_keep_is_about_both_prompts(tmp_path):
    with Book(tmp_path, "anna") as book:
        act(book, A, "keep", was=OLD)
    assert decided(tmp_path, OTHER) == ("", "", "", ["keep"])


def test_a_lapsed_word_leaves_it_to_the_others_who_is_right(tmp_path):
    write(tmp_path, "ben", (A, "drop"))
    with Book(tmp_path, "anna") as book:
        act(book, A, "keep", was=OLD)
        assert (book.decision(A, OLD).verdict, book.decision(A, OLD).disagree) == ("keep", ("ben",))
        found = book.decision(A, NEW)
        assert (found.verdict, found.by, found.disagree) == ("drop", "ben", ())
        assert [(word.by, word.value) for word in found.lapsed] == [("anna", "keep")]


def test_what_has_lapsed_can_be_undone(tmp_path):
    with Book(tmp_path, "anna") as book:
        act(book, A, "keep", was=OLD)
        act(book, A, "undo")
        assert book.decision(A, NEW) is None


def test_a_merge_keeps_what_decisions_are_about(tmp_path):
    with Book(tmp_path / "theirs", "ben") as book:
        act(book, A, "keep", was=OLD)
    merge_logs(tmp_path / "ours", [tmp_path / "theirs/review/ben.jsonl"], {A})
    assert decided(tmp_path / "ours", NEW) == ("", "", "", ["keep"])


# ---- several files of one reviewer


def copied(folder) -> None:
    """As a program does that keeps two machines' folders alike: anna has gone on deciding on both."""
    write(folder, "anna", (A, "keep"), (B, "keep"))
    log = folder / "review/anna.jsonl"
    before = log.read_bytes()
    write(folder, "anna", (A, "drop"), (C, "drop"))
    log.rename(folder / "review/anna2.jsonl")
    log.write_bytes(before)
    write(folder, "anna", (B, "undo"), (B, "edit", {"simple": "new"}))


def test_two_files_of_one_reviewer_are_one_log(tmp_path):
    copied(tmp_path)
    found = read_decisions(tmp_path)
    assert {id: (one.verdict, one.simple) for id, one in found.items()} == {
        A: ("drop", ""), B: ("", "new"), C: ("drop", ""),
    }  # fmt: skip
    assert {one.disagree for one in found.values()} == {()}
    with Book(tmp_path, "anna") as book:
        assert {id: book.decision(id) for id in (A, B, C)} == found
        assert book.own_verdict(C) == "drop"
        assert book.history(9) == [A, A, C, B]
        act(book, C, "undo")
        assert book.decision(C) is None
    assert C not in read_decisions(tmp_path)
    with Book(tmp_path, "ben") as book:
        assert {id: book.decision(id) for id in (A, B)} == {id: found[id] for id in (A, B)}


def test_the_newest_word_counts_though_the_copys_clock_was_ahead(tmp_path):
    copied(tmp_path)
    copy = tmp_path / "review/anna2.jsonl"
    copy.write_bytes(copy.read_bytes().replace(b'"at": "20', b'"at": "30'))
    write(tmp_path, "anna", (A, "keep"))
    assert read_decisions(tmp_path)[A].verdict == "keep"


# ---- merging


def test_logs_merged_in_any_order_and_again_come_to_the_same(tmp_path):
    draw = random.Random(7)
    for reviewer in ("anna", "ben", "cleo"):
        actions = [(draw.choice((A, B, C)), draw.choice(("keep", "drop"))) for _ in range(12)]
        write(tmp_path / "all", reviewer, *actions, (actions[-1][0], "undo"))
    logs = sorted((tmp_path / "all/review").glob("*.jsonl"))
    wanted = read_decisions(tmp_path / "all")
    for number, order in enumerate(itertools.permutations(logs)):
        for _ in range(2):
            merge_logs(tmp_path / f"{number}", order, {A, B, C})
        assert read_decisions(tmp_path / f"{number}") == wanted


def test_a_log_that_has_grown_is_merged_again_without_doubling(tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    file = theirs / "review/ben.jsonl"
    write(theirs, "ben", (A, "keep"))
    merge_logs(ours, [file], {A, B})
    write(theirs, "ben", (A, "undo"), (B, "drop"))
    (merged,) = merge_logs(ours, [file], {A, B})
    assert (merged.reviewer, merged.added, merged.known, merged.foreign) == ("ben", 2, 1, 0)
    assert (ours / "review/ben.jsonl").read_bytes() == file.read_bytes()


def test_foreign_samples_are_refused_and_counted(tmp_path):
    write(tmp_path / "theirs", "ben", (A, "keep"), (B, "drop"), (C, "drop"))
    (merged,) = merge_logs(tmp_path / "ours", [tmp_path / "theirs/review/ben.jsonl"], {A})
    assert (merged.added, merged.foreign) == (1, 2)
    assert read_decisions(tmp_path / "ours").keys() == {A}
    with pytest.raises(SurdBuildError, match="another data set"):
        merge_logs(tmp_path / "other", [tmp_path / "theirs/review/ben.jsonl"], {"0" * 20})
    assert read_decisions(tmp_path / "other") == {}


def test_two_people_of_one_name_are_never_mixed(tmp_path):
    write(tmp_path / "ours", "anna", (A, "keep"))
    write(tmp_path / "theirs", "anna", (A, "drop"))
    before = (tmp_path / "ours/review/anna.jsonl").read_bytes()
    with pytest.raises(SurdBuildError, match="not overwritten"):
        merge_logs(tmp_path / "ours", [tmp_path / "theirs/review/anna.jsonl"], {A})
    assert (tmp_path / "ours/review/anna.jsonl").read_bytes() == before


def test_a_bad_file_stops_a_merge_before_it_begins(tmp_path):
    write(tmp_path / "theirs", "ben", (A, "keep"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    with pytest.raises(SurdBuildError, match=r"bad\.jsonl"):
        merge_logs(tmp_path / "ours", [tmp_path / "theirs/review/ben.jsonl", bad], {A})
    assert read_decisions(tmp_path / "ours") == {}


# ---- what the page lists


@pytest.fixture
def work(tmp_path):
    """30 samples, every third left out by the rule; three more without a caption, one never a sample."""
    make_work(tmp_path, [png(number) for number in range(30)])
    manifest = Manifest(tmp_path / "work")
    for number in range(30, 33):
        manifest.add(records_of(number, f"mine/{number:05d}.png", f"{number:020x}", 9, caption=False))
    manifest.add(
        [
            {
                "step": "select",
                "key": "mine/x.png",
                "file": "mine/x.png",
                "id": "e" * 20,
                "dropped": "too small: 1",
            }
        ]
    )
    return tmp_path / "work"


def test_what_the_page_says_is_what_the_data_set_gets(work):
    """The page's own account, kept up with every action, against reading all logs anew."""
    draw = random.Random(3)
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        ids = [id for id, sample in samples_of(work).items() if sample.dropped[:1] != ("select",)]
        for step in range(150):
            id, action = draw.choice(ids), draw.choice(("keep", "drop", "edit", "undo"))
            texts = {draw.choice(("simple", "complex")): f"text {step}"} if action == "edit" else {}
            try:
                gallery.act(id, action, f"mark-{step:08d}", **texts)
            except UnknownUndo:
                continue
        anew = Gallery(work, book)
        assert gallery.counts() == anew.counts()
    samples = samples_of(work)
    for id in ids:
        shown = gallery.detail(id)
        assert shown["in"] == (not samples[id].dropped)
        assert (shown["simple"], shown["complex"]) == (samples[id].simple, samples[id].complex)
    assert gallery.counts()["in"] == sum(not sample.dropped for sample in samples.values())
    assert 0 < gallery.counts()["in"] < len(ids) == gallery.counts()["all"]


def listed(gallery: Gallery, **wish) -> list[dict]:
    found = gallery.open_list(Wish(**wish))
    return gallery.window(found["list"], 0, found["total"])


def test_every_filter_shows_as_many_as_it_counts(work):
    ids = list(samples_of(work))
    write(work, "anna", (ids[0], "keep"), (ids[1], "drop"), (ids[2], "edit", {"simple": "new"}))
    write(work, "ben", (ids[0], "drop"))
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        counts = gallery.counts()
        assert {name: len(listed(gallery, filter=name)) for name in FILTERS} == {
            name: counts[name] for name in FILTERS
        }
        assert (counts["all"], counts["undecided"], counts["kept"], counts["dropped"]) == (33, 31, 0, 2)
        assert (counts["rule"], counts["edited"], counts["disagree"]) == (12, 1, 1)
        assert [row["id"] for row in listed(gallery, filter="disagree")] == [ids[0]]


def judged_samples(work) -> dict[int, str]:
    """{number of the sample: why the rule leaves it out}."""
    found = (sample for sample in samples_of(work).values() if sample.dropped[:1] == ("clean",))
    return {int(sample.name[-9:-4]): sample.dropped[1] for sample in found}


@pytest.mark.parametrize("change", ["caption", "edit", "select"])
def test_what_clip_said_of_other_prompts_does_not_count(work, change):
    ids = list(samples_of(work))
    assert judged_samples(work).keys() == set(range(2, 30, 3))
    manifest = Manifest(work)
    if change == "caption":
        caption_anew(work, ids[2], "by another model")
    elif change == "edit":
        write(work, "anna", (ids[2], "edit", {"simple": "mended"}))
    else:
        select = manifest.record("select", "mine/00002.png")
        manifest.add([{**select, "complex": "cleaned anew"}])
    sample = samples_of(work)[ids[2]]
    assert (sample.dropped, sample.scores) == ((), {})
    assert 2 not in judged_samples(work)
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        shown = gallery.detail(ids[2])
        assert (shown["in"], shown["left_out"], shown["scores"]) == (True, "", {})
        gallery.act(ids[5], "edit", "mark-of-the-edit", complex="another")
        assert gallery.detail(ids[5])["in"]
        gallery.act(ids[5], "undo", "mark-of-the-undo")
        assert not gallery.detail(ids[5])["in"] and gallery.detail(ids[5])["scores"]


def test_a_keep_vouches_for_the_prompts_that_were_seen(work):
    id = list(samples_of(work))[2]  # left out by the rule
    old = Manifest(work).record("caption", id)["caption"]
    with Book(work, "anna") as book:
        Gallery(work, book).act(id, "keep", "mark-of-the-keep")
    assert samples_of(work)[id].dropped == ()
    caption_anew(work, id, "by another model")
    now = hash_of("by another model", samples_of(work)[id].complex)
    Manifest(work).add([{"step": "rule", "key": id, "of": now, "dropped": "lower CLIP score: 0.1"}])
    sample = samples_of(work)[id]
    assert sample.dropped[0] == "clean" and sample.decision.verdict == ""
    (word,) = sample.decision.lapsed
    assert (word.by, word.what, word.value) == ("anna", "verdict", "keep")
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        assert [row["id"] for row in listed(gallery, filter="changed")] == [id]
        assert gallery.counts()["undecided"] == gallery.counts()["all"]
    caption_anew(work, id, old)
    assert samples_of(work)[id].decision.verdict == "keep"


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_kept_both_ways_and_the_unscored_come_last(work, order):
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        samples = samples_of(work)
        for descending in (False, True):
            rows = listed(gallery, sort=order, descending=descending)
            assert len({row["id"] for row in rows}) == 33
            if order == "name":
                values = [row["name"] for row in rows]
            else:
                found = [ORDERS[order](samples[row["id"]]) for row in rows]
                values = [value for value in found if value is not None]
                assert found[: len(values)] == values
            assert values == sorted(values, reverse=descending)


def test_search_finds_all_words_anywhere_in_prompts_and_names_as_they_are_now(work):
    ids = list(samples_of(work))
    write(work, "anna", (ids[4], "edit", {"simple": "Größe zählt"}))
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        assert [row["id"] for row in listed(gallery, search="GRÖSSE soup")] == [ids[4]]
        assert len(listed(gallery, search="lighthouse dramatic")) == 6
        assert [row["name"] for row in listed(gallery, search="00017")] == ["mine/00017.png"]
        assert listed(gallery, search="nowhere") == []


def test_a_list_stays_as_it_is_while_decisions_are_made(work):
    with Book(work, "anna") as book:
        gallery = Gallery(work, book)
        found = gallery.open_list(Wish(filter="undecided"))
        before = [row["id"] for row in gallery.window(found["list"], 0, 99)]
        gallery.act(before[0], "keep", "mark-of-the-first")
        rows = gallery.window(found["list"], 0, 99)
        assert [row["id"] for row in rows] == before and rows[0]["verdict"] == "keep"
        again = gallery.open_list(Wish(filter="undecided"), at=before[5])
        assert (again["total"], again["index"], again["found"]) == (len(before) - 1, 4, True)
        assert gallery.open_list(Wish(), at=A)["index"] == 1  # the first undecided
        with pytest.raises(UnknownList):
            gallery.window("0" * 16, 0, 1)


def test_the_log_says_no_more_than_was_decided(tmp_path):
    write(tmp_path, "anna", (A, "keep"))
    header, line = map(json.loads, (tmp_path / "review/anna.jsonl").read_text().splitlines())
    assert header.keys() == {"format", "version", "reviewer", "log"}
    assert line.keys() == {"mark", "id", "action", "at"}
