"""One image's prompt, from whichever of its texts holds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .comfyui import read_comfyui
from .found import BROKEN, LEFT_OUT, MAX_VALUE, Found, MetadataError, check_prompt, load_object, small
from .infotext import parse_infotext
from .invokeai import read_invokeai
from .novelai import read_novelai
from .texts import Texts, read_texts

if TYPE_CHECKING:
    from PIL.Image import Image

AUTOMATIC1111, SIDECAR = "automatic1111", "sidecar"
MAX_SIDECAR = 1 << 20
_Reader = Callable[[Texts, str], "Found | None"]


def read_metadata(image: Image, path: Path, sidecar: bool = True) -> Found:
    """What an image file says it was made with.

    The sources are asked in this order, and the first that has a prompt counts: NovelAI, InvokeAI,
    AUTOMATIC1111's infotext (PNG ``parameters``, EXIF UserComment, a comment), ComfyUI's ``prompt`` and
    ``workflow``, and a text file beside the image. Infotext comes before ComfyUI's graph because nodes that
    save both write into it what a wildcard or a language model in the graph has come to.

    Args:
        image: open, with its pixels loaded; it is not decoded again.
        path: where it lies. ``picture.txt`` or ``picture.png.txt`` beside ``picture.png`` is its sidecar.
        sidecar: whether to look for one.

    Returns:
        ``kind`` is "" if there is no prompt and nothing that should hold one. Damaged or odd metadata never
        raise; ``remarks`` say what they were.
    """
    path = Path(path)
    texts = read_texts(image)
    remarks = list(texts.remarks)
    best = Found()
    readers: list[_Reader] = [read_novelai, read_invokeai, _read_infotext, read_comfyui]
    if sidecar:
        readers.append(lambda _texts, _name: _read_sidecar(path))
    for read in readers:
        try:
            found = read(texts, path.name)
            if found is None:
                continue
            check_prompt(found.prompt, f"{found.kind}: prompt")
            check_prompt(found.negative, f"{found.kind}: negative prompt")
        except MetadataError as error:
            remarks.append(str(error))
            continue
        remarks += found.remarks
        if found.prompt.strip() or not best.kind:
            best = found
        if found.prompt.strip():
            break
    best = _with_rights(best, texts, remarks)
    return replace(best, remarks=tuple(dict.fromkeys(remarks)))


def _read_infotext(texts: Texts, _name: str) -> Found | None:
    """``parameters`` is infotext by its name; a comment only if it has settings or a negative prompt."""
    text = texts.named.get("parameters")
    if text and _is_object(text):
        raise MetadataError(BROKEN, "parameters: JSON of a tool that is not known, no infotext")
    if text:
        return _from_infotext(text, AUTOMATIC1111)
    if texts.comment and not _is_object(texts.comment) and parse_infotext(texts.comment).is_certain:
        return _from_infotext(texts.comment, AUTOMATIC1111)
    return None


def _is_object(text: str) -> bool:
    """Prompts may begin with a brace too."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        load_object(text, "")
    except MetadataError:
        return False
    return True


def _from_infotext(text: str, kind: str) -> Found:
    parsed = parse_infotext(text)
    parameters, remarks = small(parsed.parameters, kind)
    return Found(kind, parsed.prompt, parsed.negative, parameters, remarks=(*parsed.remarks, *remarks))


def _read_sidecar(path: Path) -> Found | None:
    """A text file with the prompt alone, or with infotext, as AUTOMATIC1111 can write it beside images."""
    for other in (path.with_suffix(".txt"), path.with_name(path.name + ".txt")):
        try:
            if other == path or not other.is_file():
                continue
            with open(other, "rb") as file:
                content = file.read(MAX_SIDECAR + 1)
        except (OSError, ValueError) as error:
            raise MetadataError(BROKEN, f"{other.name}: cannot be read ({error})") from None
        text = _decoded(content, other.name).strip()
        return _from_infotext(text, SIDECAR) if text else Found(SIDECAR)
    return None


def _decoded(content: bytes, name: str) -> str:
    if len(content) > MAX_SIDECAR:
        raise MetadataError(BROKEN, f"{name}: more than {MAX_SIDECAR:,} bytes; that is no prompt")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding).replace("\r\n", "\n")
    except UnicodeError as error:
        raise MetadataError(BROKEN, f"{name}: not {encoding.upper()} ({error.reason})") from None


def _with_rights(found: Found, texts: Texts, remarks: list[str]) -> Found:
    """The fields that speak of rights and content, from the file's texts or the tool's settings."""
    settings = {name.lower(): str(value) for name, value in found.parameters.items()}
    fields = {
        "license": texts.get("License", "Licence", "Copyright") or texts.copyright,
        "origin": texts.get("Source", "URL"),
        "rating": texts.get("Rating") or settings.get("rating", ""),
        "nsfw": texts.get("NSFW") or settings.get("nsfw", ""),
    }
    for name, value in fields.items():
        if len(value) > MAX_VALUE:
            remarks.append(f"{LEFT_OUT}: {name}: {len(value):,} characters")
            fields[name] = ""
    return replace(found, **fields)
