"""What collecting reads of a folder of pictures, once and once only, and what it does when run again."""

import hashlib
import os
import shutil

import imagehash
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sur_core.surd_build import collect as collect_module
from sur_core.surd_build.collect import SKIPPED_FOLDER, CollectSettings, collect
from sur_core.surd_build.manifest import Manifest, SurdBuildError
from sur_core.surd_build.samples import COLLECT, read_samples
from sur_core.surd_quarantine import read_quarantine
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
    write_pictures,
    write_png,
)
from train.__main__ import main


def manifest_bytes(work):
    return (work / "manifest.jsonl").read_bytes()


def skipped(work, source):
    return read_quarantine(work / SKIPPED_FOLDER / f"{source}.jsonl")


def bits(left: str, right) -> int:
    return imagehash.hex_to_hash(left) - right


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_picture_is_recorded_as_it_is(tmp_path, kind):
    image, path = smooth(3, (640, 400)), tmp_path / "pics" / f"a b.{kind}"
    path.parent.mkdir()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + infotext("a fox, snow").encode("utf-16-be")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", infotext("a fox, snow"))
    image.save(path, **({"pnginfo": info} if kind == "png" else {"exif": exif}))
    manifest, summary = collected(tmp_path / "work", path.parent)
    record = facts(manifest, f"pics/a b.{kind}")
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record["bytes"], record["width"], record["height"]) == (path.stat().st_size, 640, 400)
    assert record["format"] == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind]
    assert (record["metadata"], record["prompt"]) == ("automatic1111", "a fox, snow")
    assert (record["negative"], str(record["parameters"]["Steps"])) == ("blurry", "20")
    assert bits(record["phash"], imagehash.phash(Image.open(path))) <= 2
    (sample,) = read_samples(manifest)
    assert (sample.path, sample.complex, sample.dropped) == (path, "a fox, snow", ())
    assert sample.id == record["sha256"][:20]
    assert (summary.kept, summary.metadata) == (1, {"automatic1111": 1})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_measured_and_hashed_upright(tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "pics").mkdir()
    smooth(1, (480, 320)).save(tmp_path / "pics" / "a.jpg", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "pics" / "a.jpg"))
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    record = facts(manifest, "pics/a.jpg")
    assert (record["width"], record["height"]) == upright.size
    assert bits(record["phash"], imagehash.phash(upright)) <= 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_usual_kind_of_pixels_gets_the_hash_of_what_is_seen(tmp_path, mode):
    (tmp_path / "pics").mkdir()
    grey = smooth(5).convert("L")
    image = Image.fromarray(np.asarray(grey).astype("uint16") * 257) if mode == "I;16" else grey
    if mode == "RGBA":  # what is fully transparent shows white, whatever lies under it
        image = Image.merge(
            "RGBA", (grey, grey, grey, smooth(6).convert("L").point(lambda v: 255 * (v > 99)))
        )
    path = tmp_path / "pics" / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    (image if mode in ("I;16", "RGBA") else grey.convert(mode)).save(path)
    seen = Image.open(path)
    if mode == "RGBA":
        seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    seen = grey if mode == "I;16" else seen
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    assert bits(facts(manifest, f"pics/{path.name}")["phash"], imagehash.phash(seen.convert("RGB"))) <= 2


def test_each_file_is_opened_once_and_decoded_once(tmp_path, monkeypatch):
    write_pictures(tmp_path / "pics", 4)
    opened, decoded = [], []
    load = PngImagePlugin.PngImageFile.load_prepare
    spy = lambda self: (decoded.append(self), load(self))[1]  # noqa: E731
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", spy)

    def counted(path, *arguments, **options):
        opened.append(path)
        return open(path, *arguments, **options)

    monkeypatch.setattr("sur_core.surd_build.read_file.open", counted, raising=False)
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    assert len(kept(manifest)) == len(set(opened)) == len(opened) == len(decoded) == 4


def test_a_prompt_beside_the_picture_counts_unless_it_is_not_wanted(tmp_path):
    write_png(tmp_path / "pics" / "a.png", 1, None)
    (tmp_path / "pics" / "a.txt").write_text("a red fox in snow")
    manifest, _ = collected(tmp_path / "work", tmp_path / "pics")
    assert facts(manifest, "pics/a.png")["metadata"] == "sidecar"
    assert samples(manifest)["pics/a.png"]["complex"] == "a red fox in snow"
    manifest, summary = collected(tmp_path / "work", tmp_path / "pics", sidecar=False)
    assert kinds(manifest) == {"pics/a.png": "no prompt"} and summary.outcome.done == 1


