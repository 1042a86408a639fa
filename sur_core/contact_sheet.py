"""Several pictures on one sheet, each under its label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .lettering import Lettering
from .themes import theme_named

_WIDEST_WORD = 14
"""Label sizes: a cell grows so far beyond its picture before a word of its label is broken."""


def label_pictures(
    batches: Sequence[torch.Tensor], labels: Sequence[str]
) -> tuple[list[torch.Tensor], list[str], int]:
    """One picture and one label at a time, from batches [B, H, W, C] that may differ in all sizes.

    There is a label for each picture, or one for each batch: then all pictures of a batch bear it, numbered.

    Returns:
        Pictures [H, W, C], as many labels, and a good number of columns.

    Raises:
        ValueError: the numbers do not match, or there is no picture.
    """
    sizes = [len(batch) for batch in batches]
    pictures = [picture for batch in batches for picture in batch]
    if not pictures:
        raise ValueError("there is no picture to label; connect pictures to the images input")
    if len(labels) == len(pictures):
        rows_are_batches = len(set(sizes)) == 1 and sizes[0] > 1 and len(sizes) > 1
        return pictures, list(labels), sizes[0] if rows_are_batches else _columns(len(pictures))
    if len(labels) != len(batches):
        found = f"{len(pictures)} pictures" + (f" in {len(batches)} batches" if len(batches) > 1 else "")
        raise ValueError(
            f"found {found} and {len(labels)} labels ({_some(labels)}); there must be one label for each "
            "picture, or one for each batch. Typed labels are one a line"
        )
    numbered = [
        label if size == 1 else f"{label}, {number}"
        for label, size in zip(labels, sizes, strict=True)
        for number in range(1, size + 1)
    ]
    return (
        pictures,
        numbered,
        max(sizes) if len(set(sizes)) == 1 and len(sizes) > 1 else _columns(len(pictures)),
    )


def contact_sheet(
    pictures: Sequence[torch.Tensor],
    labels: Sequence[str],
    columns: int = 0,
    label_size: int = 28,
    theme: str = "dark",
):
    """A Pillow image: pictures in rows, each whole, in its own proportions, under its label.

    Pictures of one size are shown as they are; of several, each is enlarged or reduced to fit the largest
    width and height. Long labels take several lines.

    Args:
        pictures: [H, W, C] each, 0..1, C of 1 (grey), 3, or 4 (with transparency).
        labels: one for each.
        columns: how many pictures in a row; 0 to choose.
        label_size: of the letters, pixels.
        theme: ``"dark"`` or ``"light"``.

    Raises:
        ValueError: no picture, not as many labels as pictures, or a picture of another kind.
    """
    from PIL import Image, ImageDraw

    pictures, labels, chosen = label_pictures([picture[None] for picture in pictures], labels)
    colors, lettering = theme_named(theme), Lettering(label_size)
    columns = min(columns or chosen, len(pictures))
    box = tuple(max(picture.shape[axis] for picture in pictures) for axis in (1, 0))
    width = max(box[0], min(_widest_word(labels, lettering), _WIDEST_WORD * label_size))
    lines = [lettering.wrap(label, width) for label in labels]
    rows = [range(first, min(first + columns, len(labels))) for first in range(0, len(labels), columns)]
    heads = [max(len(lines[place]) for place in row) * lettering.height for row in rows]
    gap = max(8, label_size // 2)
    size = (columns * (width + gap) + gap, sum(heads) + len(rows) * (box[1] + gap + gap // 2) + gap)
    sheet = Image.new("RGB", size, colors.paper)
    pen, top = ImageDraw.Draw(sheet), gap
    for row, head in zip(rows, heads, strict=True):
        for column, place in enumerate(row):
            left = gap + column * (width + gap)
            first = top + head - len(lines[place]) * lettering.height  # labels stand on their pictures
            _write(pen, lettering, lines[place], (left + width / 2, first), colors.ink)
            picture = _fitted(_as_picture(pictures[place], colors.paper), box)
            y = top + head + gap // 2 + (box[1] - picture.height) // 2
            sheet.paste(picture, (left + (width - picture.width) // 2, y))
        top += head + gap // 2 + box[1] + gap
    return sheet


def _write(pen, lettering: Lettering, lines: list[str], place: tuple[float, float], fill) -> None:
    """Lines centred below ``place``."""
    for number, line in enumerate(lines):
        middle = place[1] + (number + 0.5) * lettering.height
        lettering.draw(pen, (place[0], middle), line, fill, "mm")


def _columns(count: int) -> int:
    """Up to four pictures stand side by side, more as near to a square as can be."""
    return count if count <= 4 else int(np.ceil(np.sqrt(count)))


def _widest_word(labels: Sequence[str], lettering: Lettering) -> int:
    return max((lettering.width(word) for label in labels for word in label.split()), default=0)


def _fitted(picture, box: tuple[int, int]):
    """A Pillow image as large as fits into ``box``, in its own proportions."""
    from PIL import Image

    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def _as_picture(pixels: torch.Tensor, paper: tuple[int, int, int]):
    """[H, W, C] as an RGB Pillow image; what is transparent shows the paper."""
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or not all(pixels.shape):
        raise ValueError(
            "expected pictures [height, width, channels] with 1, 3 or 4 channels, found "
            f"{list(pixels.shape)}. Connect an IMAGE, such as the output of VAE Decode"
        )
    values = pixels.detach().to("cpu", torch.float32).nan_to_num().clamp(0, 1)
    if values.shape[-1] == 4:
        alpha = values[..., 3:]
        values = values[..., :3] * alpha + torch.tensor(paper) / 255 * (1 - alpha)
    return Image.fromarray((values.expand(-1, -1, 3) * 255).round().to(torch.uint8).numpy())


def _some(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels[:3]) + (", ..." if len(labels) > 3 else "") or "none"
