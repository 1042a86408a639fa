"""Runs a training command again and again, killing it each time, and then lets it end. Run as a program.

    python -m tests.kill_harness <kills> <seed> <folder> -- <arguments of python -m train>

Every run is the real command in a process of its own, forked from this one, which has imported everything and
computed nothing. Half of the kills come at a random moment, half while a file is being written: writing is
slowed down there and announced through a pipe. The last line printed is one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time

import accelerate  # noqa: F401
import diffusers  # noqa: F401
import transformers  # noqa: F401
from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: F401

import sur_core.training
import sur_core.training_plan  # noqa: F401
import train.__main__


def announce_writes(pipe: int) -> None:
    """Make every flush and rename slow enough to be hit, and say so before each."""

    def slowed(act):
        def wrapped(*arguments):
            os.write(pipe, b".")
            time.sleep(0.02)
            return act(*arguments)

        return wrapped

    os.fsync, os.replace = slowed(os.fsync), slowed(os.replace)


def start(arguments: list[str], log: int) -> tuple[int, int]:
    """(process id, pipe of its announcements) of one run."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.dup2(log, 1)
    os.dup2(log, 2)
    announce_writes(writing)
    code = 70
    try:
        code = train.__main__.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def kill_after(child: int, pipe: int, seconds: float, writes: int | None) -> bool:
    """Kill after ``seconds``, or at the announcement number ``writes``. False if it ended before that."""
    end, seen = time.monotonic() + (600 if writes is not None else seconds), 0
    while time.monotonic() < end:
        ready, _, _ = select.select([pipe], [], [], max(0.0, min(0.01, end - time.monotonic())))
        if ready:
            announced = os.read(pipe, 1)
            if not announced:  # the process has ended
                return False
            seen += 1
            if writes is not None and seen >= writes:
                time.sleep(0.01)
                break
    os.kill(child, signal.SIGKILL)
    return True


def main() -> None:
    kills, seed, folder, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[5:]
    draw, done = random.Random(seed), {"random": 0, "writing": 0, "ended_before": 0}
    train.__main__.parse(arguments)  # reads the commands' modules, which a run would else do anew
    log = os.open(os.path.join(folder, "killed.log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    # Of what is done sooner, the kills must come sooner.
    longest, writes = float(os.environ.get("KILL_SECONDS", 3.0)), int(os.environ.get("KILL_WRITES", 24))
    while done["random"] + done["writing"] < kills and done["ended_before"] < 3:
        writing = (done["random"] + done["writing"]) % 2 == 0
        child, pipe = start(arguments, log)
        killed = kill_after(
            child, pipe, draw.uniform(0.05, longest), draw.randrange(1, writes) if writing else None
        )
        os.waitpid(child, 0)
        os.close(pipe)
        done["ended_before" if not killed else "writing" if writing else "random"] += 1
    child, pipe = start(arguments, log)
    while os.read(pipe, 4096):
        pass
    done["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(done))


if __name__ == "__main__":
    main()