# --- folders ------------------------------------------------------------------------------------------------


def test_what_is_not_read_is_said(tmp_path):
    pics = write_png(tmp_path / "pics" / "a.png").parent
    write_png(pics / ".thumbs" / "b.png")
    write_png(pics / ".c.png")
    (pics / "notes.pdf").write_bytes(b"1")
    (pics / "a.txt").write_text("a sidecar, which is read")
    os.symlink("nowhere.png", pics / "d.png")
    os.mkfifo(pics / "e.png")
    manifest, summary = collected(tmp_path / "work", pics)
    assert list(samples(manifest)) == ["pics/a.png"]
    reasons = {name: reason.partition(":")[0] for name, reason in skipped(tmp_path / "work", "pics").items()}
    assert reasons == {
        ".thumbs": "hidden folder",
        ".c.png": "hidden file",
        "d.png": "broken link",
        "e.png": "no file",
    }
    assert summary.found[0].others == {".pdf": 1}
    assert "hidden folder: 1" in summary.to_text() and "1 .pdf" in summary.to_text()


def test_links_are_followed_and_loops_end(tmp_path):
    pics = write_png(tmp_path / "pics" / "z" / "a.png", 1).parent.parent
    write_png(tmp_path / "elsewhere" / "b.png", 2)
    os.symlink("..", pics / "z" / "up")
    os.symlink(pics / "z", pics / "again")
    os.symlink(tmp_path / "elsewhere", pics / "linked")
    os.symlink(pics, tmp_path / "elsewhere" / "back")
    manifest, _ = collected(tmp_path / "work", pics)
    assert kept(manifest) == ["pics/linked/b.png", "pics/z/a.png"]
    assert set(skipped(tmp_path / "work", "pics")) == {"again/", "linked/back/", "z/up/"}


def test_the_work_folder_inside_the_pictures_is_not_read(tmp_path):
    pics = write_png(tmp_path / "pics" / "a.png", 1).parent
    write_png(pics / "work" / "thumbnails" / "b.png", 2)
    manifest, _ = collected(pics / "work", pics)
    assert kept(manifest) == ["pics/a.png"]
    with pytest.raises(SurdBuildError, match="cannot be the folder of pictures"):
        collected(pics, pics)


def unreadable(monkeypatch, folder):
    """As it is for everybody but root."""
    real = os.scandir

    def scandir(path):
        if os.fspath(path).rstrip("/") == os.fspath(folder):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr("sur_core.surd_build.walk.os.scandir", scandir)


def test_a_folder_without_rights_is_said_and_its_files_are_not_taken_for_gone(tmp_path):
    pics = write_pictures(tmp_path / "pics", 6)
    collected(tmp_path / "work", pics)
    with locked(pics / "1"):
        manifest, summary = collected(tmp_path / "work", pics)
    assert summary.gone == 0 and len(kept(manifest)) == 6
    assert skipped(tmp_path / "work", "pics") == {"1/": "unreadable folder: Permission denied"}
    _, summary = collected(tmp_path / "work", pics)
    assert summary.gone == 0 and not (tmp_path / "work" / SKIPPED_FOLDER / "pics.jsonl").exists()


def test_a_folder_that_may_be_listed_but_not_entered_loses_nothing(tmp_path):
    pics = write_pictures(tmp_path / "pics", 6)
    collected(tmp_path / "work", pics)
    with locked(pics / "1", 0o400):
        manifest, summary = collected(tmp_path / "work", pics)
    told = set(skipped(tmp_path / "work", "pics").values())
    assert told == {"unreadable file: Permission denied"}
    assert summary.gone == 0 and len(kept(manifest)) == 6


def test_an_unreadable_folder_is_said_and_its_files_are_not_taken_for_gone(tmp_path, monkeypatch):
    pics = write_pictures(tmp_path / "pics", 6)
    collected(tmp_path / "work", pics)
    with monkeypatch.context() as patched:
        unreadable(patched, pics / "1")
        (pics / "0" / "000.png").unlink()
        manifest, summary = collected(tmp_path / "work", pics)
    assert summary.gone == 1 and len(kept(manifest)) == 5
    assert skipped(tmp_path / "work", "pics") == {"1/": "unreadable folder: Permission denied"}
    collected(tmp_path / "work", pics)
    assert not (tmp_path / "work" / SKIPPED_FOLDER / "pics.jsonl").exists()


