"""What is found in an image file, and what is said where something cannot be used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_PROMPT = 200_000
"""Characters; longer texts are no prompts but damage or an attack."""

MAX_JSON = 32 * 2**20
MAX_VALUE = 1000
MAX_PARAMETERS = 200

BROKEN = "broken metadata"
UNRESOLVED = "unresolved prompt"
SEVERAL = "several prompts"
AFTERWARDS = "prompt of a later step"
AMBIGUOUS = "ambiguous infotext"
ENCODING = "text encoding"
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Found:
    """What an image file says about itself.

    Attributes:
        kind: where the prompt comes from: "automatic1111", "comfyui", "invokeai", "novelai", "sidecar", or ""
            if there is nothing.
        prompt, negative: as they went in. Where a tool has several encoders or captions for one picture,
            their different texts follow each other on lines of their own.
        parameters: the sampler's settings and what else the tool says, small strings and finite numbers.
        license, origin, rating, nsfw: as the file says, "" if it does not.
        remarks: "kind: detail" for everything that was not plain; kinds are short fixed phrases.
    """

    kind: str = ""
    prompt: str = ""
    negative: str = ""
    parameters: dict[str, str | int | float] = field(default_factory=dict)
    license: str = ""
    origin: str = ""
    rating: str = ""
    nsfw: str = ""
    remarks: tuple[str, ...] = ()


class MetadataError(ValueError):
    """A block of metadata cannot be used; the message is a remark: "kind: detail"."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")


def load_json(text: str, what: str) -> Any:
    """JSON from a file nobody vouches for. NaN and Infinity, which ComfyUI writes, become None.

    Raises:
        MetadataError: no JSON, nested too deeply, or larger than 32 million characters.
    """
    if len(text) > MAX_JSON:
        raise MetadataError(
            BROKEN, f"{what}: {len(text):,} characters of JSON; at most {MAX_JSON:,} are read"
        )
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise MetadataError(BROKEN, f"{what}: JSON nested too deeply") from None
    except ValueError as error:
        raise MetadataError(BROKEN, f"{what}: not JSON ({error})") from None


def load_object(text: str, what: str) -> dict:
    """As :func:`load_json`, but a JSON object. Raises MetadataError: it is something else."""
    value = load_json(text, what)
    if not isinstance(value, dict):
        raise MetadataError(BROKEN, f"{what}: expected a JSON object, found {type(value).__name__}")
    return value


def check_prompt(text: str, what: str) -> str:
    """``text`` unless it is no prompt.

    Raises:
        MetadataError: longer than 200,000 characters, or with half a UTF-16 pair, which no tokenizer takes.
    """
    if len(text) > MAX_PROMPT:
        raise MetadataError(BROKEN, f"{what}: {len(text):,} characters; prompts have at most {MAX_PROMPT:,}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MetadataError(BROKEN, f"{what}: half a character (a lone surrogate) at {error.start}") from None
    return text


def small(values: Mapping[str, Any], what: str) -> tuple[dict[str, str | int | float], list[str]]:
    """The strings and finite numbers among ``values``, and remarks on those that are too long or too many."""
    kept: dict[str, str | int | float] = {}
    remarks = []
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            continue
        if not isinstance(value, (str, int, float)):  # None, lists and objects are no settings
            continue
        if isinstance(value, str) and len(value) > MAX_VALUE:
            remarks.append(f"{LEFT_OUT}: {what}: {key[:100]!r} has {len(value):,} characters")
        elif isinstance(value, int) and abs(value) > 2**64:
            remarks.append(f"{LEFT_OUT}: {what}: {key[:100]!r} is a number of {value.bit_length()} bits")
        elif len(kept) == MAX_PARAMETERS:
            remarks.append(f"{LEFT_OUT}: {what}: more than {MAX_PARAMETERS} parameters")
            break
        else:
            kept[key] = value
    return kept, remarks


def joined(texts: list[str]) -> str:
    """Different texts on lines of their own; the same text twice, as SDXL's encoders get it, once."""
    return "\n".join(dict.fromkeys(text for text in texts if text.strip()))
