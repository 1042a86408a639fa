"""Making a file of knowledge vectors with a language model: batched, and safe to stop at any moment.

Vectors are written as they are computed, into ``<name>.<hash>.partial.safetensors`` beside the file to be;
the hash stands for the set of prompts. The same call goes on where it stopped. The finished file takes its
name in one step. Vectors of the same settings that an older file holds are copied rather than computed.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .knowledge import (
    KnowledgeVectors,
    append_vector,
    count_cut,
    create_rows,
    open_knowledge,
    open_rows,
    read_prompts,
)
from .knowledge_plan import KnowledgePlan, check_settings, plan_knowledge
from .language_model import DTYPES, LanguageModel, PromptTokenizer, Tokens
from .language_model_files import KnowledgeError
from .row_store import KeyIndex, RowFile, row_key

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
"""At most so much work is lost when the process is killed."""

_CHUNK = 1024


def build_knowledge(
    prompts: Iterable[str],
    path: str | os.PathLike,
    model: str | Path,
    layer: int = -1,
    *,
    batch_tokens: int = 4096,
    max_batch: int = 256,
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **settings,
) -> KnowledgeVectors:
    """Make the vector of every prompt, or of those that have none yet.

    Args:
        prompts: in any order; of duplicates one is computed.
        path: ``.safetensors`` to write. A finished file that has them all is left alone.
        model: folder or hub name of a transformers causal language model.
        layer: 0 the embeddings, k the output of block k, -1 the last (after the final norm), as transformers'
            ``hidden_states``.
        batch_tokens: tokens in a batch, with padding. max_batch: prompts in a batch.
        dtype: ``"fp32"``, ``"fp16"``, ``"bf16"``; ``"auto"`` is bf16 or fp16 on a GPU, fp32 on the CPU.
        device: ``"auto"`` or torch's name of one.
        quantize: ``"8bit"`` or ``"4bit"`` weights, if bitsandbytes is installed.
        special_tokens: ``"skip"`` shows the model the tokens its tokenizer puts around a text and leaves them
            out of the mean: a decoder's first token collects attention and has features of a size of its own,
            the same for every prompt. ``"include"`` averages over all tokens, as the paper's words say.
        store_dtype: ``"fp16"`` or ``"fp32"``, in the file.
        max_tokens: longer prompts are cut, which is logged.
        revision, local_files_only: of a hub model.
        restart: throw away what is at ``path``, finished or not.
        progress: called as (vectors there, vectors in all) at the start and after every batch.

    Raises:
        OSError: a file cannot be read or written; what was computed stays and the same call goes on.
        KnowledgeError: the model, the settings or the numbers are unusable, or the file at ``path`` was made
            with other settings.
    """
    plan = plan_knowledge(prompts, path, model, layer, **settings)
    return run_plan(plan, batch_tokens, max_batch, restart, progress)


def run_plan(
    plan: KnowledgePlan,
    batch_tokens: int = 4096,
    max_batch: int = 256,
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> KnowledgeVectors:
    """The second half of :func:`build_knowledge`."""
    if batch_tokens < 1 or max_batch < 1:
        raise KnowledgeError(
            f"batch_tokens and max_batch must be at least 1, not {batch_tokens}, {max_batch}"
        )
    if restart:
        for path in plan.found_files():
            path.unlink()
    older = _open_older(plan, plan.found_files())
    try:
        if older and older[0].path == plan.path and _holds_all(older[0], plan.prompts):
            log.info("%s is already there and has every prompt", plan.path)
        else:
            _finish_partial(plan, older, _Limits(batch_tokens, max_batch), progress or (lambda *_: None))
    finally:
        for file in older:
            file.close()
    for path in plan.found_files():
        if path != plan.path:
            path.unlink()
    return open_knowledge(plan.path)


def compute_share(
    plan: KnowledgePlan,
    rank: int,
    count: int,
    barrier: Callable[[], object],
    batch_tokens: int = 4096,
    max_batch: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """One of several processes' part of the work; when all have returned, one calls :func:`run_plan`, which
    finds everything computed.

    Args:
        plan: of all prompts; ``device`` is this process's own.
        rank, count: which process of how many.
        barrier: waits for all of them.
    """
    files = plan.found_files()
    missing = _without_vector(plan) if plan.path in files else plan.prompts
    share = replace(plan, prompts=missing[rank::count])
    barrier()  # nobody writes before all have looked
    if share.prompts:
        older = _open_older(share, [path for path in files if path != plan.path])
        try:
            _fill_partial(share, older, _Limits(batch_tokens, max_batch), progress or (lambda *_: None))
        finally:
            for file in older:
                file.close()
    barrier()


def _without_vector(plan: KnowledgePlan) -> list[str]:
    """Prompts that the finished file does not have. Raises KnowledgeError: made with other settings."""
    with open_rows(plan.path) as file:
        check_settings(file, plan)
        rows = KeyIndex(file.read_keys()[: file.count]).find([row_key(prompt) for prompt in plan.prompts])
    return [prompt for prompt, row in zip(plan.prompts, rows, strict=True) if row < 0]


def _open_older(plan: KnowledgePlan, files: list[Path]) -> list[RowFile]:
    """All but the plan's own unfinished one. Raises KnowledgeError: made with other settings."""
    older = [open_rows(path) for path in files if path != plan.partial]
    try:
        for file in older:
            check_settings(file, plan)
    except BaseException:
        for file in older:
            file.close()
        raise
    return older


def _finish_partial(plan: KnowledgePlan, older: list[RowFile], limits: _Limits, progress: Callable) -> None:
    """Fill the unfinished file and give it its name."""
    _fill_partial(plan, older, limits, progress)
    for old in older:  # Windows replaces no open file
        old.close()
    os.replace(plan.partial, plan.path)


