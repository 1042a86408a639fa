"""``python -m train <command>``."""

from __future__ import annotations

import argparse
import sys

from . import cache, check, convert, fit, info, vectors

COMMANDS = {
    "check": check,
    "vectors": vectors,
    "cache": cache,
    "fit": fit,
    "convert": convert,
    "info": info,
}


def main(arguments: list[str] | None = None) -> int:
    words = "Train SUR adapters; tools for adapter files."
    parser = argparse.ArgumentParser(prog="python -m train", description=words)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options) or 0
    except (
        ValueError,
        OSError,
    ) as error:  # bad input, told in words; anything else is a bug and shows its trace
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
