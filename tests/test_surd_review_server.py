"""The review server: who is let in, what it hands out, and that no decision is lost."""

from __future__ import annotations

import hmac
import http.client
import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from PIL import Image

from sur_core.surd_build.manifest import SurdBuildError
from sur_core.surd_build.review.access import session_secret
from sur_core.surd_build.review.server import ASSETS, MAX_BODY, PAGE, ReviewServer
from sur_core.surd_build.reviews import VERDICTS, read_log
from sur_core.surd_build.shell import as_typed
from tests.review_runs import (
    PROJECT,
    Client,
    ReviewProgram,
    caption_anew,
    log_lines,
    make_work,
    png,
    read_decisions,
)

FOREIGN = "http://127.0.0.1:1"


def picture(number: int = 0, kind: str = "PNG", size=(400, 300), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 90, 160)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where the browser's secret is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/surd-review"


class Running:
    """A server in this process over a work folder; ``client`` is let in already."""

    def __init__(self, folder, images, **options):
        self.ids = make_work(folder, images, **options)
        self.work, self.pictures = folder / "work", folder / "pictures"
        self.server = ReviewServer(self.work, "anna", 0)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.stranger = Client(self.server.url)
        self.client = Client(self.server.url)

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def run(tmp_path):
    running = Running(tmp_path, [picture(number) for number in range(4)])
    running.client.enter()
    yield running
    running.stop()


@pytest.fixture
def closed_run(tmp_path):
    """A server whose token nobody has used yet."""
    running = Running(tmp_path, [png(0)])
    yield running
    running.stop()


def paths(id: str) -> list[str]:
    rows = "/api/rows?list=0&start=0&count=1"
    return [
        "/",
        *ASSETS,
        "/api/state",
        "/api/list",
        rows,
        f"/api/sample/{id}",
        f"/image/{id}",
        f"/thumbnail/{id}",
    ]


# ---- who is let in


def test_nothing_is_shown_without_the_cookie(run):
    for path in (*paths(run.ids[0]), "/nowhere", "/?token=", f"/?token={'x' * 43}"):
        for cookie in (None, f"surd_review_{run.server.server_port}=", "a=b; ;=", "surd_review=\xff"):
            status, headers, body = run.stranger.ask("GET", path, Cookie=cookie)
            assert status == 403 and "Set-Cookie" not in headers, path
            assert "address" in json.loads(body)["error"]
    assert run.stranger.decide(run.ids[0], "keep", "mark-0001")[0] == 403
    assert log_lines(run.work) == []


def test_all_is_shown_with_it(run):
    for path in paths(run.ids[0]):
        status, headers, _ = run.client.ask("GET", path)
        assert status == (410 if "list=0" in path else 200), path
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_address_works_once(closed_run):
    client = Client(closed_run.server.url)
    status, headers, _ = client.ask("GET", f"/?token={client.token}")
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(headers["Set-Cookie"].split("; "))
    assert closed_run.stranger.ask("GET", f"/?token={client.token}")[0] == 403
    client.cookie = headers["Set-Cookie"].partition(";")[0]
    assert client.ask("GET", f"/?token={client.token}")[0] == 200  # the same browser may go back to it


def test_only_one_of_many_at_once_is_let_in(closed_run):
    path = f"/?token={closed_run.stranger.token}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: closed_run.stranger.ask("GET", path)[0], range(16)))
    assert sorted(answers) == [200] + [403] * 15


