"""Rows of Civitai-style JSON: answers of its API saved to disk, and the list the paper's authors made of it.

An image stands in ``items[]`` itself (``/api/v1/images``), or in ``items[].modelVersions[].images[]``
(``/api/v1/models``); its prompt in ``meta.prompt``, or, in the authors' ``data.json``, in ``prompt``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from ..surd_rows import Quarantined, RowError, check_text
from .ratings import Marks, read_marks

PERMISSIONS = ("allowNoCredit", "allowCommercialUse", "allowDerivatives", "allowDifferentLicense")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_PARAMETER = 200


def civitai_rows(document: object, place: str) -> Iterator[tuple[str, tuple[str, ...], dict] | Quarantined]:
    """(place, names under which its file may be known, values) of every image in a JSON value."""
    for where, image, model in _images(document, place):
        try:
            names = _names(image)
            if not names:
                raise RowError("missing image: the row has no id, name or url to know its file by")
            if str(image.get("type", "image")).lower() != "image":
                raise RowError(f"not an image: the row is about a {image['type']}")
            yield where, names, _values(image, model)
        except RowError as error:
            yield Quarantined(_label(image, where), where, str(error))


def _images(value: object, place: str) -> Iterator[tuple[str, Mapping, Mapping]]:
    """(place, image, the model it belongs to or {})."""
    if isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            yield from _images(inner, f"{place}, item {number}")
    elif not isinstance(value, dict):
        return
    elif isinstance(value.get("items"), list):
        yield from _images(value["items"], place)
    elif isinstance(value.get("modelVersions"), list) or isinstance(value.get("images"), list):
        versions = value.get("modelVersions") if isinstance(value.get("modelVersions"), list) else [value]
        for version in versions:
            images = version.get("images") if isinstance(version, dict) else None
            for number, image in enumerate(images if isinstance(images, list) else (), start=1):
                if isinstance(image, dict):
                    yield f"{place}, version {version.get('id', '?')}, image {number}", image, value
    elif {"url", "meta", "prompt", "image_name"} & value.keys():
        yield place, value, {}


def _names(image: Mapping) -> tuple[str, ...]:
    """As the authors' program names files (the part of the url before its size), and as other ones do."""
    found = [image.get("image_name"), image.get("file_name"), image.get("name")]
    parts = [unquote(part) for part in urlsplit(str(image.get("url") or "")).path.split("/") if part]
    found += [*parts[-1:], *(os.path.splitext(part)[0] for part in parts[-1:]), image.get("id")]
    found += [part for part in parts if _UUID.fullmatch(part)]
    return tuple(dict.fromkeys(str(name) for name in found if isinstance(name, str | int) and str(name)))


def _values(image: Mapping, model: Mapping) -> dict[str, Any]:
    meta = image.get("meta") if isinstance(image.get("meta"), dict) else {}
    if "prompt" not in meta and isinstance(meta.get("meta"), dict):
        meta = meta["meta"]
    prompt = _text(meta.get("prompt") or image.get("prompt"), "the prompt")
    negative = meta.get("negativePrompt") or image.get("negativePrompt")
    parameters = {
        str(key): value
        for key, value in meta.items()
        if isinstance(value, str | int | float)
        and len(str(value)) <= _LONGEST_PARAMETER
        and "rompt" not in key
    }
    permissions = [f"{name}={model[name]}" for name in PERMISSIONS if name in model]
    if permissions:
        parameters["model_permissions"] = ", ".join(permissions)
    rating, nsfw = _marks(image, model)
    return {
        "metadata": ("table" if "image_name" in image else "civitai") if prompt else "",
        "prompt": prompt,
        "negative": _text(negative, "the negative prompt"),
        "parameters": parameters,
        "license": str(image.get("license") or ""),
        "origin": str(image.get("url") or ""),
        "rating": rating,
        "nsfw": nsfw,
    }


def _marks(image: Mapping, model: Mapping) -> Marks:
    """What is said of the image; of the model if nothing is. Raises RowError."""
    rating, nsfw = read_marks(image)
    if nsfw is None:
        model_rating, nsfw = read_marks({"nsfw": model.get("nsfw")})
        rating = rating or model_rating
    return check_text(rating, "the rating"), nsfw


def _text(value: object, what: str) -> str:
    return check_text(value, what) if value else ""


def _label(image: Mapping, where: str) -> str:
    return next((str(image[key]) for key in ("image_name", "id", "url") if image.get(key)), where)
