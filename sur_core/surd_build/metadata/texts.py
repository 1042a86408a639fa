"""The texts that an opened image carries: PNG text chunks, EXIF, comments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .found import BROKEN, ENCODING, MetadataError

if TYPE_CHECKING:
    from PIL.Image import Image

_EXIF_IFD, _USER_COMMENT, _COPYRIGHT = 0x8769, 0x9286, 0x8298
_COMFYUI_KEYS = ("prompt", "workflow")
_CHARSETS = (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", b"\0" * 8)


@dataclass
class Texts:
    """All texts of one image file.

    Attributes:
        named: PNG text chunks by keyword; "prompt" and "workflow" also from EXIF, where ComfyUI puts them in
            WebP files.
        comment: EXIF's UserComment, else a JPEG's or GIF's comment.
        copyright: EXIF's Copyright.
        remarks: what could not be read.
    """

    named: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    copyright: str = ""
    remarks: list[str] = field(default_factory=list)

    def get(self, *names: str) -> str:
        """The first that there is of texts with these names, whatever their case."""
        lower = {name.lower(): text for name, text in self.named.items()}
        return next((lower[name.lower()] for name in names if lower.get(name.lower())), "")


def read_texts(image: Image) -> Texts:
    """Every text of an image that is open and whose pixels are loaded; PNG may keep texts behind them."""
    texts = Texts()
    for name, text in image.info.items():
        if isinstance(text, str):
            texts.named[name] = _text_of_chunk(name, text, texts.remarks)
    _read_exif(image, texts)
    comment = image.info.get("comment")
    if not texts.comment and isinstance(comment, (str, bytes)):
        try:
            texts.comment = comment if isinstance(comment, str) else _utf8(comment, "the file's comment")
        except MetadataError as error:
            texts.remarks.append(str(error))
    return texts


def _text_of_chunk(name: str, text: str, remarks: list[str]) -> str:
    """tEXt and zTXt are Latin-1 by the standard, but several tools and sites write UTF-8 into them.

    Latin-1 that happens to be UTF-8 beyond ASCII would have to hold pairs such as "Ã©", the very look of this
    mistake.
    """
    if text.isascii() or hasattr(text, "lang"):  # iTXt, always UTF-8, has a language
        return text
    try:
        repaired = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
    remarks.append(f"{ENCODING}: {name[:100]!r} is a Latin-1 chunk that holds UTF-8; read as UTF-8")
    return repaired


def _read_exif(image: Image, texts: Texts) -> None:
    if not (image.info.get("exif") or "Raw profile type exif" in image.info or hasattr(image, "tag_v2")):
        return
    try:
        # Pillow reads damaged EXIF with whatever error its parsers happen to raise.
        exif = image.getexif()
        first = dict(exif)
        user_comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except Exception as error:
        texts.remarks.append(f"{BROKEN}: EXIF cannot be read ({type(error).__name__}: {error})")
        return
    if isinstance(first.get(_COPYRIGHT), str):
        texts.copyright = _text_of_chunk("EXIF Copyright", first[_COPYRIGHT], texts.remarks).strip("\0 ")
    for name, text in _comfyui_in_exif(first):
        texts.named.setdefault(name, _text_of_chunk(f"EXIF {name}", text, texts.remarks))
    try:
        texts.comment = _user_comment(user_comment)
    except MetadataError as error:
        texts.remarks.append(str(error))


def _comfyui_in_exif(tags: dict[int, Any]) -> Iterator[tuple[str, str]]:
    """ComfyUI writes "prompt:{...}" and "workflow:{...}" into the tags for the camera's make and model."""
    for text in tags.values():
        if isinstance(text, str):
            name, _, content = text.partition(":")
            if name.strip().lower() in _COMFYUI_KEYS and content.lstrip().startswith("{"):
                yield name.strip().lower(), content


def _user_comment(value: bytes | str | None) -> str:
    """EXIF's UserComment, eight bytes of which name the character set; tools that leave them out write UTF-8.

    Raises:
        MetadataError: it is not in the character set it should be in.
    """
    if isinstance(value, str):  # stored as a string against the standard; Pillow has read it as Latin-1
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return ""
    charset, content = (value[:8], value[8:]) if value[:8] in _CHARSETS else (b"", value)
    if charset == b"UNICODE\0":
        return _utf16(content)
    if charset.startswith(b"JIS"):
        return _jis(content)
    return _utf8(content, "EXIF UserComment")


def _utf16(content: bytes) -> str:
    """The standard leaves the byte order open; piexif writes big-endian whatever the file's order is.

    Without a mark, the order in which more characters are ASCII is the right one: infotext and JSON are full
    of them.
    """
    content = content[: len(content) // 2 * 2]
    orders = {"utf-16-be": content[0::2].count(0), "utf-16-le": content[1::2].count(0)}
    best = max(orders, key=orders.get)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        best = "utf-16"
    try:
        return content.decode(best).rstrip("\0")
    except UnicodeError as error:
        raise MetadataError(BROKEN, f"EXIF UserComment: not UTF-16 ({error.reason})") from None


def _jis(content: bytes) -> str:
    for encoding in ("iso2022_jp", "shift_jis"):
        try:
            return content.decode(encoding).rstrip("\0")
        except UnicodeError:
            continue
    raise MetadataError(BROKEN, "EXIF UserComment: not JIS, though it says so")


def _utf8(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8").rstrip("\0")
    except UnicodeError as error:
        raise MetadataError(BROKEN, f"{what}: not UTF-8 ({error.reason} at byte {error.start})") from None
