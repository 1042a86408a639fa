"""Where a base model's parts lie: a diffusers folder, here or on the hub. Parts load when they are needed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

logger = logging.getLogger(__name__)

COMPONENTS = {"text": ("text_encoder", "text_encoder_2"), "vae": ("vae",), "unet": ("unet",)}
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_STEMS = {"text_encoder": ("model", "pytorch_model"), "text_encoder_2": ("model", "pytorch_model")}
_CONFIG_PATTERNS = ["*.json", "*.txt", "*/*.json", "*/*.txt"]
_digests: dict[tuple, bytes] = {}


class ModelFileError(ValueError):
    """A base model is not usable: foreign, incomplete, damaged, unsafe, or not of the family asked for."""


class ModelFolder:
    """A diffusers folder: one subfolder a component, each with its ``config.json`` and weights.

    Args:
        root: the folder.
        name: what to call it in messages.
        variant: such as ``"fp16"``, for weights named ``model.fp16.safetensors``.
    """

    advice = "download the folder again"

    def __init__(self, root: Path, name: str = "", variant: str = ""):
        self.root, self.name, self.variant = Path(root), name or str(root), variant

    def has(self, component: str) -> bool:
        return (self.root / component / "config.json").is_file()

    def config(self, component: str, file: str = "config.json") -> dict:
        """What ``component/file`` says. ModelFileError if it is missing or no JSON object."""
        return read_json(self.root / component / file, self.name)

    def index(self) -> dict:
        """``model_index.json``, or {} where a folder has none."""
        path = self.root / "model_index.json"
        return read_json(path, self.name) if path.is_file() else {}

    def part_files(self, part: str) -> list[tuple[str, Path]]:
        """Relative name and place of every file that decides what a part computes, in a fixed order."""
        found = []
        for component in filter(self.has, COMPONENTS[part]):
            found.append((f"{component}/config.json", self.root / component / "config.json"))
            found += [(f"{component}/{path.name}", path) for path in self.weights(component)]
            if part == "text":
                found += self.tokenizer_files(component)
        return found

    def tokenizer_files(self, component: str) -> list[tuple[str, Path]]:
        folder = component.replace("text_encoder", "tokenizer")
        places = [(f"{folder}/{name}", self.root / folder / name) for name in TOKENIZER_FILES]
        return [(name, path) for name, path in places if path.is_file()]

    def weights(self, component: str) -> list[Path]:
        """The files that :meth:`load` reads, safetensors preferred. ModelFileError if there are none."""
        safe, pickled = _STEMS.get(component, ("diffusion_pytorch_model",) * 2)
        dot = f".{self.variant}" if self.variant else ""
        for stem, ending in ((safe, "safetensors"), (pickled, "bin")):
            whole = self._obtain(component, f"{stem}{dot}.{ending}")
            if whole is not None:
                return [whole]
            shards = self.root / component / f"{stem}.{ending}.index{dot}.json"
            if shards.is_file():
                return [shards, *self._shards(component, shards)]
        others = sorted(path.name for path in (self.root / component).glob("*") if path.suffix != ".json")
        variants = {
            name.split(".")[1] for name in others if name.endswith(".safetensors") and name.count(".") == 2
        }
        hint = f"; set variant to one of {sorted(variants)}" if variants else ""
        raise ModelFileError(
            f"{self.name}: {component or 'the model'} has no weights: expected {safe}{dot}.safetensors in "
            f"{self.root / component}, found {others or 'nothing'}{hint or f'; {self.advice}'}"
        )

    def load(self, component: str, module_class, dtype: torch.dtype) -> torch.nn.Module:
        """The component with its weights, on the CPU. ModelFileError if a weight is missing or damaged."""
        files = self.weights(component)
        for path in files:
            if path.suffix == ".safetensors":
                check_safetensors(path)
        # transformers and diffusers disagree on the name of this argument in versions still in use.
        kind = {"dtype" if module_class.__module__.startswith("transformers") else "torch_dtype": dtype}
        with told_in_words(f"{self.name}: {component or 'the model'} could not be read"):
            module, report = module_class.from_pretrained(
                self.root,
                subfolder=component,
                variant=self.variant or None,
                use_safetensors=any(path.suffix == ".safetensors" for path in files),
                local_files_only=True,
                output_loading_info=True,
                **kind,
            )
        problems = sorted(report["missing_keys"]) + [str(key) for key in report.get("mismatched_keys") or ()]
        if problems:
            raise ModelFileError(
                f"{self.name}: {component or 'the model'} is incomplete: {len(problems)} weights are missing "
                f"or of another shape than its config.json says, such as {problems[0]}. Download it again"
            )
        return module

    def _shards(self, component: str, index: Path) -> list[Path]:
        paths = []
        for name in sorted(set(read_json(index, self.name).get("weight_map", {}).values())):
            path = self._obtain(component, name)
            if path is None:
                raise ModelFileError(f"{self.root / component / name}: missing; {index.name} names it")
            paths.append(path)
        return paths

    def _obtain(self, component: str, name: str) -> Path | None:
        path = self.root / component / name
        return path if path.is_file() else None


class HubFolder(ModelFolder):
    """A model on the hub: configurations are there from the start, weights are fetched when needed."""

    def __init__(self, name: str, revision: str = "", variant: str = "", local_files_only: bool = False):
        from huggingface_hub import snapshot_download

        with hub_errors(name):
            root = snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=_CONFIG_PATTERNS,
                local_files_only=local_files_only,
            )
        super().__init__(Path(root), name, variant)
        self._local_files_only = local_files_only
        if local_files_only:
            self.advice = "allow the network once (local_files_only), so that they can be downloaded"

    def _obtain(self, component: str, name: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        path = super()._obtain(component, name)
        if path is not None:
            return path
        with hub_errors(self.name):
            try:
                # The snapshot's own name is its commit, so that all files are of one moment.
                found = hf_hub_download(
                    self.name,
                    f"{component}/{name}".lstrip("/"),  # models of one part lie in no subfolder
                    revision=self.root.name,
                    local_files_only=self._local_files_only,
                )
            except LocalEntryNotFoundError:
                if self._local_files_only:
                    return None
                raise
            except EntryNotFoundError:
                return None
        return Path(found)


def open_folder(
    model: str, revision: str = "", variant: str = "", local_files_only: bool = False
) -> ModelFolder:
    """A local diffusers folder, or one on the hub if ``model`` looks like ``owner/name``.

    Raises:
        FileNotFoundError: neither.
        OSError: the hub cannot be reached, or refuses; the message says why.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if revision:
            raise ModelFileError(f"{model}: a folder on this machine has no revision; leave revision empty")
        return ModelFolder(path, str(model), variant)
    looks_local = path.is_absolute() or "\\" in model or model.count("/") != 1 or model[0] in ".~"
    if looks_local or path.suffix.lower() in (".safetensors", ".ckpt"):
        raise FileNotFoundError(
            f"{model}: no such file or folder. Expected a diffusers folder, a .safetensors or .ckpt "
            "checkpoint, or a hub id such as owner/name"
        )
    return HubFolder(model, revision, variant, local_files_only)