def test_a_browser_that_looks_ahead_does_not_use_the_address_up(closed_run):
    path = f"/?token={closed_run.stranger.token}"
    assert closed_run.stranger.ask("GET", path, Sec_Purpose="prefetch;prerender")[0] == 503
    assert closed_run.stranger.ask("GET", path)[0] == 200


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"]
)
def test_another_host_is_refused(run, host):
    """A foreign name made to resolve to 127.0.0.1 still says its own name."""
    headers = {"Host": host and host.format(port=run.server.server_port)}
    for path in paths(run.ids[0]):
        assert run.client.ask("GET", path, **headers)[0] == 403
    assert run.client.decide(run.ids[0], "keep", "mark-0001", headers)[0] == 403
    assert log_lines(run.work) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_is_refused(run, headers):
    for path in paths(run.ids[0]):
        assert run.client.ask("GET", path, **headers)[0] == 403
    assert run.client.decide(run.ids[0], "keep", "mark-0001", headers)[0] == 403
    assert log_lines(run.work) == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": None}, {"X_Surd_Review": None}, {"Content_Type": "text/plain"}, {"Content_Type": None}],
)
def test_a_write_that_a_form_could_send_is_refused(run, headers):
    assert run.client.decide(run.ids[0], "keep", "mark-0001", headers)[0] in (403, 415)
    assert log_lines(run.work) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_do_nothing(run, method):
    status, headers, _ = run.client.ask(method, "/api/decisions")
    assert status == 501 and "Access-Control-Allow-Origin" not in headers


def test_only_this_machine_is_served(run):
    assert run.server.server_address[0] == "127.0.0.1"


# ---- files


@pytest.mark.parametrize(
    "id",
    [
        "../../secret.txt",
        "..%2f..%2fsecret.txt",
        "%2e%2e/%2e%2e/secret.txt",
        "....//secret.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "00000.png",
        "mine/00000.png",
        "mine%2f..%2f..%2fsecret.txt",
        "{id}/../../../secret.txt",
        "{id}%00",
        "{id}.webp",
        "C:%5Csecret.txt",
        "%ff%fe",
        "",
    ],
)
def test_a_path_in_place_of_a_samples_id_is_not_found(run, tmp_path, id):
    (tmp_path / "secret.txt").write_text("secret")
    for room in ("image", "thumbnail", "api/sample", "page"):
        status, _, body = run.client.ask("GET", f"/{room}/{id.format(id=run.ids[0])}")
        assert status == 404 and b"secret" not in body


def test_a_link_is_followed_to_the_very_file_that_was_collected_and_to_no_other(run, tmp_path):
    """collect follows links, as people keep pictures on several disks; what else lies there stays unseen."""
    first, second, third, fourth = sorted(run.pictures.iterdir())
    outside = tmp_path / "outside"
    outside.mkdir()
    first.rename(outside / first.name)
    first.symlink_to(outside / first.name)
    (outside / "another.png").write_bytes(picture(99))
    second.unlink()
    second.symlink_to(outside / "another.png")
    third.unlink()
    third.symlink_to(third)
    fourth.unlink()
    fourth.symlink_to(outside)
    statuses = [
        [run.client.ask("GET", f"/{room}/{id}")[0] for room in ("image", "thumbnail")] for id in run.ids
    ]
    assert statuses == [[200, 200], [403, 403], [404, 404], [403, 403]]


def test_a_source_reached_through_a_link_is_shown(tmp_path):
    ids = make_work(tmp_path, [png(0)])
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    (tmp_path / "pictures").symlink_to("elsewhere")
    with ReviewServer(tmp_path / "work", "anna", 0) as server:
        assert server.image(ids[0], small=False).body == png(0)


def test_a_file_that_is_another_by_now_is_refused(run):
    """A decision about it would be about the picture that was collected."""
    paths = sorted(run.pictures.iterdir())
    paths[0].write_bytes(picture(200))
    paths[1].unlink()
    for room in ("image", "thumbnail"):
        status, answer = run.client.get(f"/{room}/{run.ids[0]}")
        assert status == 403 and "has changed since it was collected" in answer["error"]
        status, answer = run.client.get(f"/{room}/{run.ids[1]}")
        assert status == 404 and "gone" in answer["error"]


