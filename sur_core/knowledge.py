"""Knowledge vectors (paper Sec. 3.2): for every prompt of a data set, what one layer of an LLM makes of it.

A file of them is a row file (see :mod:`sur_core.row_store`): an ordinary ``.safetensors`` with a tensor
``vectors`` [prompts, width], found by prompt. :mod:`sur_core.knowledge_build` makes one with an LLM;
``import_authors_vectors`` makes one of the authors' ``{prompt: tensor}`` files, which count layers from 0
(their ``39.pt`` is layer 40 here).
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from .language_model_files import KnowledgeError
from .row_store import Field, KeyIndex, RowFile, RowFileError, row_key

__all__ = [
    "KnowledgeError",
    "KnowledgeSource",
    "KnowledgeVectors",
    "build_knowledge",
    "import_authors_vectors",
    "open_knowledge",
]

STORE_DTYPES = {"fp16": "F16", "fp32": "F32"}
FORMAT_VERSION = "1"
_PREFIX = "sur.vectors."
_CHUNK = 4096


@dataclass(frozen=True)
class KnowledgeSource:
    """Where vectors come from.

    Attributes:
        llm: the model's name.
        layer: 0 is the embeddings, k the output of block k, ``layers`` the last after the final norm.
        layers: how many blocks the model has; 0 if the file does not say (imported ones).
        width: features.
        special_tokens: ``"skip"``: the mean leaves out the tokens that the tokenizer puts around every text;
            ``"include"``: it does not; ``"unknown"``: imported.
    """

    llm: str
    layer: int
    layers: int
    width: int
    special_tokens: str


class KnowledgeVectors:
    """A finished file of vectors. One row is read from the disk at a time; in memory are 24 bytes a prompt.

    Attributes:
        path, source, width: the file, where its vectors come from and how many features they have.
        max_tokens: prompts were cut to so many tokens; 0 if unknown.
    """

    def __init__(self, path: Path, file: RowFile):
        self.path = path
        self.source = read_source(file)
        self.width = self.source.width
        self.max_tokens = int(file.metadata.get(_PREFIX + "max_tokens", "0"))
        self._file = file
        keys = file.read_keys()
        self._index = KeyIndex(keys)
        self._fingerprint = _fingerprint(file.metadata, keys)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return self.prompts()

    def __contains__(self, prompt: str) -> bool:
        return bool(self.find([prompt])[0] >= 0)

    def __getitem__(self, prompt: str) -> np.ndarray:
        """The prompt's vector, float32 [width]. Raises KnowledgeError if it has none."""
        row = int(self.find([prompt])[0])
        if row < 0:
            raise KnowledgeError(f"{self.path}: no vector for the prompt {prompt!r}. Add it: {_AGAIN}")
        return self.read(row)

    def find(self, prompts: Iterable[str]) -> np.ndarray:
        """Row of each prompt, int64 [N]; -1 where it has no vector. The prompts are not kept."""
        prompts, rows = iter(prompts), [np.zeros(0, np.int64)]
        while chunk := [row_key(prompt) for prompt in islice(prompts, _CHUNK)]:
            rows.append(self._index.find(chunk))
        return np.concatenate(rows)

    def read(self, row: int) -> np.ndarray:
        """The vector of a row that :meth:`find` gave, float32 [width].

        Raises:
            KnowledgeError: it is not finite, so the file was damaged.
        """
        vector = self._file.read(row)["vectors"].astype(np.float32)
        if not np.isfinite(vector).all():
            prompt = read_prompts(self._file)[row]
            raise KnowledgeError(
                f"{self.path}: the vector of the prompt {prompt!r} holds NaN or infinite numbers; the file "
                "is damaged. Delete it and build it again"
            )
        return vector

    def prompts(self) -> Iterator[str]:
        """Every prompt, in the order of the rows."""
        return iter(read_prompts(self._file))

    def count_cut(self) -> int:
        """How many prompts were longer than ``max_tokens`` and cut."""
        return count_cut(self._file)

    @property
    def fingerprint(self) -> str:
        """Changes when the prompts or the settings change; reads no vector."""
        return self._fingerprint

    def close(self) -> None:
        self._file.close()


def open_knowledge(path: str | os.PathLike) -> KnowledgeVectors:
    """Open a finished file of vectors.

    Raises:
        OSError: it cannot be read.
        KnowledgeError: it is damaged, unfinished, or no file of knowledge vectors.
    """
    path = Path(path)
    file = open_rows(path)
    if file.count < file.capacity:
        file.close()
        raise KnowledgeError(
            f"{path}: unfinished, {file.count} of {file.capacity} prompts have a vector. Finish it: {_AGAIN}"
        )
    return KnowledgeVectors(path, file)