def fingerprint(files: list[tuple[str, Path]], *settings: str) -> str:
    """Hex hash over names, contents and settings."""
    total = hashlib.blake2b(digest_size=16)
    for name, path in files:
        total.update(f"{name}\0".encode() + _digest(path))
    for setting in settings:
        total.update(f"{setting}\0".encode())
    return total.hexdigest()


def _digest(path: Path) -> bytes:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _digests:
        content = hashlib.blake2b(digest_size=32)
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                content.update(block)
        _digests[key] = content.digest()
    return _digests[key]


def read_json(path: Path, name: str) -> dict:
    """A JSON object. ModelFileError, naming the file, if it is missing or anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{name}: not a diffusers model folder: {path} is missing. Expected model_index.json and the "
            "subfolders unet, vae, text_encoder, tokenizer and scheduler"
        ) from error
    except ValueError as error:
        raise ModelFileError(f"{path}: not readable as JSON ({error}). Download the file again") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def check_safetensors(path: Path) -> None:
    """Refuse a damaged file before a library meets it. The header knows how long the file must be."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}). It may be truncated; download it again"
        ) from error


def check_weights(source: ModelFolder, component: str = "") -> None:
    """That a folder of this machine has a component's weights, and whole; no number is read. Those on the hub
    would have to be fetched for it, and are taken for good. ModelFileError.
    """
    if type(source) is not ModelFolder:
        return
    for path in source.weights(component):
        if path.suffix == ".safetensors":
            check_safetensors(path)


def whole_weights(folder: Path) -> list[Path]:
    """Weight files beside a model's config.json; no number is read. ModelFileError: one is cut."""
    files = [path for ending in ("safetensors", "bin") for path in sorted(folder.glob(f"*.{ending}"))]
    for path in files:
        if path.suffix == ".safetensors":
            check_safetensors(path)
    return files


@contextmanager
def told_in_words(start: str) -> Iterator[None]:
    """What a library raises on a bad file becomes a ModelFileError; running out of memory stays itself."""
    try:
        yield
    except (ModelFileError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged or foreign file can fail in any way inside the libraries
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(f"{start} ({lines[0]}). Download the model again or use another") from error


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """What can go wrong between here and the hub, said in words."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise OSError(
            f"{name}: this model's owner asks you to accept its terms. Open https://huggingface.co/{name}, "
            "accept them, then log in here with 'hf auth login'"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise OSError(
            f"{name}: no folder of that name here, and no public model of that name on the hub. Look for a "
            "typing error; if the model is private, log in with 'hf auth login'"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise OSError(
            f"{name}: the hub has this model but not this revision; leave revision empty"
        ) from error
    except errors.HFValidationError as error:
        raise ModelFileError(
            f"{name}: neither a file or folder here nor a possible hub id ({error})"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise OSError(
            f"{name}: no folder of that name here, and it could not be fetched from the hub: this machine is "
            "offline, or was told to use local files only, and the model was not downloaded before. Download "
            "it where there is a network and give its folder"
        ) from error
    except ModelFileError:
        raise
    except OSError as error:
        raise OSError(f"{name}: could not be fetched from the hub: {error}") from error
