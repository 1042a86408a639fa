"""Image files of any usual kind to the RGB pixels a VAE reads.

What the file says is followed (orientation, transparency, 16 bits); what cannot be shown faithfully is
refused. Colour profiles are not applied: neither Stable Diffusion's training nor its users' tools do.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .plain_png import decode_plain_png

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 178_956_970
"""Where Pillow itself stops; checked here too because a host program may have switched Pillow's limit off."""

DECODER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error)
"""What Pillow's decoders raise on damaged files; they have no common error."""

CROPS = ("center", "squash")


class ImageError(ValueError):
    """An image cannot be used. The message names it, says what was found and what to do."""


@dataclass(frozen=True, eq=False)
class FittedImage:
    """An image at training size.

    Attributes:
        pixels: uint8 [R, R, 3].
        original_size: (height, width) before resizing, upright.
        crop_top_left: (top, left) of the square in the resized image, for SDXL's time ids.
        flipped_crop_top_left: the same square's place once the resized image is mirrored left to right.
    """

    pixels: np.ndarray
    original_size: tuple[int, int]
    crop_top_left: tuple[int, int]
    flipped_crop_top_left: tuple[int, int]


def decode_image(data: bytes, name: str, quick: bool = False) -> Image:
    """An image file's content as an upright, opaque RGB image.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits; of an
    animation the first frame is taken.

    Args:
        data: the encoded file.
        name: what to call it in errors.
        quick: by :func:`.plain_png.decode_plain_png` where it can; for few threads only.

    Raises:
        ImageError: not an image, truncated, damaged, larger than 179 megapixels, or of a kind (floating
            point, Lab) whose look as RGB is not defined by the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise ImageError(f"{name}: the image file is empty. Copy or download it again")
    try:
        with (decode_plain_png(data) if quick else None) or Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(_too_large(name, f"{image.width} x {image.height}"))
            image.load()
            # Orientation is read after the pixels: PNG may store it behind them.
            return opaque_rgb(ImageOps.exif_transpose(image), name)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(_too_large(name, str(error))) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: not an image file of a known kind (it begins with {data[:8]!r}). Replace it or remove "
            "its row"
        ) from error
    except DECODER_ERRORS as error:
        raise ImageError(
            f"{name}: the image is truncated or damaged ({error}). Copy or download it again, or remove its "
            "row"
        ) from error


def fit_image(image: Image, resolution: int, crop: str) -> FittedImage:
    """An RGB image as a square.

    Args:
        image: RGB, upright.
        resolution: R, the square's side in pixels. Smaller images are enlarged.
        crop: "center" brings the short side to R and cuts the middle out; "squash" resizes to R x R and keeps
            everything at the price of proportions.

    Raises:
        ValueError: an impossible resolution, crop or mode.
    """
    from PIL import Image

    if resolution < 1:
        raise ValueError(f"resolution must be a positive number of pixels, found {resolution}")
    if crop not in CROPS:
        raise ValueError(f"crop must be one of {', '.join(CROPS)}, found {crop!r}")
    if image.mode != "RGB":
        raise ValueError(f"expected an RGB image, found mode {image.mode}; use decode_image")
    width, height = image.size
    if crop == "squash":
        resized_width = resized_height = resolution
    else:
        short = min(width, height)
        resized_width, resized_height = (round(resolution * side / short) for side in (width, height))
    top, left = (resized_height - resolution) // 2, (resized_width - resolution) // 2
    # Only the square is computed (the whole of a very long image could fill the memory); the filter still
    # sees the pixels beyond its edge. Lanczos: antialiased, and it keeps the fine detail a VAE can encode.
    across, down = width / resized_width, height / resized_height
    box = (
        left * across,
        top * down,
        min(width, (left + resolution) * across),
        min(height, (top + resolution) * down),
    )
    square = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    mirrored_left = resized_width - resolution - left
    return FittedImage(np.array(square), (height, width), (top, left), (top, mirrored_left))


def to_pixels(pixels: np.ndarray, flip: bool = False) -> torch.Tensor:
    """uint8 [R, R, 3] as the VAE's input: float32 [3, R, R] in -1..1, mirrored left to right if ``flip``."""
    upright = pixels[:, ::-1] if flip else pixels
    return torch.from_numpy(np.array(upright.transpose(2, 0, 1), np.float32, order="C")).div_(127.5).sub_(1.0)


def opaque_rgb(image: Image, name: str) -> Image:
    """Transparency laid on white, 16-bit grey brought to 8 bits. Raises ImageError: not defined as RGB."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = _grey_to_8_bits(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_8_bits(image: Image, name: str) -> Image:
    """Grey of 16 bits, which older Pillow versions open as 32-bit integers, as 8 bits: 65535 becomes 255."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{name}: grey values outside 8 or 16 bits (mode {image.mode}), whose white is not defined. "
            "Save it as an 8-bit PNG"
        )
    grey = Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _too_large(name: str, found: str) -> str:
    return f"{name}: the image is larger than {MAX_PIXELS / 1e6:.0f} megapixels ({found}). Save a smaller one"
