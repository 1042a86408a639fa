"""What a run begins with: the adapter it trains, what its passport says, and what it was made from."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from .adapter import SURAdapterConfig
from .backend import Backend
from .bundle import SURAdapterBundle, new_adapter
from .checkpoint import load_adapter
from .errors import AdapterMismatchError
from .families import family_words
from .passport import Passport
from .training_config import ARCHITECTURE, TrainingConfig
from .training_data import TrainingData
from .training_system import system_of


def first_adapter(config: TrainingConfig, data: TrainingData, backend: Backend) -> SURAdapterBundle:
    """A fresh adapter, or the one of ``init_from``, with the passport of this run.

    Raises:
        AdapterFileError, AdapterMismatchError: ``init_from`` is unusable or of another base model.
    """
    described = passport_fields(config, data, backend)
    architecture = {name: getattr(config, name) for name in ARCHITECTURE}
    if not config.init_from:
        return new_adapter(backend.widths, config.seed, described, **architecture)
    given = load_adapter(config.init_from)
    if given.passport.widths != dict(backend.widths):
        raise AdapterMismatchError(
            f"{config.init_from}: made for {given.family_words}; {backend.name} is "
            f"{family_words(dict(backend.widths))}. Start from an adapter of this family"
        )
    for name, tower in given.passport.towers.items():
        wanted = SURAdapterConfig(width=tower.width, **architecture)
        if tower != wanted:
            raise AdapterMismatchError(
                f"{config.init_from}: its tower {name} is {tower.to_dict()}, the settings say "
                f"{wanted.to_dict()}. Set {', '.join(ARCHITECTURE)} as "
                "in the file"
            )
    adapter = SURAdapterBundle(Passport(**{"towers": given.passport.towers, **described}), config.init_from)
    adapter.load_state_dict(given.state_dict())
    return adapter


def passport_fields(config: TrainingConfig, data: TrainingData, backend: Backend) -> dict:
    """:class:`Passport` fields that this run can fill in; steps and date are set when it is saved."""
    knowledge = data.knowledge.source if data.knowledge else None
    extra = {"sur_training.stages": f"align {config.align_steps}, full {config.full_steps}"}
    if config.clip_skip != 1:
        extra["sur_training.clip_skip"] = str(config.clip_skip)
    for name in ("mask_padding", "snr_gamma", "noise_offset"):
        if getattr(config, name):
            extra[f"sur_training.{name}"] = str(getattr(config, name))
    if config.init_from:
        extra["sur_training.init_from"] = Path(config.init_from).name
    return {
        "base_model": shown_name(config.pretrained_model_name_or_path),
        "eta": config.eta,
        "llm_name": knowledge.llm if knowledge else "",
        "llm_layer": knowledge.layer if knowledge else None,
        "llm_width": knowledge.width if knowledge else None,
        "w0_seed": config.w0_seed if knowledge else None,
        "lambda_llm": config.lambda_llm,
        "lambda_cp": config.lambda_cp,
        "temperature": config.temperature,
        "kl_direction": config.kl_direction,
        "cp_loss": config.cp_loss,
        "dataset_name": data.surd.name,
        "dataset_size": len(data.surd),
        "dataset_hash": data.surd.fingerprint,
        "title": config.title,
        "extra": extra,
    }


def fingerprints(config: TrainingConfig, data: TrainingData, backend: Backend) -> dict[str, str]:
    """What the result depends on besides settings: data, the frozen model, and what the system reads."""
    found = {"data set": data.surd.fingerprint, "text encoder": backend.fingerprint("text")}
    found |= system_of(config).sources(config, data, backend)
    if config.full_steps:
        found["VAE"], found["UNet"] = backend.fingerprint("vae"), backend.fingerprint("unet")
        schedule = backend.alphas_cumprod.double().numpy().tobytes()
        found["noise schedule"] = f"{backend.prediction_type} {blake2b(schedule, digest_size=8).hexdigest()}"
    return found


def content_hash(path: Path) -> str:
    digest = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def shown_name(model: str) -> str:
    """A local path's last part, a hub id whole: a passport travels, and folders are nobody's business."""
    return Path(model).name if Path(model).exists() else model
