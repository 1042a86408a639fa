"""A command as it is typed into the system's shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

_SPECIAL = frozenset(" \t&()[]{}^=;!'+,`~")
"""What cmd.exe lists as needing quotation marks."""


def as_typed(command: Sequence[str]) -> str:
    """Quoted where the shell needs it; cmd.exe knows no single quotes, and no file there has a double one."""
    if not on_windows():
        return shlex.join(command)
    return " ".join(f'"{word}"' if not word or _SPECIAL & set(word) else word for word in command)


def on_windows() -> bool:
    return os.name == "nt"