def test_images_are_shown_as_they_are_and_thumbnails_made_once(run):
    path = sorted(run.pictures.iterdir())[0]
    status, headers, body = run.client.ask("GET", f"/image/{run.ids[0]}")
    assert (status, headers["Content-Type"], body) == (200, "image/png", path.read_bytes())
    status, headers, small = run.client.ask("GET", f"/thumbnail/{run.ids[0]}")
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (256, 192)
        assert max(abs(a - b) for a, b in zip(image.convert("RGB").getpixel((9, 9)), (0, 90, 160))) < 8  # noqa: B905
    path.unlink()
    assert run.client.ask("GET", f"/thumbnail/{run.ids[0]}")[2] == small
    files = [file.name for file in (run.work / "thumbnails").rglob("*") if file.is_file()]
    assert files == [f"{run.ids[0]}.webp"]


def test_thumbnails_asked_for_by_many_at_once_are_whole(run):
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: run.client.ask("GET", f"/thumbnail/{run.ids[n % 4]}"), range(48)))
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 4


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_kind_of_image_comes_as_one_that_browsers_show(tmp_path, kind):
    run = Running(tmp_path, [picture(5, kind)], suffix=kind.lower())
    try:
        status, headers, body = run.client.enter().ask("GET", f"/image/{run.ids[0]}")
        shown = kind if kind in ("JPEG", "WEBP", "GIF", "BMP") else "JPEG"
        assert (status, headers["Content-Type"]) == (200, f"image/{shown.lower()}")
        with Image.open(io.BytesIO(body)) as image:
            assert (image.format, image.size) == (shown, (400, 300))
        assert run.client.ask("GET", f"/thumbnail/{run.ids[0]}")[0] == 200
    finally:
        run.stop()


def test_a_broken_image_is_told_and_the_server_goes_on(tmp_path):
    run = Running(tmp_path, [picture(1)[:200], b"no image at all", picture(2)])
    try:
        run.client.enter()
        for id in run.ids[:2]:
            status, answer = run.client.get(f"/thumbnail/{id}")
            assert status == 422 and answer["error"].startswith("mine/0000")
        assert run.client.ask("GET", f"/thumbnail/{run.ids[2]}")[0] == 200
    finally:
        run.stop()


# ---- decisions


def test_a_decision_is_on_the_disk_when_it_is_answered(run):
    status, answer = run.client.decide(run.ids[0], "keep", "mark-0001")
    assert status == 200 and answer["sample"]["verdict"] == "keep" and answer["counts"]["kept"] == 1
    assert [line["action"] for line in log_lines(run.work)] == ["keep"]
    status, answer = run.client.decide(run.ids[0], "edit", "mark-0002", simple="  a fox, seen  ")
    assert answer["sample"]["simple"] == "a fox, seen" and answer["sample"]["verdict"] == "keep"
    for mark, verdict in (("mark-0003", "keep"), ("mark-0004", "")):
        status, answer = run.client.decide(run.ids[0], "undo", mark)
        assert status == 200 and answer["sample"]["verdict"] == verdict
    assert run.client.decide(run.ids[0], "undo", "mark-0005")[0] == 409
    assert read_decisions(run.work) == {} and len(log_lines(run.work)) == 4


