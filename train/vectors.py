"""Compute what an LLM makes of every simple prompt of a data set: the vectors that training distils from.

The prompts go through the model in batches, no deeper than the layer asked for. Stop it at any time; the same
command goes on. Started with 'accelerate launch', every process takes its share. With --import-authors the
vectors of the authors' .pt are taken instead of computed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sur_core.knowledge import KnowledgeError, KnowledgeVectors, import_authors_vectors
from sur_core.processes import ALONE, Processes
from sur_core.surd import open_surd

from .common import all_processes, quiet_libraries


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="data set whose simple prompts get vectors: folder, table or hub name")
    parser.add_argument("target", type=Path, help=".safetensors file to write")
    parser.add_argument("--llm", required=True, help="folder or Hugging Face name of a causal language model")
    parser.add_argument(
        "--layer",
        type=int,
        help="0: its embeddings, 1: its first block, -1: the last (default); the authors count one less",
    )
    parser.add_argument("--split", default="train", help="of parquet, hub and split folders (default: train)")
    parser.add_argument("--image-column", default="", help="default: file_name, or image")
    parser.add_argument("--simple-column", default="", help="default: text, or simple")
    parser.add_argument("--complex-column", default="", help="default: prompt, or complex")
    parser.add_argument(
        "--quarantine", type=Path, help="list of rows to leave out (default: beside the data)"
    )
    parser.add_argument("--special-tokens", choices=("skip", "include"), default="skip")
    parser.add_argument("--max-tokens", type=int, default=512, help="longer prompts are cut (512)")
    parser.add_argument("--dtype", choices=("auto", "fp32", "fp16", "bf16"), default="auto")
    parser.add_argument("--quantize", choices=("8bit", "4bit"), default="", help="needs bitsandbytes")
    parser.add_argument("--device", default="auto", help="such as cuda:1 or cpu")
    parser.add_argument("--store", choices=("fp16", "fp32"), default="fp16", help="numbers in the file")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens in a batch (4096)")
    parser.add_argument("--max-batch", type=int, default=256, help="prompts in a batch (256)")
    parser.add_argument("--revision", default="", help="branch, tag or commit on the hub")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    parser.add_argument("--restart", action="store_true", help="throw away what is at the target")
    parser.add_argument("--import-authors", type=Path, metavar="FILE.pt", help="take the vectors from here")


def run(options: argparse.Namespace) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    columns = (options.image_column, options.simple_column, options.complex_column)
    data = open_surd(options.data, options.split, options.quarantine, *columns)
    if data.quarantined:
        print(f"{len(data.quarantined)} rows cannot be used and get no vector; `check` lists them")
    prompts = [sample.simple for sample in data]
    (_import if options.import_authors else _build)(options, prompts)


def _build(options: argparse.Namespace, prompts: list[str]) -> None:
    quiet_libraries("transformers")
    from sur_core.knowledge_build import compute_share, run_plan
    from sur_core.knowledge_plan import plan_knowledge

    processes, device = _processes(options.device)
    plan = plan_knowledge(
        prompts,
        options.target,
        options.llm,
        -1 if options.layer is None else options.layer,
        dtype=options.dtype,
        device=device,
        quantize=options.quantize,
        special_tokens=options.special_tokens,
        store_dtype=options.store,
        max_tokens=options.max_tokens,
        revision=options.revision,
        local_files_only=options.local_files_only,
    )
    limits = (options.batch_tokens, options.max_batch)
    if processes.is_main:
        _tell(plan, prompts)
    with _terminated_as_interrupted(), _Bar(processes.is_main) as bar:
        if processes.count > 1:
            _throw_away(plan, options.restart, processes)
            compute_share(plan, processes.rank, processes.count, processes.barrier, *limits, bar)
            if not processes.is_main:
                return
        restart = options.restart and processes.count == 1
        vectors = run_plan(plan, *limits, restart, bar if processes.count == 1 else None)
    print(f"computed {bar.computed}" + (" by this process" if processes.count > 1 else ""))
    _summarise(vectors, prompts)


def _processes(device: str) -> tuple[Processes, str]:
    """Which of several processes this is, and its device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return ALONE, device
    processes, own = all_processes(device)
    return processes, str(own)


def _throw_away(plan, restart: bool, processes: Processes) -> None:
    if restart and processes.is_main:
        for path in plan.found_files():
            path.unlink()
    processes.barrier()


def _tell(plan, prompts: list[str]) -> None:
    print(f"{len(prompts)} prompts, {len(plan.prompts)} of them different")
    print(
        f"{plan.info.name}: layer {plan.layer} of {plan.info.layers}, {plan.info.width} wide, "
        f"{plan.quantize or plan.dtype} on {plan.device}"
    )
    print(f"{plan.path}: {plan.vector_bytes / 1e6:.1f} MB of vectors in {plan.store_dtype}", flush=True)


def _import(options: argparse.Namespace, prompts: list[str]) -> None:
    if options.layer is not None and options.layer < 0:
        raise KnowledgeError("the authors' file does not say how many layers there are: count --layer from 0")
    if options.restart:
        options.target.unlink(missing_ok=True)
    vectors = import_authors_vectors(
        options.import_authors, options.target, options.llm, options.layer, store_dtype=options.store
    )
    _summarise(vectors, prompts)


def _summarise(vectors: KnowledgeVectors, prompts: list[str]) -> None:
    source = vectors.source
    layers = f" of {source.layers}" if source.layers else ""
    size = os.path.getsize(vectors.path) / 1e6
    print(
        f"{vectors.path}: {len(vectors)} vectors of {source.llm}, layer {source.layer}{layers}, "
        f"{vectors.width} wide, {size:.1f} MB"
    )
    missing = [prompt for prompt, row in zip(prompts, vectors.find(prompts), strict=True) if row < 0]
    if missing:
        print(f"{len(missing)} prompts of the data set have no vector, such as {missing[0]!r}")


class _Bar:
    """A progress bar of the vectors, with prompts/s and time left.

    Attributes:
        computed: vectors made by this run.
    """

    def __init__(self, shown: bool = True) -> None:
        self.computed, self._shown, self._bar = 0, shown, None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            # Copied ones count as there: they would spoil the rate.
            self._bar = tqdm(
                initial=done, total=total, unit=" prompts", desc="vectors", disable=not self._shown
            )
        else:
            self.computed += done - self._done
            self._bar.update(done - self._done)
        self._done = done


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # signals can be handled in the main thread only
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
