"""kornia-rs in Pillow's place: a PNG it reads is read the same, and all others are left to Pillow."""

import io
import random
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from sur_core import plain_png
from sur_core.images import decode_image
from sur_core.plain_png import QUICK_THREADS, decode_plain_png
from sur_core.surd_build import read_file
from sur_core.surd_build.read_file import Reading, read_picture
from tests.collect_files import collected, infotext, png, smooth, write_pictures
from tests.test_surd_bad_pictures import BAD, chunk, with_chunk

needs_kornia = pytest.mark.skipif(plain_png.find_decoder() is None, reason="kornia-rs is not installed")


def saved(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def grainy(mode: str, seed: int = 0, size=(97, 61)) -> Image.Image:
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), np.uint8)
    return Image.fromarray(pixels)


def behind(data: bytes, name: bytes, text: bytes) -> bytes:
    return with_chunk(data, chunk(b"tEXt", name + b"\0" + text), b"IEND")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[read_file.ORIENTATION] = orientation
    return saved(smooth(1), exif=exif)


def in_chunks(data: bytes, size: int) -> bytes:
    """Its pixels in many small chunks."""
    first = data.index(b"IDAT") - 4
    length = int.from_bytes(data[first : first + 4], "big")
    pixels, rest = data[first + 8 : first + 8 + length], data[first + 12 + length :]
    parts = [chunk(b"IDAT", pixels[at : at + size]) for at in range(0, length, size)]
    return data[:33] + b"".join(parts) + rest


RGB = png(smooth(1), "a cat")
PLAIN = {
    "rgb": RGB,
    "rgb of noise": saved(grainy("RGB")),
    "rgba opaque": saved(smooth(2).convert("RGBA")),
    "rgba of noise": saved(grainy("RGBA", 1)),
    "one pixel": saved(grainy("RGB", 2, (1, 1))),
    "stored": saved(grainy("RGB", 3), compress_level=0),
    "texts behind the pixels": behind(RGB, b"Source", b"https://example.org"),
    "prompt behind the pixels": behind(saved(smooth(4)), b"parameters", infotext("a dog").encode()),
    "profile": saved(smooth(5), icc_profile=b"no profile"),
    "many chunks": in_chunks(RGB, 50),
    "lying on its side": turned(6),
    "mirrored": turned(2),
    "more behind the end": RGB + b"and more",
}
OTHERS = {
    "palette": saved(smooth(1).quantize(16)),
    "grey": saved(smooth(1).convert("L")),
    "16 bits": saved(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70)),
    "transparent color": saved(smooth(1), transparency=(1, 2, 3)),
    "animated": saved(smooth(1), save_all=True, append_images=[smooth(2)]),
    "said to be interlaced": RGB[:28] + b"\1" + RGB[29:],
    "text of a false checksum": with_chunk(RGB, chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
    "pixels of a false checksum": RGB[: RGB.index(b"IEND") - 8] + b"????" + RGB[RGB.index(b"IEND") - 4 :],
    "no end": RGB[:-12],
    "JPEG": b"\xff\xd8\xff\xe0",
    "nothing": b"",
}


def read(path, data: bytes, quick: bool) -> dict:
    path.write_bytes(data)
    return read_picture(Reading(str(path)), quick)


@needs_kornia
@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_png_gives_the_pixels_and_texts_that_pillow_finds(tmp_path, name):
    data = PLAIN[name]
    with Image.open(io.BytesIO(data)) as pillow:
        pillow.load()
        quick = decode_plain_png(data)
        assert (quick.mode, quick.size, quick.format) == (pillow.mode, pillow.size, pillow.format)
        assert quick.tobytes() == pillow.tobytes()
        assert quick.info == pillow.info and dict(quick.getexif()) == dict(pillow.getexif())
    record = read(tmp_path / "a.png", data, True)
    assert record == read(tmp_path / "a.png", data, False) and "problem" not in record
    assert decode_image(data, "a", quick=True).tobytes() == decode_image(data, "a").tobytes()


@pytest.mark.parametrize("name", [*OTHERS, *BAD])
def test_what_is_no_sound_plain_png_is_left_to_pillow(tmp_path, name):
    data = OTHERS[name] if name in OTHERS else BAD[name][0]
    if name not in ("small.png", "no prompt.png"):  # sound files
        assert decode_plain_png(data) is None
    path = tmp_path / "a.png"
    assert read(path, data, True) == read(path, data, False)


@needs_kornia
def test_damage_anywhere_gives_the_same_record(tmp_path):
    chance, path = random.Random(0), tmp_path / "a.png"
    data = png(grainy("RGB", 5, (40, 30)), "a cat", Source="somewhere")
    for number in range(600):
        damaged = bytearray(data if number % 3 else data[: chance.randrange(len(data))])
        for _ in range(number % 4):
            if damaged:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        assert read(path, bytes(damaged), True) == read(path, bytes(damaged), False), number


@needs_kornia
def test_only_a_program_that_writes_wrong_files_gets_another_answer(tmp_path):
    """The one difference, as the docstring tells it: checksums right outside and wrong inside."""
    picture = smooth(1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(picture))
    wrong = zlib.compress(rows)[:-4] + b"????"
    data = RGB[:33] + chunk(b"IDAT", wrong) + chunk(b"IEND", b"")
    assert decode_plain_png(data).tobytes() == picture.tobytes()
    assert read(tmp_path / "a.png", data, False)["problem"].startswith("broken image")


@pytest.mark.parametrize("workers", [1, QUICK_THREADS, QUICK_THREADS + 1])
def test_a_manifest_is_the_same_with_and_without_kornia(tmp_path, monkeypatch, workers):
    write_pictures(tmp_path / "pics", 7)
    with_it, _ = collected(tmp_path / "with", tmp_path / "pics", workers=workers)
    plain_png.find_decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "kornia_rs.io", None)  # as where it is not installed
    try:
        assert decode_plain_png(RGB) is None
        without, _ = collected(tmp_path / "without", tmp_path / "pics", workers=workers)
    finally:
        plain_png.find_decoder.cache_clear()
    assert len(without.records("collect")) == 7
    assert dict(with_it.records("collect")) == dict(without.records("collect"))


def test_more_threads_than_gain_from_it_read_with_pillow(tmp_path, monkeypatch):
    write_pictures(tmp_path / "pics", 3)
    asked = []
    monkeypatch.setattr(read_file, "decode_plain_png", asked.append)
    collected(tmp_path / "many", tmp_path / "pics", workers=QUICK_THREADS + 1)
    assert not asked
    collected(tmp_path / "few", tmp_path / "pics", workers=QUICK_THREADS)
    assert len(asked) == 3
