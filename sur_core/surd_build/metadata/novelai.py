"""NovelAI: PNG chunks ``Software``, ``Description`` and ``Comment`` (JSON); in WebP one EXIF tag."""

from __future__ import annotations

from typing import Any

from .found import BROKEN, Found, MetadataError, joined, load_object, small
from .texts import Texts

KIND = "novelai"
_SETTINGS = (
    "steps",
    "scale",
    "seed",
    "sampler",
    "noise_schedule",
    "width",
    "height",
    "cfg_rescale",
    "strength",
)


def read_novelai(texts: Texts, _name: str) -> Found | None:
    """What NovelAI wrote, or None. Raises MetadataError: it is damaged."""
    chunks = texts.named
    if not _is_novelai(chunks):
        chunks = _in_comment(texts.comment)
        if not _is_novelai(chunks):
            return None
    description = chunks.get("Description")
    description = description if isinstance(description, str) else ""
    try:
        comment = _comment(chunks)
    except MetadataError as error:
        if description.strip():  # the prompt is there all the same
            return Found(KIND, description, remarks=(str(error),))
        raise
    prompt = _captions(comment.get("v4_prompt")) or _text(comment.get("prompt")) or description
    negative = _captions(comment.get("v4_negative_prompt")) or _text(comment.get("uc"))
    settings = {name: comment.get(name) for name in _SETTINGS} | {"model": chunks.get("Source")}
    parameters, remarks = small(settings, KIND)
    return Found(KIND, prompt, negative, parameters, remarks=tuple(remarks))


def _is_novelai(chunks: dict[str, Any]) -> bool:
    return chunks.get("Software") == "NovelAI" and ("Comment" in chunks or "Description" in chunks)


def _in_comment(text: str) -> dict[str, Any]:
    """WebP files keep the chunks as an object in UserComment; other tools' comments are not this one's."""
    if not text.lstrip().startswith("{") or '"NovelAI"' not in text:
        return {}
    return load_object(text, "EXIF UserComment")


def _comment(chunks: dict[str, Any]) -> dict:
    comment = chunks.get("Comment")
    if comment is None:
        return {}
    if isinstance(comment, str):
        return load_object(comment, "NovelAI's Comment")
    if not isinstance(comment, dict):
        raise MetadataError(BROKEN, f"NovelAI's Comment: found {type(comment).__name__}")
    return comment


def _captions(prompt: Any) -> str:
    """Since version 4 a picture has a caption of its own and one for each character."""
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return ""
    characters = caption.get("char_captions")
    characters = characters if isinstance(characters, list) else []
    others = [_text(one.get("char_caption")) for one in characters if isinstance(one, dict)]
    return joined([_text(caption.get("base_caption")), *others])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