def test_a_decision_sent_again_is_answered_and_written_once(run):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: run.client.decide(run.ids[0], "drop", "mark-0001"), range(16)))
    assert {status for status, _ in answers} == {200}
    assert len(log_lines(run.work)) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b"[" * 50_000, 400),
        (b'{"id": "%(id)s", "action": "keep"}', 400),
        (b'{"id": "%(id)s", "action": "keep", "mark": "short"}', 400),
        (b'{"id": "%(id)s", "action": "burn", "mark": "mark-0001"}', 400),
        (b'{"id": 5, "action": "keep", "mark": "mark-0001", "was": %(was)s}', 400),
        (b'{"id": "%(id)s", "action": "keep", "mark": "mark-0001", "was": %(was)s, "path": "x"}', 400),
        (b'{"id": "%(id)s", "action": "keep", "mark": "mark-0001", "was": %(was)s, "simple": "x"}', 400),
        (b'{"id": "%(id)s", "action": "keep", "mark": "mark-0001"}', 400),
        (b'{"id": "%(id)s", "action": "keep", "mark": "mark-0001", "was": {}}', 400),
        (b'{"id": "%(id)s", "action": "keep", "mark": "mark-0001", "was": ["simple", "complex"]}', 400),
        (b'{"id": "%(id)s", "action": "drop", "mark": "mark-0001", "was": {"simple": 1, "complex": 2}}', 400),
        (b'{"id": "%(id)s", "action": "edit", "mark": "mark-0001", "was": %(was)s}', 400),
        (b'{"id": "%(id)s", "action": "edit", "mark": "mark-0001", "was": %(was)s, "simple": "  "}', 400),
        (
            b'{"id": "%(id)s", "action": "edit", "mark": "mark-0001", "was": %(was)s, "simple": "\\ud800"}',
            400,
        ),
        (
            b'{"id": "%(id)s", "action": "edit", "mark": "mark-0001", "was": %(was)s, "simple": "a\\u0000"}',
            400,
        ),
        (b'{"id": "00000000000000000000", "action": "keep", "mark": "mark-0001", "was": %(was)s}', 404),
        (b'{"id": "../%(id)s", "action": "keep", "mark": "mark-0001", "was": %(was)s}', 404),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
def test_a_bad_decision_is_told_and_changes_nothing(run, body, status):
    headers = {"Origin": f"http://127.0.0.1:{run.server.server_port}", "X_Surd_Review": "1"}
    body = body.replace(b"%(id)s", run.ids[0].encode())
    body = body.replace(b"%(was)s", json.dumps(run.client.was(run.ids[0])).encode())
    got, _, answer = run.client.ask(
        "POST", "/api/decisions", body, Content_Type="application/json", **headers
    )
    assert got == status and json.loads(answer)["error"]
    assert log_lines(run.work) == []


def test_rows_come_in_windows_of_a_bounded_size(run):
    status, found = run.client.get("/api/list?sort=margin&descending=1")
    assert status == 200 and found["total"] == 4
    status, answer = run.client.get(f"/api/rows?list={found['list']}&start=1&count=99999999")
    margins = [row["margin"] for row in answer["rows"]]
    assert len(margins) == 3 and margins == sorted(margins, reverse=True)
    for query in ("list=0&start=0&count=1", f"list={found['list']}&start=-1&count=1", "start=0"):
        assert run.client.get(f"/api/rows?{query}")[0] in (400, 410)
    assert run.client.get("/api/list?filter=burnt")[0] == 400


# ---- crashes, restarts, several people


def test_killed_at_any_moment_no_answered_decision_is_lost(tmp_path):
    ids = make_work(tmp_path, [png(number) for number in range(400)])
    todo, answered = queue.Queue(), []
    for number in range(len(ids)):
        todo.put(number)

    def send_all(client: Client) -> None:
        with suppress(OSError, http.client.HTTPException, ValueError, queue.Empty):  # dead, or all is sent
            while True:
                number = todo.get_nowait()
                assert client.decide(ids[number], VERDICTS[number % 2], f"mark-{number:06d}")[0] == 200
                answered.append(number)

    cookie, port = "", 0
    for _ in range(3):
        enough = len(answered) + 60
        with ReviewProgram(tmp_path / "work", "anna", port) as program, ThreadPoolExecutor(4) as pool:
            client, port = Client(program.url), program.port
            client.cookie = cookie or client.enter().cookie  # the browser of before the crash is still known
            cookie = client.cookie
            senders = [pool.submit(send_all, client) for _ in range(4)]
            while len(answered) < enough and not all(sender.done() for sender in senders):
                time.sleep(0.001)
            program.kill()
            for sender in senders:
                sender.result()
    found = read_decisions(tmp_path / "work")
    assert len(answered) >= 180
    assert {found[ids[number]].verdict == VERDICTS[number % 2] for number in answered} == {True}
    assert len(found) <= len(answered) + 3 * 4  # written, but killed before the answer


