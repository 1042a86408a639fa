"""Damaged, hostile and odd files: each is put aside with a reason, and none stops or fills the memory."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sur_core.surd_build import read_file
from tests.collect_files import (
    collected,
    facts,
    infotext,
    kept,
    kinds,
    locked,
    png,
    samples,
    smooth,
    write_png,
)

MB = 1 << 20
ROOT = Path(__file__).parents[1]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(data: bytes, added: bytes, before: bytes = b"IDAT") -> bytes:
    at = data.index(before) - 4
    return data[:at] + added + data[at:]


def header(width: int, height: int) -> bytes:
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MB)) for _ in range(megabytes)) + packer.flush()


def bomb(kind: bytes, before: bytes) -> bytes:
    start = {b"zTXt": b"parameters\0\0", b"iTXt": b"parameters\0\1\0\0\0", b"iCCP": b"profile\0\0"}[kind]
    return with_chunk(png(smooth(1), None), chunk(kind, start + zeros(300)), before)


GOOD = png(smooth(1), "a cat")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def jpeg(size=(300, 280)) -> bytes:
    import io

    stream = io.BytesIO()
    smooth(2, size).save(stream, "JPEG")
    return stream.getvalue()


BAD = {
    "empty.png": (b"", "empty file"),
    "words.png": (b"these are words, no picture", "not an image"),
    "page.jpg": (b"<html>404 not found</html>", "not an image"),
    "header only.png": (GOOD[:33], "broken image"),
    "cut in its pixels.png": (GOOD[: len(GOOD) // 2], "broken image"),
    "cut in its pixels.jpg": (jpeg()[: len(jpeg()) // 2], "broken image"),
    "damaged pixels.png": (flipped(GOOD, GOOD.index(b"IDAT") + 30), "broken image"),
    "chunk of false length.png": (GOOD[:33] + b"\xff\xff\xff\xff" + GOOD[37:], "broken image"),
    "sixty thousand squared.png": (header(60_000, 60_000), "too large"),
    "a line of pixels.png": (header(200_000_000, 1), "too large"),
    "fewer pixels than said.png": (header(3_000, 3_000), "broken image"),
    "small.png": (png(smooth(1, (40, 300)), "a cat"), "too small"),
    "no prompt.png": (png(smooth(3), None), "no prompt"),
}


def test_one_folder_with_every_kind_of_damage_gives_its_good_pictures(tmp_path):
    pics = write_png(tmp_path / "pics" / "good.png", 7, "a good one").parent
    for name, (content, _) in BAD.items():
        (pics / name).write_bytes(content)
    manifest, summary = collected(tmp_path / "work", pics, workers=2)
    assert kept(manifest) == ["pics/good.png"]
    assert kinds(manifest) == {f"pics/{name}": kind for name, (_, kind) in BAD.items()}
    for name in BAD:
        assert len(samples(manifest)[f"pics/{name}"]["dropped"]) > len(BAD[name][1]) + 3
    assert "broken image: 6" in summary.to_text()


BOMBS = {
    f"{kind.decode()} before {before.decode()}.png": (kind, before)
    for kind in (b"zTXt", b"iTXt", b"iCCP")
    for before in (b"IDAT", b"IEND")
}
ALLOWED = 64 * MB
FRUGAL = """
import json, resource, sys
from sur_core.surd_build.read_file import Reading, read_picture

def mapped():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

warm, allowed, *paths = sys.argv[1:]
for _ in range(2):
    assert "problem" not in read_picture(Reading(warm))
for path in paths:
    resource.setrlimit(resource.RLIMIT_AS, (mapped() + int(allowed), resource.RLIM_INFINITY))
    print(json.dumps(read_picture(Reading(path))))
