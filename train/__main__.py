"""``python -m train <command>``."""

from __future__ import annotations

import argparse
import sys

from . import convert, info

COMMANDS = {"convert": convert, "info": info}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train", description="Tools for SUR adapter files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    options = parser.parse_args(arguments)
    try:
        COMMANDS[options.command].run(options)
    except (
        ValueError,
        OSError,
    ) as error:  # bad input, told in words; anything else is a bug and shows its trace
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
