r"""AUTOMATIC1111's infotext, which Forge, SD.Next, Fooocus, Civitai and many others write too.

    <prompt, any number of lines>
    Negative prompt: <negative prompt, any number of lines>
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, ...

The negative prompt is left out where it is empty; the settings are one line, because a value with a comma,
colon or line break is written as a JSON string. So "Steps: 3, ..." inside a prompt, "Negative prompt:" in the
middle of a line, and text in several lines can be told apart, and come back as they went in (but for the
white space around the whole, which the tools strip). Truly ambiguous is, and decided is:

- Several lines that begin with "Negative prompt:": it stood in one of the two prompts. The first counts, as
  in the tools themselves, and a remark says so. A prompt with such a line and no negative prompt cannot be
  told from one with a negative prompt. Indented such lines count only where no other does: AUTOMATIC1111
  indents them when it rewrites NovelAI's.
- No settings line, and a last line of the prompt that looks like one (three "name: value" parts, one of them
  Steps, Sampler, Seed, CFG scale, Size, Model or Model hash): it is taken for the settings.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from .found import AMBIGUOUS

NEGATIVE = "Negative prompt:"
_TEMPLATES = ("Template:", "Negative Template:")
_KEY = re.compile(r"\w[\w \-/]{0,99}")
_KNOWN = {"Steps", "Sampler", "Seed", "CFG scale", "Size", "Model", "Model hash"}
_NUMBERS = {
    "Steps",
    "CFG scale",
    "Seed",
    "Clip skip",
    "Denoising strength",
    "Variation seed",
    "Variation seed strength",
    "Distilled CFG Scale",
    "Image CFG scale",
    "ENSD",
    "Eta",
    "Hires steps",
    "Hires upscale",
}
_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20})?")
_END = re.compile(r"([ \r]*)(?:,|$)")
_decoder = json.JSONDecoder()


@dataclass(frozen=True)
class Infotext:
    """The parts of an infotext.

    Attributes:
        prompt, negative: exact, with their line breaks.
        parameters: the settings, those known to be numbers as numbers.
        is_certain: whether there was a settings line or a negative prompt; else the text may be anything.
        remarks: what was ambiguous.
    """

    prompt: str
    negative: str
    parameters: dict[str, str | int | float]
    is_certain: bool
    remarks: tuple[str, ...] = ()


def parse_infotext(text: str) -> Infotext:
    """Take an infotext apart. Takes time linear in its length; raises nothing: any text is an infotext."""
    lines = text.strip().split("\n")
    settings, parameters = _settings_line(lines)
    lines = lines[:settings]
    start, count = _negative_line(lines)
    negative = ""
    if start < len(lines):
        first = lines[start].lstrip()[len(NEGATIVE) :]
        negative = "\n".join([first.removeprefix(" "), *lines[start + 1 :]])
    remarks = ()
    if count > 1:
        remarks = (
            f"{AMBIGUOUS}: {count} lines begin with {NEGATIVE!r}; the negative prompt is from the first",
        )
    is_certain = bool(parameters) or count > 0
    return Infotext("\n".join(lines[:start]), negative, parameters, is_certain, remarks)


def _settings_line(lines: list[str]) -> tuple[int, dict]:
    """Index of the settings line (the number of lines if there is none) and what it says."""
    found = _fields(lines[-1])
    if _are_settings(found):
        return len(lines) - 1, _typed(found)
    # Dynamic Prompts once wrote its templates, of any number of lines, below the settings.
    for index in range(len(lines) - 2, -1, -1):
        if lines[index + 1].startswith(_TEMPLATES) and lines[index].lstrip().startswith("Steps:"):
            found = _fields(lines[index])
            if _are_settings(found):
                return index, {**_typed(found), "Template": "\n".join(lines[index + 1 :])}
    return len(lines), {}


def _negative_line(lines: list[str]) -> tuple[int, int]:
    """Index of the line where the negative prompt begins, and how many lines could be it."""
    starts = [index for index, line in enumerate(lines) if line.startswith(NEGATIVE)]
    starts = starts or [index for index, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE)]
    return (starts[0] if starts else len(lines)), len(starts)


def _are_settings(found: list[tuple[str, str]]) -> bool:
    return len(found) >= 3 and any(key in _KNOWN for key, _ in found)


def _fields(line: str) -> list[tuple[str, str]]:
    """("name", "value") of a settings line; parts that are none are passed over, as the tools do."""
    found = []
    at = 0
    while at < len(line):
        end = line.find(",", at)
        end = len(line) if end < 0 else end
        name, colon, _ = line[at:end].partition(":")
        if colon and _KEY.fullmatch(name.strip()):
            value, end = _value(line, at + len(name) + 1, end)
            found.append((name.strip(), value))
        at = end + 1
    return found


def _value(line: str, start: int, end: int) -> tuple[str, int]:
    """The value that begins at ``start``, and where it ends; ``end`` is the next comma."""
    while start < end and line[start] == " ":
        start += 1
    if start < len(line) and line[start] in '"[{':  # Civitai writes lists and objects without quotes
        try:
            value, stop = _decoder.raw_decode(line, start)
        except (ValueError, RecursionError):
            return line[start:end].strip(), end
        rest = _END.match(line, stop)
        if rest:
            return value if isinstance(value, str) else line[start:stop], rest.end(1)
    return line[start:end].strip(), end


def _typed(found: list[tuple[str, str]]) -> dict[str, str | int | float]:
    return {key: _number(value) if key in _NUMBERS else value for key, value in found}


def _number(value: str) -> str | int | float:
    if not _NUMBER.fullmatch(value):
        return value
    return float(value) if "." in value else int(value)
