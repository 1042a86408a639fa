"""Runs all tests, in two halves beside each other: those that drive a ComfyUI or a browser mostly wait.

    python -m tests [options of pytest]

What the second half says is printed when the first has ended. The exit code is 0 if both are well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

DRIVING = ("tests/comfyui", "tests/browser")


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
        driving = start([*DRIVING, *options], said)
        others = start(["tests", *(f"--ignore={folder}" for folder in DRIVING), *options])
        codes = [half.wait() for half in (others, driving)]
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(said.read())
    return max(map(abs, codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
