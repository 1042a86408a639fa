"""What a pipeline is: told by its content, not by its name or place."""

from __future__ import annotations

import hashlib
import json

import torch

_PLACES = ("transformers_version", "dtype", "torch_dtype", "architectures")


def pipeline_fingerprint(pipeline) -> str:
    """Hex hash of what a pipeline's parts compute: classes, configurations, weights and tokenizers as they
    are in memory. The scheduler is not in it.
    """
    total = hashlib.blake2b(type(pipeline).__name__.encode(), digest_size=16)
    settings = {key: value for key, value in pipeline.config.items() if isinstance(value, bool | int | float)}
    total.update(_canonical(settings))
    for name, part in sorted(pipeline.components.items()):
        if isinstance(part, torch.nn.Module):
            total.update(f"{name}:{type(part).__name__}".encode() + _canonical(_config(part)))
            for key, tensor in sorted(part.state_dict().items()):
                total.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
                total.update(_bytes(tensor, f"{name}.{key}"))
        elif hasattr(part, "get_vocab"):
            total.update(f"{name}:{type(part).__name__}".encode() + _tokenizer_content(part))
    return total.hexdigest()


def scheduler_settings(scheduler) -> dict:
    """Class and configuration of a scheduler, JSON values."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return {"class": type(scheduler).__name__, **json.loads(_canonical(config))}


def _config(module: torch.nn.Module) -> dict:
    config = getattr(module, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    return {key: value for key, value in values.items() if key[0] != "_" and key not in _PLACES}


def _tokenizer_content(tokenizer) -> bytes:
    content = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        # What is set by calling it, not by its files, is left out.
        described = json.loads(inner.to_str())
        content["inner"] = {k: v for k, v in described.items() if k not in ("truncation", "padding")}
    return _canonical(content)


def _bytes(tensor: torch.Tensor, name: str) -> memoryview:
    if tensor.is_meta:
        raise ValueError(
            f"{name} is not in memory (sequential offloading); use enable_model_cpu_offload instead"
        )
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _canonical(values) -> bytes:
    return json.dumps(values, sort_keys=True, default=str).encode()