def test_ctrl_c_ends_the_program_and_says_where_the_decisions_are(tmp_path):
    ids = make_work(tmp_path, [png(number) for number in range(3)])
    with ReviewProgram(tmp_path / "work", "anna") as program:
        Client(program.url).enter().decide(ids[0], "keep", "mark-0001")
        words = program.interrupt()
    assert "1 of 3 decided" in words and "anna.jsonl" in words


def test_a_second_page_of_one_reviewer_is_refused_and_of_another_not(run, tmp_path):
    with pytest.raises(SurdBuildError, match="another review has this log open"):
        ReviewServer(run.work, "anna", 0)
    with ReviewServer(run.work, "ben", 0) as other:
        run.client.decide(run.ids[0], "keep", "mark-0001")
        other.gallery.act(run.ids[0], "drop", "mark-0002")
        _, state = run.client.get("/api/state")
        assert (state["counts"]["dropped"], state["counts"]["disagree"]) == (1, 1)


def test_a_taken_port_is_told_and_the_log_is_free_again(run):
    with pytest.raises(OSError, match="--port"):
        ReviewServer(run.work, "ben", run.server.server_port)
    ReviewServer(run.work, "ben", 0).server_close()


def test_a_folder_without_a_manifest_is_left_alone(tmp_path):
    with pytest.raises(SurdBuildError, match="run collect first"):
        ReviewServer(tmp_path / "misspelt", "anna", 0)
    assert not (tmp_path / "misspelt").exists()


def test_the_session_is_for_the_user_alone_and_not_in_the_work_folder(run, cache):
    (path,) = cache.iterdir()
    assert path.stat().st_mode & 0o077 == 0 and cache.stat().st_mode & 0o077 == 0
    secret = path.read_text()
    assert secret in run.client.cookie
    assert run.server.gate.token not in secret
    written = [file.read_bytes() for file in run.work.rglob("*") if file.is_file()]
    assert written and not any(secret.encode() in content for content in written)


def test_a_session_ends_after_a_day_and_is_each_folders_own(tmp_path, cache):
    first = session_secret(tmp_path / "one", "anna")
    assert session_secret(tmp_path / "one", "anna") == first
    assert (
        len({first, session_secret(tmp_path / "one", "ben"), session_secret(tmp_path / "two", "anna")}) == 3
    )
    for path in cache.iterdir():
        os.utime(path, (time.time() - 86_500,) * 2)
    assert session_secret(tmp_path / "one", "anna") != first


def test_a_session_that_others_can_read_is_not_used(tmp_path, cache):
    first = session_secret(tmp_path, "anna")
    (path,) = cache.iterdir()
    path.chmod(0o644)
    assert session_secret(tmp_path, "anna") != first
    assert path.stat().st_mode & 0o077 == 0


def test_without_a_place_for_the_secret_the_page_opens_still(tmp_path, monkeypatch, caplog):
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-folder"))
    assert len(session_secret(tmp_path, "anna")) == 43
    assert "must be opened anew after a restart" in caplog.text


def test_the_door_is_the_users_own_leads_in_once_and_goes_with_the_server(tmp_path):
    make_work(tmp_path, [png(0)])
    with ReviewServer(tmp_path / "work", "anna", 0) as server:
        door = server.door()
        assert door.stat().st_mode & 0o077 == 0
        assert server.url in door.read_text()
    assert not door.exists()


def test_the_door_is_gone_once_it_was_used(closed_run):
    door = closed_run.server.door()
    closed_run.stranger.ask("GET", "/?token=wrong")
    assert door.exists()
    # A browser says this of a file that leads here.
    assert (
        closed_run.stranger.ask("GET", f"/?token={closed_run.stranger.token}", Sec_Fetch_Site="cross-site")[0]
        == 200
    )
    assert not door.exists()


