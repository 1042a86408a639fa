"""Which transformers model captions or scores: a folder or a hub name, found before its weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..model_files import ModelFileError, check_safetensors, fingerprint, hub_errors, told_in_words
from .manifest import SurdBuildError

_TEXT_FILES = (".json", ".txt", ".jinja", ".model")
_NOT_READ = ["*/*", "*.fp16.*", "consolidated*", "openvino*", "training_args*"]
"""Of a hub repository: conversions for other programs and second copies of the weights."""


@dataclass(frozen=True)
class ModelSource:
    """A model whose files are on this machine.

    Attributes:
        name: for people and data cards: the hub name, or the folder's.
        folder: where its files lie.
        identity: hex hash of the files that decide what it computes, wherever they lie.
        config: its transformers configuration.
    """

    name: str
    folder: Path
    identity: str
    config: object


def find_model(
    model: str, check: Callable[[str, object], None], revision: str = "", local_files_only: bool = False
) -> ModelSource:
    """Find a model, download it if need be, and hash its files (about a second for each GB).

    Args:
        model: a folder as transformers saves it, or a name on the Hugging Face hub.
        check: raises if the model with this (name, config) is of no use; asked before weights are downloaded.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub.

    Raises:
        OSError: there is no such model, or the hub cannot be reached.
        ValueError: transformers is missing, or the files are no transformers model.
    """
    _require_transformers()
    path = Path(model).expanduser()
    if path.is_dir():
        name, folder = path.resolve().name, path
        weights = partial(_weights, folder)
    elif path.exists() or path.is_absolute() or "\\" in model or model[:1] in ("", ".", "~"):
        raise FileNotFoundError(f"{model}: no such folder. Give a transformers model's folder or a hub name")
    else:
        name, fetch = model, partial(_fetch, model, local_files_only=local_files_only)
        folder = fetch(revision, [f"*{ending}" for ending in _TEXT_FILES])
        weights = partial(_fetch_weights, fetch, folder)
    config = _read_config(name, folder)
    check(name, config)
    files = sorted([path for path in folder.iterdir() if path.suffix in _TEXT_FILES] + weights())
    return ModelSource(name, folder, fingerprint([(path.name, path) for path in files]), config)


def load_weights(source: ModelSource, model_class, dtype: torch.dtype, device: torch.device):
    """The model in eval mode on ``device``. Raises ValueError: weights are missing, damaged or too large."""
    for path in sorted(source.folder.glob("*.safetensors")):
        check_safetensors(path)
    try:
        with told_in_words(f"{source.name}: the model cannot be loaded"):
            model, report = model_class.from_pretrained(
                source.folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        model = model.to(device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise SurdBuildError(
            f"{source.name}: does not fit into the memory of {device}. Choose a smaller model, --dtype fp16 "
            "or bf16, or --device cpu"
        ) from error
    if lacking := sorted(map(str, [*report["missing_keys"], *report.get("mismatched_keys", ())])):
        raise SurdBuildError(
            f"{source.name}: {len(lacking)} weights that a {type(model).__name__} needs are missing or of "
            f"another shape, such as {lacking[0]}. Its config.json says {source.config.architectures}; take "
            "a model of the right kind, or download it again"
        )
    return model.eval().requires_grad_(False)


def load_image_processor(source: ModelSource):
    """The model's image processor. Always Pillow's resizing: torchvision's gives other pixels."""
    import transformers

    pillow = hasattr(transformers, "CLIPImageProcessorPil")  # transformers 5 names what 4 calls slow
    with told_in_words(f"{source.name}: its image processor cannot be read"):
        return transformers.AutoImageProcessor.from_pretrained(
            source.folder, local_files_only=True, **({"backend": "pil"} if pillow else {"use_fast": False})
        )


def load_tokenizer(source: ModelSource):
    """The model's tokenizer. Raises ValueError: its files are missing or damaged."""
    from transformers import AutoTokenizer

    with told_in_words(f"{source.name}: its tokenizer cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # transformers 5 makes one of no files at all
        raise ModelFileError(
            f"{source.name}: its tokenizer knows no words; expected tokenizer.json or vocabulary files in "
            f"{source.folder}. Download the model again"
        )
    return tokenizer


def _require_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise SurdBuildError("transformers is not installed; pip install -r requirements-train.txt") from None


def _read_config(name: str, folder: Path):
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        kind = " It is an image model's folder." if (folder / "model_index.json").is_file() else ""
        raise ModelFileError(
            f"{name}: expected a model as transformers saves it, found no config.json in {folder}.{kind}"
        )
    with told_in_words(f"{name}: its config.json cannot be used"):
        return AutoConfig.from_pretrained(folder, local_files_only=True)


def _weights(folder: Path) -> list[Path]:
    """The files that transformers reads the weights from."""
    found = list(folder.glob("*.safetensors")) or list(folder.glob("pytorch_model*.bin"))
    if not found:
        raise ModelFileError(f"{folder}: no weights; expected model.safetensors or pytorch_model.bin")
    return found


def _fetch_weights(fetch: Callable, folder: Path) -> list[Path]:
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        # The snapshot's own name is its commit, so that all files are of one moment.
        fetch(folder.name, [pattern])
        if list(folder.glob(pattern)):
            break
    return _weights(folder)


def _fetch(name: str, revision: str, patterns: list[str], local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(name):
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=patterns,
                ignore_patterns=_NOT_READ,
                local_files_only=local_files_only,
            )
        )