"""


@pytest.fixture(scope="module")
def frugal(tmp_path_factory):
    """{name: what reading it gave} in a process that may take 64 MB more, Pillow's pixels included."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells and limits what a process maps")
    folder = tmp_path_factory.mktemp("frugal")
    for name, (kind, before) in BOMBS.items():
        (folder / name).write_bytes(bomb(kind, before))
        assert (folder / name).stat().st_size < 2 * MB
    (folder / "claims.png").write_bytes(header(60_000, 60_000))
    with open(folder / "film.png", "wb") as file:
        file.truncate(read_file.MAX_BYTES + 1)
    (folder / "truly large.png").write_bytes(png(Image.new("RGB", (6000, 6000)), "black"))
    (folder / "good.png").write_bytes(GOOD)
    names = [*BOMBS, "claims.png", "film.png", "truly large.png", "good.png"]
    command = [sys.executable, "-c", FRUGAL, folder / "good.png", str(ALLOWED), *(folder / n for n in names)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_hundreds_of_megabytes_does_not(frugal, name):
    values = frugal[name]
    assert values["prompt"] == ""
    assert values["problem"].startswith("text too large: ")


def test_a_picture_that_claims_to_be_huge_takes_no_memory(frugal):
    assert frugal["claims.png"]["problem"].startswith("too large: ")
    assert "memory" not in frugal["claims.png"]["problem"]


def test_a_file_too_large_to_be_a_picture_is_not_read(frugal):
    assert frugal["film.png"]["problem"] == "too large: a file of 512 MB; at most 512 are read"


def test_a_picture_that_memory_does_not_suffice_for_is_told_and_the_next_one_is_read(frugal):
    """Which also shows that the limit above sees the pixels."""
    assert frugal["truly large.png"]["problem"] == "too large: not enough memory to decode it"
    assert frugal["good.png"]["prompt"] == "a cat" and "problem" not in frugal["good.png"]


@pytest.mark.skipif(
    os.name == "nt" or os.uname().sysname == "Darwin", reason="names are always Unicode there"
)
def test_a_name_that_is_not_utf_8_is_told_and_the_manifest_stays_readable(tmp_path):
    pics = write_png(tmp_path / "pics" / "good.png", 1).parent
    with open(os.fsencode(pics) + b"/caf\xe9.png", "wb") as file:
        file.write(png(smooth(2), "a cat"))
    os.mkdir(os.fsencode(pics) + b"/d\xff")
    with open(os.fsencode(pics) + b"/d\xff/a.png", "wb") as file:
        file.write(png(smooth(3), "a cat"))
    manifest, _ = collected(tmp_path / "work", pics)
    assert kept(manifest) == ["pics/good.png"]
    assert kinds(manifest) == {"pics/caf\udce9.png": "not UTF-8", "pics/d\udcff/a.png": "not UTF-8"}
    _, summary = collected(tmp_path / "work", pics)
    assert summary.outcome.done == 0


def test_names_of_every_script_and_odd_characters_are_kept(tmp_path):
    names = ["猫 и кот.png", "a#2.png", "a'b\"c.png", "100%.png", "e\u0301.png", "new\nline.png", "-flag.png"]
    for seed, name in enumerate(names):
        write_png(tmp_path / "pics" / name, seed, name)
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    assert kept(manifest) == sorted(f"pics/{name}" for name in names)


@pytest.mark.parametrize(
    "prompt", ["größer, 猫, 🐈", "one\ntwo", "x " * 5000, "tab\there", "nul-free \u200b"]
)
def test_unusual_prompts_come_through(tmp_path, prompt):
    write_png(tmp_path / "pics" / "a.png", 1, prompt)
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics", clean_prompts=False)
    assert samples(manifest)["pics/a.png"]["complex"].strip() == prompt.strip()


def test_texts_that_are_not_utf_8_never_become_a_prompt_of_wrong_characters(tmp_path):
    latin = with_chunk(
        png(smooth(1)), chunk(b"tEXt", b"parameters\0" + infotext("caf\xe9").encode("latin-1"))
    )
    broken = with_chunk(png(smooth(2)), chunk(b"iTXt", b"parameters\0\0\0\0\0" + b"caf\xff\xfe"))
    pics = tmp_path / "pics"
    pics.mkdir()
    (pics / "latin.png").write_bytes(latin)  # as PNG says tEXt is
    (pics / "broken.png").write_bytes(broken)
    (pics / "sidecar.png").write_bytes(png(smooth(3)))
    (pics / "sidecar.txt").write_bytes(b"caf\xe9 \xff")
    manifest, _ = collected(tmp_path / "work", pics)
    assert samples(manifest)["pics/latin.png"]["complex"] == "caf\xe9"
    for name in ("broken", "sidecar"):
        assert "\ufffd" not in facts(manifest, f"pics/{name}.png")["prompt"]
    assert kinds(manifest)["pics/sidecar.png"] == "no prompt"


def test_a_file_that_could_not_be_read_is_tried_again_when_it_can(tmp_path, monkeypatch):
    pics = write_png(tmp_path / "pics" / "a.png", 1).parent
    locked = write_png(pics / "locked.png", 2)

    def refuse(path, *arguments, **options):
        if path == str(locked):
            raise PermissionError(13, "Permission denied", path)
        return open(path, *arguments, **options)

    with monkeypatch.context() as patched:  # rights alone would not stop root
        patched.setattr(read_file, "open", refuse, raising=False)
        patched.setattr("sur_core.surd_build.collect.os.access", lambda path, mode: path != locked)
        for done in (2, 0):
            manifest, summary = collected(tmp_path / "work", pics)
            assert summary.outcome.done == done
        assert samples(manifest)["pics/locked.png"]["dropped"] == "unreadable file: Permission denied"
    for done in (1, 0):
        manifest, summary = collected(tmp_path / "work", pics)
        assert summary.outcome.done == done
    assert kept(manifest) == ["pics/a.png", "pics/locked.png"]


def test_a_file_without_rights_is_put_aside_and_read_when_it_has_them(tmp_path):
    pics = write_png(tmp_path / "pics" / "a.png", 1).parent
    closed = write_png(pics / "locked.png", 2)
    with locked(closed):
        for done in (2, 0):
            manifest, summary = collected(tmp_path / "work", pics)
            assert summary.outcome.done == done
        assert samples(manifest)["pics/locked.png"]["dropped"] == "unreadable file: Permission denied"
    manifest, summary = collected(tmp_path / "work", pics)
    assert summary.outcome.done == 1 and kept(manifest) == ["pics/a.png", "pics/locked.png"]


def test_a_sidecar_without_rights_is_told_and_read_when_it_has_them(tmp_path):
    pics = write_png(tmp_path / "pics" / "a.png", 1, None).parent
    (pics / "a.txt").write_text("a red fox")
    with locked(pics / "a.txt"):
        manifest, _ = collected(tmp_path / "work", pics)
        assert "a.txt: cannot be read" in samples(manifest)["pics/a.png"]["dropped"]
    manifest, _ = collected(tmp_path / "work", pics)
    assert samples(manifest)["pics/a.png"]["complex"] == "a red fox"


def test_a_file_that_is_still_being_written_is_read_again_when_it_is_whole(tmp_path):
    pics = tmp_path / "pics"
    pics.mkdir()
    (pics / "a.png").write_bytes(GOOD[:-500])
    manifest, _ = collected(tmp_path / "work", pics)
    assert kinds(manifest) == {"pics/a.png": "broken image"}
    (pics / "a.png").write_bytes(GOOD)
    manifest, _ = collected(tmp_path / "work", pics)
    assert kept(manifest) == ["pics/a.png"] and not kinds(manifest)