def test_same_names_in_different_folders_and_sources_stay_apart(tmp_path):
    for number, folder in enumerate(("one/out", "two/out")):
        write_png(tmp_path / folder / "a.png", 10 + number)
        write_png(tmp_path / folder / "sub" / "a.png", 20 + number)
    manifest, _ = collected(tmp_path / "work", tmp_path / "one" / "out", tmp_path / "two" / "out")
    assert kept(manifest) == ["out-2/a.png", "out-2/sub/a.png", "out/a.png", "out/sub/a.png"]
    assert {sample.path.read_bytes()[:4] for sample in read_samples(manifest)} == {b"\x89PNG"}
    again, summary = collected(tmp_path / "work", tmp_path / "two" / "out")
    assert summary.found[0].source.name == "out-2" and summary.outcome.kept == 2


def test_a_moved_folder_keeps_its_records(tmp_path):
    write_pictures(tmp_path / "pics", 4)
    collected(tmp_path / "work", tmp_path / "pics")
    (tmp_path / "pics").rename(tmp_path / "moved")
    left, summary = collected(tmp_path / "work")
    assert "not there now" in summary.to_text() and "--as pics" in summary.to_text() and len(kept(left)) == 4
    manifest, summary = collected(tmp_path / "work", tmp_path / "moved", name="pics")
    assert (summary.outcome.done, summary.gone) == (0, 0)
    assert all(sample.path.is_file() for sample in read_samples(manifest))
    assert len(kept(manifest)) == 4


# --- again --------------------------------------------------------------------------------------------------


