"""``python -m train <command>``."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
from types import ModuleType

os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries would bury the one sentence that counts

COMMANDS = (
    "surd",
    "check",
    "vectors",
    "cache",
    "fit",
    "evaluate",
    "evaluate sheet",
    "evaluate preference",
    "evaluate report",
    "demo",
    "convert",
    "info",
    "world",
)
_RESUMED = ("surd", "vectors", "cache", "fit", "evaluate", "demo", "world")
_MERGING = ("evaluate sheet", "evaluate preference")
_STEPS = ("make", "merge", "-h", "--help")


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    command = ""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        command = options.command
        return _module(command).run(options) or 0
    except (ValueError, OSError) as error:
        # Bad input, told in words; anything else is a bug and shows its trace.
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it was" if command in _RESUMED else ""
        print(f"stopped{goes_on}")
        return 130


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; ends the program with a sentence, as argparse does, where they are wrong."""
    words = "Train SUR and LLMDiff adapters; tools for adapter files."
    parser = argparse.ArgumentParser(prog="python -m train", description=words)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in COMMANDS:
        module = _module(name)
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    options, unknown = parser.parse_known_args([_with_hyphens(argument) for argument in _joined(arguments)])
    if unknown:
        command = commands.choices[options.command]
        flags = [flag for action in command._actions for flag in action.option_strings]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        command.error(f"unknown argument {unknown[0]}{hint}")
    return options


def _module(command: str) -> ModuleType:
    """The command's file, read only now: that takes seconds, in which Ctrl-C should be no trace either."""
    return importlib.import_module(f"{__package__}.{command.replace(' ', '_')}")


def _joined(arguments: list[str]) -> list[str]:
    """With a command of two words as one argument. People's answers without a step are to be merged."""
    words, rest = " ".join(arguments[:2]), arguments[2:]
    if words not in COMMANDS or len(arguments) < 2:
        return arguments
    if words in _MERGING and any(word.endswith(".json") for word in rest) and rest[0] not in _STEPS:
        rest = ["merge", *rest]
    return [words, *rest]


def _with_hyphens(argument: str) -> str:
    """``--learning_rate=1`` as ``--learning-rate=1``: diffusers' scripts write flags with underscores."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name[:2] == "--" else argument


if __name__ == "__main__":
    sys.exit(main())