def build_knowledge(
    prompts: Iterable[str], path: str | os.PathLike, model: str | Path, layer: int = -1, **options
):
    """See :func:`sur_core.knowledge_build.build_knowledge`."""
    from .knowledge_build import build_knowledge as build

    return build(prompts, path, model, layer, **options)


def import_authors_vectors(
    source: str | os.PathLike,
    path: str | os.PathLike,
    llm: str,
    layer: int | None = None,
    *,
    layers: int = 0,
    store_dtype: str = "fp16",
) -> KnowledgeVectors:
    """Write the authors' ``{prompt: tensor [D] or [1, D]}`` file as one of ours. Nothing in it is ever run.

    Args:
        source: file written by ``torch.save``.
        path: ``.safetensors`` to write; it must not be there yet.
        llm: the model that made the vectors, such as ``"llama-13b"``.
        layer: counted as here; None reads it off a name such as ``39.pt``, which counts from 0.
        layers: how many the model has, if known.

    Raises:
        OSError: a file cannot be read or written.
        KnowledgeError: the source holds anything else, or numbers that are not finite.
    """
    source, path = Path(source), check_target(Path(path))
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file; expected the authors' .pt of vectors")
    if path.exists():
        raise FileExistsError(f"{path} is already there; choose another name or delete it")
    if layer is None:
        if not source.stem.isdecimal():
            raise KnowledgeError(
                f"{source}: its name does not say which layer it is of; give it as layer (--layer)"
            )
        layer = int(source.stem) + 1
    vectors = _read_authors(source)
    width = check_vectors(vectors, source)
    described = KnowledgeSource(llm, layer, layers, width, "unknown")
    partial = path.with_name(f"{path.stem}.importing.safetensors")
    metadata = to_metadata(described, dtype=store_dtype)
    try:
        with create_rows(partial, list(vectors), width, store_dtype, metadata) as file:
            for prompt, vector in vectors.items():
                numbers = vector.detach().float().reshape(width).numpy()
                append_vector(file, prompt, numbers, 0, f"{source}: the prompt {prompt!r}")
            file.flush()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return open_knowledge(path)


# --- the file, for this module and knowledge_build ----------------------------------------------------------

_AGAIN = "run the command `python -m train vectors` on the data set again, it computes only what is missing"


def open_rows(path: Path, writable: bool = False) -> RowFile:
    """A file of vectors, finished or not. Errors as :func:`open_knowledge`."""
    if path.is_dir():
        raise KnowledgeError(f"{path}: expected a file of knowledge vectors, found a folder")
    try:
        with open(path, "rb") as head:
            start = head.read(2)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file of knowledge vectors. Make it with `python -m train vectors`"
        ) from error
    if path.suffix.lower() in (".pt", ".pth") or start in (b"PK", b"\x80\x02"):
        raise KnowledgeError(
            f"{path}: looks like vectors in the authors' format (.pt). Turn them into a .safetensors first: "
            f"python -m train vectors <data set> <out.safetensors> --import-authors {path}"
        )
    try:
        file = RowFile.open(path, writable)
    except RowFileError as error:
        raise KnowledgeError(str(error)) from error
    try:
        _check_form(file)
    except KnowledgeError:
        file.close()
        raise
    return file


def _check_form(file: RowFile) -> None:
    version = file.metadata.get(_PREFIX + "format_version")
    if version is None:
        raise KnowledgeError(f"{file.path}: rows with keys, but not knowledge vectors")
    if version != FORMAT_VERSION:
        raise KnowledgeError(
            f"{file.path}: format {version} of knowledge vectors, this version reads {FORMAT_VERSION}; update"
        )
    source = read_source(file)
    forms = [row_fields(source.width, name) for name in STORE_DTYPES]
    if file.fields not in forms:
        raise KnowledgeError(
            f"{file.path}: its tensors do not fit its description ({source.width} features); damaged. Delete "
            "it and build it again"
        )


def row_fields(width: int, store_dtype: str) -> dict[str, Field]:
    """A row: the vector, and how many tokens its prompt has (before any cut; 0 if unknown)."""
    return {"vectors": Field(STORE_DTYPES[store_dtype], (width,)), "tokens": Field("I32", ())}


def create_rows(
    path: Path, prompts: list[str], width: int, store_dtype: str, metadata: dict[str, str]
) -> RowFile:
    """An empty file with room for the vectors of ``prompts``, to be written in this order."""
    texts = [prompt.encode("utf8", "surrogatepass") for prompt in prompts]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int32)
    extra = {"_prompts": np.frombuffer(b"".join(texts), np.uint8), "_prompt_ends": ends}
    return RowFile.create(path, len(prompts), row_fields(width, store_dtype), metadata, extra)


