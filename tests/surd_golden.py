"""Image files in the formats in which tools leave their prompts in pictures."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sur_core.surd_build.metadata import Found, read_metadata

SETTINGS = {
    "Steps": 20,
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": 7.5,
    "Seed": 965400086,
    "Size": "512x768",
    "Model hash": "45dee52b",
    "Model": "dream, shaper: 8",
    "Version": "f2.0.1",
}

LONG = ", ".join(f"detail {number} of a very long prompt" for number in range(400))[:10_000]

PROMPTS = {
    "plain": "a woman in a yellow coat jumps over a puddle",
    "latin1": "café à Zürich, señor, 50° £",
    "unicode": "桜の下の猫, кошка под вишней, 🐈‍⬛ emoji, שלום",
    "lines": "masterpiece, best quality\n\n  an indented line\nBREAK\nthe last, with a comma,",
    "negative inside": "a sign that says Negative prompt: none, and more",
    "steps inside": "a stair\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1\nmore of the stair",
    "quotes": 'she said "run: now, please" \\ {a|b} <lora:x:0.8> (weight:1.2) [off]'.replace(" [off]", ""),
    "ten thousand": LONG,
}
"""Prompts that go in; of every source they come out as they are."""


def picture(size: int = 16) -> Image.Image:
    """Noise: a real picture's worth of pixels, of little weight."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8))


def read(path: Path, sidecar: bool = True) -> Found:
    """What the collector does with a file."""
    with Image.open(path) as image:
        image.load()
        return read_metadata(image, path, sidecar)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def text_chunk(kind: str, name: str, text: str | bytes) -> bytes:
    """A PNG text chunk made by hand; "zTXt" and "iTXt, compressed" are compressed."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8" if "iTXt" in kind else "latin-1")
    key = name.encode("latin-1") + b"\0"
    if kind == "tEXt":
        return chunk(b"tEXt", key + raw)
    if kind == "zTXt":
        return chunk(b"zTXt", key + b"\0" + zlib.compress(raw))
    if kind == "iTXt":
        return chunk(b"iTXt", key + b"\0\0\0\0" + raw)
    return chunk(b"iTXt", key + b"\1\0\0\0" + zlib.compress(raw))


def save_png(path: Path, texts: dict[str, str], kind: str = "", behind: bool = False) -> Path:
    """A PNG with text chunks: as Pillow's add_text writes them, or all of one kind, before the pixels or
    behind them.
    """
    info = PngInfo()
    if not kind:
        for name, text in texts.items():
            info.add_text(name, text)
        picture().save(path, pnginfo=info)
        return path
    picture().save(path)
    content = path.read_bytes()
    place = content.rindex(b"IEND") - 4 if behind else 8 + 25  # signature and header
    chunks = b"".join(text_chunk(kind, name, text) for name, text in texts.items())
    path.write_bytes(content[:place] + chunks + content[place:])
    return path


def exif_bytes(user_comment: bytes = b"", order: str = "<", tags: dict[int, bytes] | None = None) -> bytes:
    """EXIF made by hand, so that every byte of it is known: ASCII tags and a UserComment."""
    tags = dict(tags or {})
    count = len(tags) + bool(user_comment)
    heap_at = 8 + 2 + 12 * count + 4
    entries, heap = [], b""
    for tag, value in sorted(tags.items()):
        value = value + b"\0" * max(1, 5 - len(value))  # longer than the four bytes that fit into an entry
        entries.append(struct.pack(order + "HHII", tag, 2, len(value), heap_at + len(heap)))
        heap += value
    if user_comment:
        user_comment = user_comment.ljust(5, b"\0")
        at = heap_at + len(heap)
        entries.append(struct.pack(order + "HHII", 0x8769, 4, 1, at))
        heap += (
            struct.pack(order + "HHHIII", 1, 0x9286, 7, len(user_comment), at + 2 + 12 + 4, 0) + user_comment
        )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", count) + b"".join(entries) + b"\0" * 4 + heap


def save_exif(path: Path, user_comment: bytes = b"", order: str = "<", **tags) -> Path:
    """A JPEG or WebP, by the name's ending."""
    picture().save(path, exif=exif_bytes(user_comment, order, **tags))
    return path


def infotext(prompt: str, negative: str = "", settings: dict | None = SETTINGS) -> str:
    """As AUTOMATIC1111 and Forge write it: values with a comma, colon or line break become JSON strings."""
    text = prompt
    if negative:
        text += "\nNegative prompt: " + negative
    if settings:
        quoted = []
        for name, value in settings.items():
            value = str(value)
            special = any(character in value for character in ",:\n")
            quoted.append(f"{name}: {json.dumps(value, ensure_ascii=False) if special else value}")
        text += "\n" + ", ".join(quoted)
    return text.strip()


WORDS = (
    "cat", "Steps", "Negative prompt", "Negative prompt:", "a: b", "Steps: 20,", "(old:1.3)", "%", "AND",
    '"quoted"', "\\", "{x|y}", "[a:b:0.3]", "猫", "чёрный", "é", "🐈", ",", "  ", "Seed: 1, Size: 2x2", "-",
    "<lora:a_b:0.7>",
)  # fmt: skip
NAMES = (
    "ADetailer model",
    "Lora hashes",
    "Hires upscale",
    "Clip skip",
    "ControlNet 0",
    "TI hashes",
    "Style Selector",
)


def random_text(chance: random.Random, lines: int) -> str:
    """Text with everything infotext is made of, but for lines that would begin a negative prompt."""
    made = []
    for _ in range(lines):
        words = [chance.choice(WORDS) for _ in range(chance.randint(0, 8))]
        line = chance.choice((" ", ", ", "")).join(words)
        made.append("x" + line if line.lstrip().startswith("Negative prompt:") else line)
    return "\n".join(made)


def random_settings(chance: random.Random) -> dict[str, str]:
    """Settings as the tools write them: Steps first, values that need quotes and values that do not."""
    settings = {"Steps": str(chance.randint(1, 150)), "Sampler": chance.choice(("Euler a", "DPM++ 2M SDE"))}
    settings |= {"CFG scale": str(chance.randint(1, 30)), "Seed": str(chance.randint(0, 2**32))}
    for name in chance.sample(NAMES, chance.randint(0, len(NAMES))):
        value = random_text(chance, chance.randint(1, 2)).strip()
        settings[name] = value.strip('"') or "x"
    return settings
