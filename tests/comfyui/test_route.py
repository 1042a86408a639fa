"""The pack's one address on ComfyUI's server: it tells the passport of a listed file, and nothing else."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sur_core import Passport, SURAdapterBundle, SURAdapterConfig
from tests.comfyui import server as comfy
from tests.comfyui.conftest import PACK

ROUTE = "/sur_adapter/passport"
LISTED = "ours.safetensors"


def ask(server, query: str, method: str = "GET") -> tuple[int, dict | None, str]:
    """Status, JSON and text of an answer."""
    request = urllib.request.Request(f"{server.url}{ROUTE}{query}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text), text
    except ValueError:
        return status, None, text


def card(server, name: str) -> tuple[int, dict, str]:
    return ask(server, "?" + urllib.parse.urlencode({"name": name}))


@pytest.fixture
def folder(server):
    return server.base / "models" / "sur_adapters"


def names(server) -> list[str]:
    return server.node_info("SURLoadAdapter")["input"]["required"]["adapter_name"][1]["options"]


def test_every_listed_file_has_a_card(server):
    for name in names(server):
        status, answer, text = card(server, name)
        assert status == 200 and "error" not in answer, text
        assert answer["width"] in (768, 1024, 2048) and len(answer["sha256"]) == 64


def test_the_card_says_what_the_file_says(server, folder):
    _, answer, _ = card(server, LISTED)
    assert (answer["family"], answer["width"], answer["eta"]) == ("sd1", 768, 0.3)
    assert answer["warnings"] == [{"code": "made_for", "model": "random SD 1.5"}]
    assert answer["bytes"] == (folder / LISTED).stat().st_size


@pytest.mark.parametrize(
    "name",
    [
        "unknown.safetensors",
        "notes.txt",  # is in the folder, but no adapter
        "none in models/sur_adapters",
        "../sur_adapters/ours.safetensors",
        "./ours.safetensors",
        "more/../ours.safetensors",
        "../../server.log",
        "..\\..\\server.log",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "file:///etc/passwd",
        "ours.safetensors\0.txt",
        "OURS.SAFETENSORS",
        " ours.safetensors",
        "%2e%2e/sur_adapters/ours.safetensors",
        "['ours.safetensors']",
        '{"name": "ours.safetensors"}',
        "null",
        "0",
    ],
)
def test_a_name_the_dropdown_does_not_have_is_not_found(server, name):
    status, answer, text = card(server, name)
    assert (status, answer) == (404, {"error": "the list of adapters has no such file"}), text


def test_the_full_path_of_a_listed_file_is_not_found(server, folder):
    assert card(server, str(folder / LISTED))[0] == 404


@pytest.mark.parametrize("length", [4_000, 10_000])
def test_a_very_long_name_is_refused(server, length):
    status, _, text = card(server, "a" * length)
    assert status in (400, 404, 414)
    assert str(server.base) not in text


@pytest.mark.parametrize(
    "query", ["", "?", "?name", "?name=", "?name[]=ours.safetensors", "?file=ours.safetensors",
              "?name=ours.safetensors&name=second.safetensors"]
)  # fmt: skip
def test_anything_but_one_name_is_a_bad_request(server, query):
    status, answer, _ = ask(server, query)
    assert (status, list(answer)) == (400, ["error"])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_can_only_be_read(server, folder, method):
    before = sorted(path.name for path in folder.rglob("*"))
    assert ask(server, f"?name={LISTED}", method)[0] == 405
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.fixture
def file(folder):
    """A function that writes a listed file, which is gone after the test."""
    made = []

    def write(name: str, content: bytes):
        made.append(folder / name)
        made[-1].write_bytes(content)
        return made[-1]

    yield write
    for path in made:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("empty.safetensors", b"", "empty.safetensors: the file is empty"),
        ("page.pt", b"<!DOCTYPE html>", "page.pt: not a readable adapter file"),
        ("cut.safetensors", None, "cut.safetensors: not a readable adapter file"),
        ("code.pt", b"\x80\x04cos\nsystem\n.", "code.pt: refused. An adapter holds numbers only"),
    ],
)
def test_a_broken_file_is_told_in_words_without_its_folder(server, folder, file, name, content, words):
    file(name, (folder / LISTED).read_bytes()[:100_000] if content is None else content)
    assert name in names(server)
    status, answer, text = card(server, name)
    assert (status, list(answer)) == (200, ["error"])
    assert answer["error"].startswith(words)
    assert str(server.base) not in text and str(folder) not in text


def test_a_file_written_anew_has_a_new_card(server, folder, file):
    path = file("changing.safetensors", (folder / LISTED).read_bytes())
    first = card(server, path.name)[1]
    assert first == card(server, LISTED)[1] == card(server, path.name)[1]
    shutil.copy(folder / "sd2.safetensors", path)
    second = card(server, path.name)[1]
    assert (second["family"], second["width"]) == ("sd2", 1024)
    assert second["sha256"] == card(server, "sd2.safetensors")[1]["sha256"] != first["sha256"]


def test_a_listed_file_that_has_gone_is_not_found(server, folder, file):
    path = file("going.safetensors", (folder / LISTED).read_bytes())
    assert card(server, path.name)[0] == 200
    path.unlink()
    assert card(server, path.name)[0] == 404


def large_adapter(path) -> int:
    """Write a whole adapter of 2 GiB of zeros, a hole that takes no room on the disk. Returns its size."""
    passport = Passport({"clip_l": SURAdapterConfig(width=768, depth=1, feedforward=350_000)}, eta=0.3)
    with torch.device("meta"):
        weights = SURAdapterBundle(passport).state_dict()
    header, end = {"__metadata__": passport.to_metadata()}, 0
    for key, tensor in weights.items():
        start, end = end, end + 4 * tensor.numel()
        about = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
        header[key.removeprefix("towers.")] = about
    content = json.dumps(header).encode()
    with open(path, "wb") as large:
        large.write(len(content).to_bytes(8, "little") + content)
        large.truncate(8 + len(content) + end)
    return 8 + len(content) + end


def test_the_server_answers_others_while_a_large_file_is_read(server, folder, file):
    path = file("large.safetensors", b"")
    size = large_adapter(path)
    assert size > 2 << 30
    with ThreadPoolExecutor() as asking:
        answer = asking.submit(card, server, path.name)
        for _ in range(10):
            server.get("/system_stats")
        assert not answer.done()
        status, facts, text = answer.result()
    assert (status, facts["bytes"], facts["eta"]) == (200, size, 0.3), text


def test_two_copies_of_the_pack_do_not_keep_comfyui_from_starting(checkpoints, tmp_path):
    """One from the registry and a clone, say: the server refuses to begin if an address is added twice."""
    with comfy.Server(tmp_path, {"sur-adapter": PACK, "sur-adapter-clone": PACK}) as running:
        assert ask(running, "")[0] == 400
