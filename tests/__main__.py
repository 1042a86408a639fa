"""Runs all tests, in two halves beside each other that take about as long: one for each of two cores.

    python -m tests [options of pytest]

What the second half says is printed when the first has ended. The exit code is 0 if both are well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# What drives a ComfyUI or a browser, and the tests of training, without which the others take twice as long.
SECOND = ("tests/comfyui", "tests/browser", *map(str, sorted(Path("tests").glob("test_training*.py"))))


def start(arguments: list[str], output=None) -> subprocess.Popen:
    cores = os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // 2)), **os.environ}
    # Caches of two processes would overwrite each other.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output and subprocess.STDOUT)


def main(options: list[str]) -> int:
    # Started in the background, a shell has it ignored, also by the programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryFile() as said:
        second = start([*SECOND, *options], said)
        first = start(["tests", *(f"--ignore={path}" for path in SECOND), *options])
        codes = [half.wait() for half in (first, second)]
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(said.read())
    return max(map(abs, codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