def test_the_server_proves_that_it_is_the_one_the_page_knows(run):
    _, state = run.client.get("/api/state")
    for nonce in ("one", "two"):
        status, answer = run.stranger.get(f"/api/proof?nonce={nonce}")
        words = f"{run.server.server_port} {nonce}".encode()
        assert status == 200
        assert answer["proof"] == hmac.digest(bytes.fromhex(state["key"]), words, "sha256").hex()
    assert state["key"] not in json.dumps(answer)
    assert run.stranger.ask("GET", "/api/proof?nonce=one", Origin="http://evil.example")[0] == 403


@pytest.mark.parametrize(("system", "wanted"), [("nt", '"C:\\my work"'), ("posix", "'C:\\my work'")])
def test_the_command_to_type_is_quoted_as_the_system_reads_it(monkeypatch, system, wanted):
    monkeypatch.setattr("sur_core.surd_build.shell.on_windows", lambda: system == "nt")
    assert as_typed(["python", "C:\\my work"]) == f"python {wanted}"


# ---- prompts that change while a page is open


def test_a_decision_about_prompts_that_are_not_there_any_more_is_written_but_does_not_count(run):
    first, second = run.ids[:2]
    was = {id: run.client.was(id) for id in run.ids}
    for id in (first, second):
        caption_anew(run.work, id, "another caption")
    for number, (id, action, text) in enumerate([(first, "keep", {}), (second, "edit", {"simple": "typed"})]):
        status, answer = run.client.send(id, action, f"mark-000{number}", was=was[id], **text)
        sample = answer["sample"]
        assert (status, answer["current"], sample["verdict"], sample["simple"]) == (
            200,
            False,
            "",
            "another caption",
        )
        (word,) = sample["lapsed"]
        assert (word["by"], word["value"]) == ("anna", text.get("simple", "keep"))
    status, answer = run.client.send(first, "keep", "mark-0000", was=was[first])  # its answer was lost
    assert (status, answer["current"]) == (200, False) and len(log_lines(run.work)) == 2
    assert answer["counts"]["changed"] == 2 and answer["counts"]["undecided"] == 4
    status, answer = run.client.decide(first, "keep", "mark-0003")
    assert answer["current"] and answer["sample"]["verdict"] == "keep" and answer["counts"]["changed"] == 1
    status, answer = run.client.send(second, "drop", "mark-0004")
    assert answer["current"] and answer["sample"]["verdict"] == "drop" and answer["counts"]["changed"] == 0


def test_prompts_that_a_step_has_changed_are_shown_without_a_restart(run):
    _, before = run.client.get("/api/list")
    caption_anew(run.work, run.ids[2], "zebras at noon")
    _, found = run.client.get("/api/list?search=zebras")
    assert found["total"] == 1
    assert run.client.get(f"/api/sample/{run.ids[2]}")[1]["simple"] == "zebras at noon"
    assert run.client.get(f"/api/rows?list={before['list']}&start=0&count=9")[0] == 410


def test_other_peoples_logs_are_merged_by_the_command(tmp_path):
    ids = make_work(tmp_path, [png(number) for number in range(3)])
    all_ids = make_work(tmp_path / "theirs", [png(number) for number in range(5)])
    with ReviewServer(tmp_path / "theirs/work", "ben", 0) as server:
        for number, id in enumerate([*ids, *all_ids]):
            server.gallery.act(id, "drop", f"mark-{number:06d}")
    log = tmp_path / "theirs/work/review/ben.jsonl"
    command = [sys.executable, "-m", "train", "surd", "review", str(tmp_path / "work"), "--merge", str(log)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "ben: 6 decisions added, 0 were there already, 2 refused" in done.stdout
    assert len(read_log(tmp_path / "work/review/ben.jsonl").actions) == 6


def test_every_file_of_the_page_is_served_and_no_other(run):
    assert {file.name for file in PAGE.iterdir()} == {"index.html", *(path[6:] for path in ASSETS)}
    for path in ASSETS:
        status, headers, body = run.client.ask("GET", path)
        assert (status, headers["Content-Type"]) == (200, ASSETS[path])
        assert body == (PAGE / path[6:]).read_bytes()
    assert b"://" not in b"".join(file.read_bytes() for file in PAGE.iterdir())  # nothing from the network
