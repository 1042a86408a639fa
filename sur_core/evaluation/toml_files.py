"""TOML files of evaluations, read with errors in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_toml_file(path: str | Path, what: str) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        what: what is expected in it, for errors.

    Raises:
        ValueError: not readable, or Python has no reader (before 3.11).
        OSError: there is no such file.
    """
    path = Path(path)
    try:
        import tomllib
    except ImportError:  # Python 3.10
        raise ValueError(f"{path}: reading TOML needs Python 3.11 or newer") from None
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected {what}") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path}: expected a file with {what}, found a folder") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as TOML: {error}") from error