def _fill_partial(plan: KnowledgePlan, older: list[RowFile], limits: _Limits, progress: Callable) -> None:
    tokenizer = PromptTokenizer(plan.info, plan.special_tokens, plan.max_tokens)
    if plan.partial.exists():
        file = open_rows(plan.partial, writable=True)
    else:
        sources = [KeyIndex(old.read_keys()[: old.count]) for old in older]
        known = [prompt for old in older[:1] if old.path == plan.path for prompt in read_prompts(old)]
        wanted = list(dict.fromkeys([*known, *plan.prompts]))
        file = create_rows(
            plan.partial,
            _in_order(wanted, sources, tokenizer),
            plan.info.width,
            plan.store_dtype,
            plan.metadata(),
        )
    with file:
        check_settings(file, plan)
        prompts = read_prompts(file)
        _copy(file, prompts, older)
        progress(file.count, file.capacity)
        if not file.full:
            _compute(file, prompts, plan, tokenizer, limits, progress)
        if cut := count_cut(file):
            log.warning(
                "%d of %d prompts are longer than %d tokens and were cut", cut, file.count, plan.max_tokens
            )


def _in_order(prompts: list[str], sources: list[KeyIndex], tokenizer: PromptTokenizer) -> list[str]:
    """Those to be copied first, then the longest to the shortest: like lengths pad each other least, and what
    does not fit into memory fails at once.
    """
    keys = [row_key(prompt) for prompt in prompts]
    known = [False] * len(prompts)
    for source in sources:
        known = [there or row >= 0 for there, row in zip(known, source.find(keys), strict=True)]
    missing = [prompt for prompt, there in zip(prompts, known, strict=True) if not there]
    lengths: list[int] = []
    for start in range(0, len(missing), _CHUNK):
        lengths += (len(tokens.ids) for tokens in tokenizer(missing[start : start + _CHUNK]))
    order = sorted(range(len(missing)), key=lambda place: -lengths[place])
    return [p for p, there in zip(prompts, known, strict=True) if there] + [missing[place] for place in order]


def _copy(file: RowFile, prompts: list[str], older: list[RowFile]) -> None:
    """Copy vectors from older files, until the first prompt that none of them has."""
    indexes = [KeyIndex(old.read_keys()[: old.count]) for old in older]
    for place in range(file.count, file.capacity):
        key = row_key(prompts[place])
        rows = [int(index.find([key])[0]) for index in indexes]
        source = next((index for index, row in enumerate(rows) if row >= 0), None)
        if source is None:
            break
        file.append(key, older[source].read(rows[source]))
    file.flush()


def _compute(
    file: RowFile,
    prompts: list[str],
    plan: KnowledgePlan,
    tokenizer: PromptTokenizer,
    limits: _Limits,
    progress: Callable,
) -> None:
    """Compute every vector that is still missing, in the order of the file."""
    llm = LanguageModel(plan.info, plan.layer, DTYPES[plan.dtype], plan.device, plan.quantize)
    following, waiting, flushed = file.count, deque(), time.monotonic()
    done = following
    while done < file.capacity:
        if len(waiting) < limits.prompts and following < file.capacity:
            chunk = prompts[following : following + _CHUNK]
            waiting.extend(tokenizer(chunk))
            following += len(chunk)
        batch = limits.batch(waiting)
        vectors = _try_encode(llm, batch)
        if vectors is None:
            limits = limits.halved(batch, llm)
            continue
        for tokens, vector in zip(batch, vectors.numpy(), strict=True):
            waiting.popleft()
            what = f"{plan.info.name}: layer {plan.layer} in {plan.dtype} of the prompt {prompts[done]!r}"
            append_vector(file, prompts[done], vector, tokens.whole, what)
            done += 1
        if time.monotonic() - flushed > FLUSH_SECONDS:
            file.flush()
            flushed = time.monotonic()
        progress(done, file.capacity)
    file.flush()


def _try_encode(llm: LanguageModel, batch: list[Tokens]) -> torch.Tensor | None:
    """Vectors, or None when memory ran out. By returning, the failed call's tensors are let go."""
    try:
        return llm.encode(batch)
    except torch.cuda.OutOfMemoryError:
        return None


@dataclass(frozen=True)
class _Limits:
    """How large a batch may be: padded tokens, and prompts."""

    tokens: int
    prompts: int

    def batch(self, waiting: deque[Tokens]) -> list[Tokens]:
        """The next batch; one prompt always fits."""
        batch, longest = [], 0
        for tokens in waiting:
            longest = max(longest, len(tokens.ids))
            if batch and (len(batch) == self.prompts or longest * (len(batch) + 1) > self.tokens):
                break
            batch.append(tokens)
        return batch

    def halved(self, batch: list[Tokens], llm: LanguageModel) -> _Limits:
        """Limits half the size of a batch that did not fit."""
        longest = max(len(tokens.ids) for tokens in batch)
        if len(batch) == 1:
            raise KnowledgeError(
                f"{llm.info.name}: not even one prompt of {longest} tokens fits into the memory of "
                f"{llm.device}. Lower max_tokens, use fp16, bf16, 8-bit or 4-bit weights, a layer nearer to "
                "0, a smaller model, or the CPU"
            )
        if llm.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        log.warning("out of memory with %d prompts of %d tokens; going on with %d", len(batch), longest, half)
        return _Limits(max(longest, half * longest), self.prompts)


def _holds_all(file: RowFile, prompts: list[str]) -> bool:
    if file.count < file.capacity:
        raise KnowledgeError(f"{file.path}: has rows without vectors, so it is damaged; delete it")
    return bool(
        (KeyIndex(file.read_keys()[: file.count]).find([row_key(prompt) for prompt in prompts]) >= 0).all()
    )
