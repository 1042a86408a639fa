"""Pictures drawn during training: each prompt without and with the adapter, from the same noise."""

from __future__ import annotations

from pathlib import Path

import torch

from .atomic import atomic_write
from .backend import Backend, TextEncoding
from .bundle import SURAdapterBundle
from .conditioning import adapt
from .training_config import TrainingConfig

_LABEL, _NARROWEST = 22, 150


def draw_samples(
    config: TrainingConfig, backend: Backend, adapter: SURAdapterBundle, resolution: int, path: Path
) -> None:
    """Write a PNG with a row for each of ``sample_prompts``: left without, right with the adapter.

    Args:
        adapter: in eval mode, on the backend's device.
        resolution: edge of each picture in pixels.
    """
    prompts = list(config.sample_prompts)
    encoded = text_embeddings(backend, [*prompts, ""])
    positive, negative = encoded[0][:-1], encoded[0][-1:]
    pooled, no_pooled = (None, None) if encoded[1] is None else (encoded[1][:-1], encoded[1][-1:])
    with torch.no_grad():
        adapted = adapt(adapter, positive, config.eta)
    columns = {
        "without": backend.sample_images,
        f"with, eta {config.eta:g}": backend.sample_images,
    }
    pictures = [
        draw(
            hidden,
            negative.expand(len(prompts), -1, -1),
            pooled,
            None if no_pooled is None else no_pooled.expand(len(prompts), -1),
            seeds=[config.sample_seed + number for number in range(len(prompts))],
            steps=config.sample_inference_steps,
            guidance_scale=config.sample_guidance_scale,
            resolution=resolution,
        )
        for draw, hidden in zip(columns.values(), (positive, adapted), strict=True)
    ]
    sheet = contact_sheet(list(zip(*pictures, strict=True)), list(columns), prompts)
    with atomic_write(path) as file:
        sheet.save(file, format="PNG")


def contact_sheet(rows: list[tuple], columns: list[str], captions: list[str]):
    """PIL images [rows][columns] as one picture, columns named on top, each row under its caption."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = rows[0][0].size
    width = max(width, _NARROWEST)  # a cut "eta 0.1" would say something else
    sheet = Image.new("RGB", (width * len(columns), _LABEL + (height + _LABEL) * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for place, name in enumerate(columns):
        pen.text((place * width + 4, 3), name, fill="black", font=font)
    for number, (caption, pictures) in enumerate(zip(captions, rows, strict=True)):
        top = _LABEL + number * (height + _LABEL)
        pen.text((4, top + 3), _shortened(caption, pen, font, sheet.width - 8), fill="black", font=font)
        for place, picture in enumerate(pictures):
            sheet.paste(picture, (place * width, top + _LABEL))
    return sheet


def text_embeddings(backend: Backend, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Embeddings of prompts, all text encoders side by side [B, 77, D], and SDXL's pooled ones [B, P]."""
    encoded: TextEncoding = backend.encode_text(prompts)
    hidden = torch.cat([part.float() for part in encoded.hidden.values()], -1)
    return hidden, None if encoded.pooled is None else encoded.pooled.float()


def _shortened(text: str, pen, font, width: int) -> str:
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
