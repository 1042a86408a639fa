"""Which language model is meant, before its weights are read: its shape, its name, what it is made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_TEXT_FILES = ("config.json", "tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens")
_SAMPLES, _SAMPLE_BYTES = 64, 4096


class KnowledgeError(ValueError):
    """A language model, or what is made with one, cannot be used, made, read or found; the message names the
    file, model or prompt.
    """


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a language model before its weights are read.

    Attributes:
        name: for people and passports: the hub name, or the folder's.
        source: what transformers is asked to load.
        identity: changes when the config, the tokenizer or the weights change.
        layers, width: number of blocks and features.
        positions: longest text the model can read; 0 where it does not say.
    """

    name: str
    source: str
    identity: str
    layers: int
    width: int
    positions: int
    config: object
    arguments: dict

    def resolve(self, layer: int) -> int:
        """Layer counted from 0; negative ones count from the end (-1 is the last).

        Raises:
            KnowledgeError: there is no such layer.
        """
        resolved = layer + self.layers + 1 if layer < 0 else layer
        if not 0 <= resolved <= self.layers:
            raise KnowledgeError(
                f"{self.name}: there is no layer {layer}. The model has {self.layers} layers: 0 is its "
                f"embeddings, 1 to {self.layers} the outputs of its blocks, -1 the last one"
            )
        return resolved


def find_model(model: str | Path, revision: str = "", local_files_only: bool = False) -> ModelInfo:
    """Read a language model's configuration; its weights stay where they are.

    Args:
        model: a folder in transformers' layout, or a name on the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        local_files_only: never ask the hub.

    Raises:
        FileNotFoundError, KnowledgeError: there is no such model, or it is none of this kind.
    """
    path = Path(model).expanduser()
    if path.is_file():
        raise KnowledgeError(f"{model}: expected the folder of a transformers model, found a file")
    if not path.is_dir() and (isinstance(model, Path) or str(model)[:1] in ("/", ".", "~", "\\")):
        raise FileNotFoundError(
            f"{model}: no such folder. Give the folder of a transformers model or a hub name"
        )
    if path.is_dir() and not (path / "config.json").exists():
        image_model = " It is an image model's folder" if (path / "model_index.json").exists() else ""
        raise KnowledgeError(
            f"{model}: expected a language model in transformers' layout, found no config.json.{image_model}"
        )
    source = str(path) if path.is_dir() else str(model)
    arguments = {"local_files_only": local_files_only, "revision": revision or "main"}
    with in_words(source, "configuration"):
        from transformers import AutoConfig
        from transformers.utils import cached_file

        config_file = Path(cached_file(source, "config.json", **arguments))
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **arguments)
    text = config.get_text_config()
    layers, width = getattr(text, "num_hidden_layers", None), getattr(text, "hidden_size", None)
    if config.is_encoder_decoder or not layers or not width:
        raise KnowledgeError(
            f"{source}: a model of type {config.model_type!r} is no decoder-only language model with "
            "num_hidden_layers and hidden_size in its config.json. Choose one such as Llama, Mistral or Qwen"
        )
    name = Path(os.path.abspath(path)).name if path.is_dir() else source  # of a link, its own name
    # A hub snapshot lies in a folder named by its commit, which stands for every byte of it.
    identity = _identity(path) if path.is_dir() else f"commit-{config_file.parent.name}"
    positions = getattr(text, "max_position_embeddings", None) or 0
    return ModelInfo(name, source, identity, layers, width, positions, config, arguments)


@contextmanager
def in_words(source: str, what: str) -> Iterator[None]:
    """transformers' errors, in a sentence that says what to do."""
    try:
        yield
    except (KnowledgeError, torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        if error.name is None:  # transformers' own words for a package that is there and does not load
            raise KnowledgeError(
                f"{source}: reading its {what} needs what does not work here: {_cause(error)}"
            ) from error
        raise KnowledgeError(
            f"{source}: reading its {what} needs the package {error.name}: pip install {error.name}"
        ) from error
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise KnowledgeError(
                f"{source}: this model brings program code of its own, which is never run here. Choose "
                "one that transformers knows by itself"
            ) from error
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise KnowledgeError(
            f"{source}: could not read its {what} ({reason}). Check the name, the internet connection and, "
            "for models behind a licence, that you are logged in (hf auth login), or give a folder"
        ) from error


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _identity(folder: Path) -> str:
    """Hash of config and tokenizer files whole, and of every weight file's name, size and 64 places: all of
    13 billion numbers would take minutes to read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHTS:
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with open(path, "rb") as file:
                for place in range(_SAMPLES):
                    file.seek(max(0, size - _SAMPLE_BYTES) * place // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
        elif path.name.startswith(_TEXT_FILES):
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return digest.hexdigest()