def test_collecting_twice_appends_nothing(tmp_path):
    write_pictures(tmp_path / "pics", 9)
    (tmp_path / "pics" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    collected(tmp_path / "work", tmp_path / "pics")
    before = manifest_bytes(tmp_path / "work")
    _, summary = collected(tmp_path / "work", tmp_path / "pics", workers=3)
    assert manifest_bytes(tmp_path / "work") == before
    assert (summary.outcome.done, summary.outcome.kept) == (0, 10)
    collected(tmp_path / "work")
    assert manifest_bytes(tmp_path / "work") == before


@pytest.mark.parametrize("seed", range(3))
def test_a_folder_that_has_grown_gives_what_it_gives_at_once(tmp_path, seed):
    import random

    pics = write_pictures(tmp_path / "pics", 10)
    shutil.copy(pics / "0" / "000.png", pics / "copy.png")
    smooth(1, (600, 560)).save(pics / "large.png")
    (pics / "large.txt").write_text("picture 1 at twice the size")
    (pics / "zero.png").touch()
    whole, _ = collected(tmp_path / "work", pics)
    away = tmp_path / "away"
    files = sorted(path for path in pics.rglob("*") if path.is_file())
    half = random.Random(seed).sample(files, len(files) // 2)
    for path in half:
        (away / path.relative_to(pics)).parent.mkdir(parents=True, exist_ok=True)
        path.rename(away / path.relative_to(pics))
    collected(tmp_path / "halves", pics)
    for path in half:
        (away / path.relative_to(pics)).rename(path)
    halves, _ = collected(tmp_path / "halves", pics, workers=2)
    for step in ("source", "collect", "select", "settings"):
        assert dict(halves.records(step)) == dict(whole.records(step))
    assert kinds(whole).keys() == {"pics/copy.png", "pics/1/001.png", "pics/zero.png"}


def test_the_number_of_threads_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(collect_module, "BATCH_PER_WORKER", 2)
    write_pictures(tmp_path / "pics", 11)
    for workers in (1, 3):
        collected(tmp_path / f"work{workers}", tmp_path / "pics", workers=workers)
    assert manifest_bytes(tmp_path / "work1") == manifest_bytes(tmp_path / "work3")


def test_only_what_has_changed_is_read(tmp_path):
    pics = write_pictures(tmp_path / "pics", 6)
    write_png(pics / "plain.png", 77, None)
    (pics / "plain.txt").write_text("first words")
    collected(tmp_path / "work", pics)
    (pics / "plain.txt").write_text("second words")
    manifest, summary = collected(tmp_path / "work", pics)
    assert (summary.outcome.done, samples(manifest)["pics/plain.png"]["complex"]) == (1, "second words")
    write_png(pics / "1" / "001.png", 50, "something else")
    manifest, summary = collected(tmp_path / "work", pics)
    assert (summary.outcome.done, samples(manifest)["pics/1/001.png"]["complex"]) == (1, "something else")


def test_a_file_that_vanishes_and_comes_back(tmp_path):
    pics = write_pictures(tmp_path / "pics", 3)
    whole, _ = collected(tmp_path / "work", pics)
    (pics / "1" / "001.png").rename(tmp_path / "aside.png")
    manifest, summary = collected(tmp_path / "work", pics)
    assert summary.gone == 1 and len(kept(manifest)) == len(list(read_samples(manifest))) == 2
    assert facts(manifest, "pics/1/001.png")["gone"] is True
    _, summary = collected(tmp_path / "work", pics)
    assert summary.gone == 0
    (tmp_path / "aside.png").rename(pics / "1" / "001.png")
    manifest, _ = collected(tmp_path / "work", pics)
    assert samples(manifest) == samples(whole)


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(collect_module, "BATCH_PER_WORKER", 2)
    pics = write_pictures(tmp_path / "pics", 9)
    collected(tmp_path / "straight", pics)
    done, runs = 0, 0
    while True:
        asked = iter([False, True])
        stopped = lambda asked=asked: next(asked)  # noqa: E731
        summary = collect(Manifest(tmp_path / "work"), [pics], CollectSettings(), workers=1, stopped=stopped)
        done, runs = done + summary.outcome.done, runs + 1
        if summary.outcome.finished:
            break
        assert not summary.kept and runs < 9
    assert (done, runs) == (9, 5)
    assert manifest_bytes(tmp_path / "work") == manifest_bytes(tmp_path / "straight")


@pytest.mark.skipif(os.name == "nt", reason="file size limits are POSIX's")
def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_rest(tmp_path, monkeypatch):
    import resource

    monkeypatch.setattr(collect_module, "BATCH_PER_WORKER", 2)
    pics = write_pictures(tmp_path / "pics", 4)
    collected(tmp_path / "work", pics)
    before = manifest_bytes(tmp_path / "work")
    write_pictures(pics, 8, start=4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), hard))
    try:
        with pytest.raises(OSError, match="could not write") as raised:
            collected(tmp_path / "work", pics)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.filename.startswith(str(tmp_path / "work"))
    assert manifest_bytes(tmp_path / "work") == before
    manifest, _ = collected(tmp_path / "work", pics)
    assert len(kept(manifest)) == 12
    straight, _ = collected(tmp_path / "straight", pics)
    assert dict(manifest.records(COLLECT)) == dict(straight.records(COLLECT))


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_says_what_it_found(tmp_path, capsys):
    pics = write_pictures(tmp_path / "pics", 3)
    write_png(pics / "small.png", 9, "tiny", size=(64, 64))
    arguments = ["surd", "collect", str(tmp_path / "work"), str(pics), "--workers", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "samples: 3; left out: 1" in said and "too small: 1" in said and "automatic1111 4" in said
    assert main([*arguments, "--min-side", "64", "--near-duplicates", "off", "--no-clean-prompts"]) == 0
    assert "samples: 4; left out: 0" in capsys.readouterr().out
    for name, rating in (("000", "X"), ("003", "Mature")):
        (pics / "0" / f"{name}.png").write_bytes(png(smooth(int(name)), f"rated {name}", Rating=rating))
    for wanted in (["x,Soft", "--drop-rating", "mature"], ["Mature, X"], [" x , ,mature "]):
        assert main([*arguments, "--drop-rating", *wanted]) == 0
        assert "rating: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{0}/nowhere"], "nowhere: no such file or folder"),
        ([], "nothing collected yet"),
        (["{0}/pics", "--min-side", "0"], "min_side must be a positive number"),
        (["{0}/pics", "--near-duplicates", "99"], "near_distance must be in 0..32"),
        (["{0}/pics", "--as", "a/b"], "cannot be a source's"),
        (["{0}/pics", "--images", "{0}/pics"], "this is a folder itself"),
        (["{0}/notes.txt"], "expected a folder of pictures"),
        (["{0}/pics", "{0}/work", "--as", "name"], "one source at a time"),
    ],
)
def test_wrong_input_is_told_in_words(tmp_path, capsys, arguments, words):
    write_png(tmp_path / "pics" / "a.png")
    (tmp_path / "notes.txt").write_text("")
    filled = [word.format(tmp_path) for word in arguments]
    assert main(["surd", "collect", str(tmp_path / "work"), *filled]) == 1
    assert words in capsys.readouterr().err
