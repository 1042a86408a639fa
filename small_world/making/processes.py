"""Several processes on one CPU: small layers do not fill its cores from one process."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as distributed
from torch.multiprocessing.spawn import ProcessRaisedException

UNHEARD = "unheard"  # a file that says why a process cannot reach the others
logger = logging.getLogger(__name__)


def in_processes(count: int, work: Callable, *arguments) -> bool:
    """Run ``work(*arguments)`` in ``count`` processes of one thread each that can talk to one another.

    ``work`` must be importable.

    Returns:
        False, with nothing done, where processes cannot talk to one another.

    Raises:
        ProcessRaisedException: with the trace of what ``work`` raised.
    """
    if not (distributed.is_available() and distributed.is_gloo_available()):
        logger.warning("torch has no gloo here: one process does all the work, which takes longer")
        return False
    with tempfile.TemporaryDirectory() as folder:
        given = count, Path(folder), work, arguments
        try:
            torch.multiprocessing.spawn(_process, given, nprocs=count)
        except ProcessRaisedException:
            unheard = Path(folder) / UNHEARD
            if not unheard.exists():
                raise
            words = "processes cannot talk to one another (%s): one does all the work, which takes longer"
            logger.warning(words, unheard.read_text("utf-8"))
            return False
    return True


def workers(batch_sizes: list[int]) -> int:
    """How many processes to use: at most one for each core, and so that each batch has equal shares."""
    cores = os.cpu_count() or 1
    return max(n for n in range(1, cores + 1) if all(size % n == 0 for size in batch_sizes))


def _process(rank: int, count: int, folder: Path, work: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        # The processes are on this machine; without a name, gloo asks the network for one and may not get it.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = (folder / "meeting").as_uri()
    try:
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    except Exception as error:
        (folder / UNHEARD).write_text(str(error), "utf-8")
        raise
    try:
        work(*arguments)
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def mine(values: torch.Tensor) -> torch.Tensor:
    """This process' share of a batch: every n-th row."""
    if not distributed.is_initialized():
        return values
    return values[distributed.get_rank() :: distributed.get_world_size()]


@torch.no_grad()
def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """The mean over all processes, so that shares of equal size count as one batch."""
    if not distributed.is_initialized():
        return
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad.copy_(part.view_as(parameter))
