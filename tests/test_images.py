"""Every usual kind of image becomes the upright, opaque RGB picture it shows; others are refused in words."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sur_core.images import ImageError, decode_image, fit_image, to_pixels
from tests.surd_files import encoded, picture

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def decode(image: Image.Image, kind: str = "PNG", **options) -> np.ndarray:
    decoded = decode_image(encoded(image, kind, **options), "test image")
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """Clockwise from top left."""
    return [tuple(int(v) for v in pixels[y, x]) for y, x in ((0, 0), (0, -1), (-1, -1), (-1, 0))]


# Which stored corner is shown top left and top right, from the EXIF standard's words on where row 0 and
# column 0 lie. Stored corners, clockwise: 0 red, 1 green, 2 blue, 3 yellow.
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "top"),
    [(1, (0, 1)), (2, (1, 0)), (3, (2, 3)), (4, (3, 2)), (5, (0, 3)), (6, (3, 0)), (7, (2, 1)), (8, (1, 2))],
)
def test_exif_orientation_is_applied(kind, orientation, top):
    stored = Image.new("RGB", (6, 4))
    for place, colour in zip(((0, 0), (5, 0), (5, 3), (0, 3)), (RED, GREEN, BLUE, YELLOW), strict=True):
        stored.putpixel(place, colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = decode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    colours = (RED, GREEN, BLUE, YELLOW)
    assert corners(shown)[:2] == [colours[top[0]], colours[top[1]]]
    assert shown.shape == ((4, 6, 3) if orientation < 5 else (6, 4, 3))


def test_exif_orientation_of_jpeg_is_applied():
    stored = Image.new("RGB", (64, 32), RED)
    stored.paste(BLUE, (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = decode(stored, "JPEG", exif=exif, quality=95)
    assert shown.shape == (64, 32, 3)
    assert shown[4, 16, 0] > 240 and shown[60, 16, 2] > 240, "turned right, the left half is on top"


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (128, 255 - (255 - 40) * 128 / 255)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode, alpha, expected):
    colour = (40, 40, 40, alpha) if mode == "RGBA" else (40, alpha)
    assert np.abs(decode(Image.new(mode, (3, 2), colour)) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert decode(image, kind, transparency=0)[0].tolist() == [[255, 255, 255], list(BLUE)]
    assert decode(image, kind)[0].tolist() == [list(RED), list(BLUE)]


@pytest.mark.parametrize(("mode", "clear"), [("RGB", RED), ("L", 7), ("1", 0)])
def test_a_transparent_colour_is_white(mode, clear):
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), {"RGB": BLUE, "L": 90, "1": 1}[mode])
    shown = decode(image, "PNG", transparency=clear)
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[0, 1].tolist() == {"RGB": list(BLUE), "L": [90] * 3, "1": [255] * 3}[mode]


def test_cmyk_jpeg_shows_its_colours():
    image = Image.new("CMYK", (32, 16), (0, 255, 255, 0))
    image.paste((255, 255, 0, 0), (16, 0, 32, 16))
    shown = decode(image, "JPEG", quality=100).astype(int)
    assert np.abs(shown[8, 4] - RED).max() < 8 and np.abs(shown[8, 28] - BLUE).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 257, 256, 32768, 65279, 65535]], dtype=np.uint16)
    shown = decode(Image.fromarray(values), kind)
    assert (
        shown[0, :, 0].tolist() == np.rint(values[0] / 257).astype(int).tolist() == [0, 1, 1, 128, 254, 255]
    )
    assert (shown[..., :1] == shown).all()


def test_big_endian_16_bit_grey_is_scaled_too():
    content = b"P5 2 1 65535\n" + struct.pack(">2H", 65535, 32768)
    assert np.asarray(decode_image(content, "x.pgm"))[0, :, 0].tolist() == [255, 128]


def png(header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand, of kinds that Pillow cannot write."""
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_16_bit_colour_and_16_bit_grey_with_a_clear_value():
    colour = png(struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), b"\0" + struct.pack(">3H", 65535, 32896, 0))
    assert np.asarray(decode_image(colour, "c.png"))[0, 0].tolist() == [255, 128, 0]
    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    grey = png(header, b"\0" + struct.pack(">2H", 100, 257 * 50), (b"tRNS", struct.pack(">H", 100)))
    assert np.asarray(decode_image(grey, "g.png"))[0, :, 0].tolist() == [255, 50]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_1_bit_grey_and_palette(mode):
    image = Image.new("RGB", (2, 1), (0, 0, 0))
    image.putpixel((1, 0), (255, 255, 255))
    assert decode(image.convert(mode))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    shown = decode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (shown == RED).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated_images_are_refused(kind, part):
    content = encoded(picture(size=(64, 64)), kind)
    decode_image(content, "whole")
    with pytest.raises(ImageError, match="cut.img: .*(truncated|not an image)"):
        decode_image(content[: int(part * len(content))], "cut.img")


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", bytes(range(256)) * 4, b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_refused(content):
    with pytest.raises(ImageError, match="odd.png: "):
        decode_image(content, "odd.png")


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_nothing_but_image_errors():
    """500 files with random damage: read as an image, or refused, never another error."""
    random = np.random.default_rng(0)
    refused = 0
    wholes = [encoded(picture(size=(16, 16)), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF")]
    for number in range(500):
        damaged = bytearray(wholes[number % len(wholes)])
        for place in random.integers(0, len(damaged), 4):
            damaged[place] = random.integers(0, 256)
        try:
            decode_image(bytes(damaged), "damaged")
        except ImageError:
            refused += 1
    assert 50 < refused < 500


def test_a_decompression_bomb_is_refused(monkeypatch):
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = png(header, b"\0" * 1000)
    with pytest.raises(ImageError, match="bomb.png: .*larger than 179 megapixels"):
        decode_image(bomb, "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="bomb.png: .*larger than 179 megapixels.*50000 x 50000"):
        decode_image(bomb, "bomb.png")


def test_grey_without_a_defined_white_is_refused():
    stream = io.BytesIO()
    Image.fromarray(np.array([[0.5, 2.0]], dtype=np.float32)).save(stream, "TIFF")
    with pytest.raises(ImageError, match="float.tif: .*8-bit PNG"):
        decode_image(stream.getvalue(), "float.tif")


def soft_picture(size: tuple[int, int]) -> Image.Image:
    """Of little contrast, so that no overshoot of the filter is clipped between its two passes: Pillow
    chooses their order by the sizes, and only rounding may differ (by up to 2 levels).
    """
    return picture(size=size).point(lambda value: 96 + value // 4)


SIZES = [(64, 48), (48, 64), (50, 33), (40, 40), (17, 90), (9, 7), (300, 31)]


@pytest.mark.parametrize("size", SIZES)
def test_center_crop_is_the_middle_of_the_resized_image(size):
    image = soft_picture(size)
    fitted = fit_image(image, 32, "center")
    scale = 32 / min(size)
    whole = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.LANCZOS)
    assert min(whole.size) == 32
    top, left = fitted.crop_top_left
    expected = np.asarray(whole)[top : top + 32, left : left + 32].astype(int)
    assert fitted.pixels.shape == (32, 32, 3) and fitted.pixels.dtype == np.uint8
    assert np.abs(fitted.pixels - expected).max() <= 2
    assert abs(whole.height - 32 - 2 * top) <= 1 and abs(whole.width - 32 - 2 * left) <= 1
    assert fitted.original_size == (size[1], size[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", ["center", "squash"])
def test_mirroring_the_square_is_cropping_the_mirrored_image(size, crop):
    image = soft_picture(size)
    fitted = fit_image(image, 32, crop)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if crop == "center":
        scale = 32 / min(size)
        mirrored = mirrored.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.LANCZOS)
    else:
        mirrored = mirrored.resize((32, 32), Image.Resampling.LANCZOS)
    top, left = fitted.flipped_crop_top_left
    expected = to_pixels(np.asarray(mirrored)[top : top + 32, left : left + 32])
    assert (to_pixels(fitted.pixels, flip=True) - expected).abs().max() <= 2.01 / 127.5


def test_squash_keeps_the_whole_image():
    image = Image.new("RGB", (200, 20), RED)
    image.paste(BLUE, (100, 0, 200, 20))
    fitted = fit_image(image, 32, "squash")
    assert (fitted.pixels[:, :12] == RED).all() and (fitted.pixels[:, 20:] == BLUE).all()
    assert fitted.crop_top_left == fitted.flipped_crop_top_left == (0, 0)
    assert fitted.original_size == (20, 200)


def test_an_image_of_the_right_size_is_not_touched():
    image = picture(size=(32, 32))
    for crop in ("center", "squash"):
        assert (fit_image(image, 32, crop).pixels == np.asarray(image)).all()


def test_shrinking_is_antialiased():
    fine = np.indices((256, 256)).sum(0) % 2 * 255
    image = Image.fromarray(np.repeat(fine[..., None], 3, -1).astype(np.uint8))
    inner = fit_image(image, 32, "center").pixels[4:-4, 4:-4].astype(int)
    assert np.abs(inner - 127.5).max() < 3, "a fine chequerboard is grey from afar"


def test_to_pixels_spans_minus_one_to_one():
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    pixels[0, 1] = (255, 51, 0)
    tensor = to_pixels(pixels)
    assert tensor.shape == (3, 2, 2) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert tensor[:, 0, 1].tolist() == pytest.approx([1.0, -0.6, -1.0])
    assert torch.equal(to_pixels(pixels, flip=True), tensor.flip(-1))


@pytest.mark.parametrize(
    ("resolution", "crop", "mode", "word"),
    [(0, "center", "RGB", "resolution"), (8, "middle", "RGB", "squash"), (8, "center", "L", "decode_image")],
)
def test_impossible_fits_are_refused(resolution, crop, mode, word):
    with pytest.raises(ValueError, match=word):
        fit_image(Image.new(mode, (9, 9)), resolution, crop)