def append_vector(file: RowFile, prompt: str, vector: np.ndarray, tokens: int, what: str) -> None:
    """Write the next row. ``vector``: float32 [width].

    Raises:
        KnowledgeError: beginning with ``what``, if the numbers are not finite or too large for the file.
    """
    if not np.isfinite(vector).all():
        raise KnowledgeError(f"{what} gives NaN or infinite numbers; compute in bf16 or fp32 instead of fp16")
    with np.errstate(over="ignore"):
        stored = vector.astype(file.fields["vectors"].numpy)
    if not np.isfinite(stored).all():
        raise KnowledgeError(
            f"{what} gives numbers up to {np.abs(vector).max():.3g}, fp16 holds 65504 at most; store fp32"
        )
    file.append(row_key(prompt), {"vectors": stored, "tokens": np.asarray(tokens, np.int32)})


def read_prompts(file: RowFile) -> list[str]:
    """The prompts a file has room for, in the order of its rows."""
    try:
        blob = file.read_extra("_prompts").tobytes()
        ends = [0, *file.read_extra("_prompt_ends").tolist()]
        return [
            blob[start:end].decode("utf8", "surrogatepass")
            for start, end in zip(ends, ends[1:], strict=False)
        ]
    except (UnicodeDecodeError, KeyError) as error:
        raise KnowledgeError(f"{file.path}: its prompts are damaged. Delete it and build it again") from error


def to_metadata(source: KnowledgeSource, **settings: object) -> dict[str, str]:
    values = {**vars(source), **settings, "format_version": FORMAT_VERSION}
    return {_PREFIX + name: str(value) for name, value in values.items()}


def read_source(file: RowFile) -> KnowledgeSource:
    try:
        values = {name: file.metadata[_PREFIX + name] for name in KnowledgeSource.__dataclass_fields__}
        numbers = {name: int(values[name]) for name in ("layer", "layers", "width")}
        return KnowledgeSource(**{**values, **numbers})
    except (KeyError, ValueError) as error:
        raise KnowledgeError(f"{file.path}: its description is damaged ({error}). Build it again") from error


def count_cut(file: RowFile) -> int:
    """How many prompts of the written rows were longer than the limit they were cut to."""
    limit = int(file.metadata.get(_PREFIX + "max_tokens", "0"))
    if not limit:
        return 0
    with safe_open(file.path, framework="numpy") as whole:
        return int((whole.get_tensor("tokens")[: file.count] > limit).sum())


def check_target(path: Path) -> Path:
    if path.suffix.lower() != ".safetensors":
        raise KnowledgeError(f"{path}: vectors are written as .safetensors; give a name with that ending")
    return path


def _fingerprint(metadata: dict[str, str], keys: np.ndarray) -> str:
    digest = blake2b(digest_size=16)
    for name in sorted(metadata):
        digest.update(row_key(name, metadata[name]))
    digest.update(keys.tobytes())
    return digest.hexdigest()


# --- the authors' files -------------------------------------------------------------------------------------


def _read_authors(path: Path) -> dict[str, torch.Tensor]:
    """The dictionary of a ``torch.save`` file, mapped rather than read where its format allows."""
    try:
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise KnowledgeError(
            f"{path}: refused: it is damaged or asks to run Python code, which vectors never need"
        ) from error
    except Exception as error:  # a damaged or foreign file can fail in any way inside the reader
        raise KnowledgeError(f"{path}: not a whole torch file; copy or download it again") from error
    if not isinstance(content, dict) or not content:
        raise KnowledgeError(f"{path}: expected {{prompt: tensor}}, found {type(content).__name__}")
    return content


def check_vectors(vectors: dict, path: Path) -> int:
    """The width that all vectors of the authors' dictionary have, [D] or [1, D]."""
    width = None
    for prompt, vector in vectors.items():
        found = repr(vector)[:60]
        with suppress(AttributeError, RuntimeError):  # a nested tensor has no shape
            plain = vector.layout == torch.strided and vector.device.type == "cpu" and not vector.is_nested
            if isinstance(prompt, str) and plain and vector.is_floating_point():
                shape, found = tuple(vector.shape), f"a tensor {tuple(vector.shape)}"
                if len(shape) in (1, 2) and vector.numel() == shape[-1] > 0 and width in (None, shape[-1]):
                    width = shape[-1]
                    continue
        wanted = f"{width} numbers, as the ones before it" if width else "a tensor [D] or [1, D]"
        raise KnowledgeError(f"{path}: under {prompt!r} expected {wanted}, found {found}")
    return width
