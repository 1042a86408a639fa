"""What the tokens of a prompt are called: vocabulary entries made readable.

CLIP's vocabulary holds bytes, each written as one letter, and marks a word's last token with ``</w>``. A
word, and even a single character of another script, may be several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..lettering import ELLIPSIS

WORD, MARK, PADDING = "word", "mark", "padding"
END_OF_WORD = "</w>"


@dataclass(frozen=True)
class Token:
    """A token's name.

    Attributes:
        text: ``"seven"``; a piece of a word as ``"kit…"`` and ``"…tens"``.
        kind: ``WORD``, ``MARK`` (start, end) or ``PADDING`` (what fills a chunk behind the end).
        whole: the word it is a piece of, ``"kittens"``; ``""`` if it is no piece.
    """

    text: str
    kind: str = WORD
    whole: str = ""


START, END, PAD = Token("[start]", MARK), Token("[end]", MARK), Token("[padding]", PADDING)


def numbered(first: int, count: int) -> tuple[Token, ...]:
    """Names for tokens of which nothing is known: ``token 1``, ``token 2``, ..."""
    return tuple(Token(f"token {number}") for number in range(first, first + count))


def readable(pieces: Sequence[str]) -> list[Token]:
    """Vocabulary entries of consecutive tokens as people write them.

    ``["kit", "tens</w>", "ä¸ĥ</w>"]`` gives ``kit…``, ``…tens``, ``七``. Where a character is cut in two,
    both tokens show it.
    """
    tokens, word = [], []
    for piece in pieces:
        word.append(piece)
        if piece.endswith(END_OF_WORD):
            tokens += _word(word)
            word = []
    return tokens + _word(word)


def _word(pieces: list[str]) -> list[Token]:
    parts = [_bytes(piece.removesuffix(END_OF_WORD)) for piece in pieces]
    data, tokens, start = b"".join(parts), [], 0
    whole = data.decode("utf8", errors="replace") if len(pieces) > 1 else ""
    for number, (piece, part) in enumerate(zip(pieces, parts, strict=True)):
        first, last = start, start + len(part)
        start = last
        while first > 0 and _inside_character(data, first):
            first -= 1
        while last < len(data) and _inside_character(data, last):
            last += 1
        text = data[first:last].decode("utf8", errors="replace")
        before = ELLIPSIS if number else ""
        after = "" if piece.endswith(END_OF_WORD) else ELLIPSIS
        tokens.append(Token(f"{before}{text}{after}", whole=whole))
    return tokens


def _inside_character(data: bytes, place: int) -> bool:
    return data[place] & 0xC0 == 0x80  # UTF-8's continuation bytes


def _bytes(piece: str) -> bytes:
    if all(letter in _BYTES for letter in piece):
        return bytes(_BYTES[letter] for letter in piece)
    return piece.encode("utf8")  # a vocabulary of another kind


def _byte_letters() -> dict[str, int]:
    """GPT-2's alphabet, which CLIP took over: printable bytes stand for themselves, the others follow 255."""
    themselves = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in themselves]
    return {chr(byte): byte for byte in themselves} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_letters()
