"""Prompt sets: what is asked of the model, by type, with the truth a judge compares with.

A set is a file. JSON lines have one entry a line (here it is broken to fit)::

    {"id": "count-03", "type": "Counting", "prompt": "a trio of apples",
     "complex": "(3 apples:1.2), best quality", "truth": {"count": 3, "kind": "apple"}}

and TOML has the same keys in ``[[prompts]]`` tables. ``complex`` and ``truth`` may be left out. What the
judges of this library read in a truth is written in :mod:`.judging.truth`; some sets come along
(:mod:`.shipped_prompts`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from .shipped_prompts import SHIPPED, shipped_prompts

KEYS = ("id", "type", "prompt", "complex", "truth")


class PromptSetError(ValueError):
    """A prompt set cannot be used. The message names the file, the entry, what is wrong and what to do."""


@dataclass(frozen=True)
class EvalPrompt:
    """One thing to draw.

    Attributes:
        id: unique in its set; names the prompt in tables.
        type: such as ``"Counting"``; accuracy is told for each type by itself.
        prompt: the simple, narrative prompt.
        complex: the same wish as keywords, for arms that draw from these; ``""`` where there is none.
        truth: what a judge compares a picture with, any JSON value; ``None`` where there is none.
    """

    id: str
    type: str
    prompt: str
    complex: str = ""
    truth: Any = None

    def __post_init__(self):
        for name in ("id", "type", "prompt"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise PromptSetError(f"{name} should be a text that is not empty, found {value!r}")
        if not isinstance(self.complex, str):
            raise PromptSetError(f"complex should be a text, found {self.complex!r}")


def load_prompts(path: str | os.PathLike, types: Sequence[str] = ()) -> tuple[EvalPrompt, ...]:
    """Read a set.

    Args:
        path: a ``.toml`` or ``.jsonl`` file, or the name of a set that comes along: ``"paper"``,
            ``"narrative"``.
        types: only prompts of these types, in the file's order; all if empty.

    Raises:
        PromptSetError: the file is no prompt set, an entry is wrong, an id occurs twice, or a type asked for
            is not there.
        OSError: the file cannot be read.
    """
    path = shipped_prompts(path) or Path(path)
    entries = _toml_entries(path) if path.suffix.lower() == ".toml" else _json_entries(path)
    prompts = [_prompt(path, place, entry) for place, entry in entries]
    if not prompts:
        raise PromptSetError(f"{path}: no prompts in it. Expected one JSON object a line, or [[prompts]]")
    try:
        check_ids(prompts)
    except PromptSetError as error:
        raise PromptSetError(f"{path}: {error}") from None
    known = types_of(prompts)
    if unknown := [name for name in types if name not in known]:
        raise PromptSetError(f"{path}: no prompts of type {unknown[0]!r}; its types are {', '.join(known)}")
    return tuple(prompt for prompt in prompts if not types or prompt.type in types)


def write_prompts(path: str | os.PathLike, prompts: Iterable[EvalPrompt]) -> None:
    """Write a set as JSON lines, atomic. PromptSetError if an id occurs twice or a truth is no JSON value."""
    prompts = list(prompts)
    check_ids(prompts)
    lines = []
    for prompt in prompts:
        entry = {"id": prompt.id, "type": prompt.type, "prompt": prompt.prompt}
        entry |= {"complex": prompt.complex} if prompt.complex else {}
        entry |= {"truth": prompt.truth} if prompt.truth is not None else {}
        try:
            lines.append(json.dumps(entry, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise PromptSetError(
                f"{path}: prompt {prompt.id!r}: truth is no JSON value ({error}); nothing was written"
            ) from error
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8"))


def types_of(prompts: Iterable[EvalPrompt]) -> tuple[str, ...]:
    """The types in the order in which they first occur."""
    return tuple(dict.fromkeys(prompt.type for prompt in prompts))


def check_ids(prompts: Sequence[EvalPrompt]) -> None:
    """PromptSetError if two prompts share an id."""
    seen = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise PromptSetError(f"the id {prompt.id!r} occurs twice; give every prompt an id of its own")
        seen.add(prompt.id)


def _prompt(path: Path, place: str, entry: Any) -> EvalPrompt:
    where = f"{path}: {place}"
    if not isinstance(entry, dict):
        raise PromptSetError(f"{where}: expected an object with {', '.join(KEYS)}, found {entry!r}")
    if isinstance(entry.get("id"), str):
        where += f" (id {entry['id']!r})"
    if unknown := [key for key in entry if key not in KEYS]:
        raise PromptSetError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    if missing := [key for key in ("id", "type", "prompt") if key not in entry]:
        raise PromptSetError(f"{where}: {missing[0]!r} is missing; every prompt has id, type and prompt")
    try:
        return EvalPrompt(**entry)
    except PromptSetError as error:
        raise PromptSetError(f"{where}: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; expected a prompt set (.toml or .jsonl) or one of {', '.join(SHIPPED)}"
        ) from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path}: expected a prompt set (.toml or .jsonl), found a folder") from None
    except UnicodeDecodeError as error:
        raise PromptSetError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8") from error


def _json_entries(path: Path) -> list[tuple[str, Any]]:
    entries = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entries.append((f"line {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise PromptSetError(
                f"{path}: line {number}: not JSON ({error}). Expected one object a line; a TOML set needs a "
                "name that ends in .toml"
            ) from error
    return entries


def _toml_entries(path: Path) -> list[tuple[str, Any]]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        raise PromptSetError(f"{path}: reading TOML needs Python 3.11; write the set as .jsonl") from None
    try:
        document = tomllib.loads(_read(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PromptSetError(f"{path}: not readable as TOML: {error}") from error
    tables = document.get("prompts")
    if not isinstance(tables, list) or set(document) != {"prompts"}:
        raise PromptSetError(
            f"{path}: expected [[prompts]] tables and nothing else, found {sorted(document)}"
        )
    return [(f"entry {number}", table) for number, table in enumerate(tables, start=1)]
