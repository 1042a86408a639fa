"""Adapters and files that tests make for themselves: random weights, real layouts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch

from sur_core import SURAdapterBundle, new_adapter

NODE_NAMES = {
    "SURLoadAdapter": "Load SUR Adapter",
    "SURApplyConditioning": "Apply SUR to CONDITIONING",
    "SURApplyCLIP": "Apply SUR to CLIP",
    "SURApplyPair": "Apply SUR (positive + negative)",
    "SUREtaSweep": "SUR Eta Sweep",
    "SURMergeAdapters": "Merge SUR Adapters",
    "SURSaveAdapter": "Save SUR Adapter",
    "SURInspect": "SUR Inspect",
    "SURLabelGrid": "SUR Label Grid",
    "LLMDiffLoadLLM": "Load LLM for LLMDiff",
    "LLMDiffLoadAdapter": "Load LLMDiff Adapter",
    "LLMDiffEncode": "Encode Prompt (LLMDiff)",
    "LLMDiffSaveEncoding": "Save LLMDiff Encoding",
    "LLMDiffLoadEncoding": "Load LLMDiff Encoding",
    "LLMDiffApply": "Apply LLMDiff",
}
"""Every node of the pack and the name it is shown by. Ids are never renamed once shipped."""


def random_adapter(family: str = "sd1", seed: int = 0, scale: float = 1.0, passport=None, **architecture):
    """An adapter that has left its zero start: c_LLM is of the size of CLIP's embeddings."""
    adapter = new_adapter(family, seed=seed, passport=passport, **architecture)
    generator = torch.Generator().manual_seed(seed + 1)
    for tower in adapter.towers.values():
        width = tower.config.width
        with torch.no_grad():
            tower.g.weight.copy_(torch.randn(width, width, generator=generator) * scale / width**0.5)
            tower.g.bias.copy_(torch.randn(width, generator=generator) * 0.1)
    return adapter.freeze()


def embeddings(batch: int, tokens: int, width: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def authors_state_dict(width: int = 768, depth: int = 2, feedforward: int = 2048, seed: int = 0) -> dict:
    """Random tensors under the names and shapes of the authors' public files (48 of them at depth 2)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator) / width**0.5

    def layer(prefix):
        shapes = {
            "self_attn.in_proj_weight": (3 * width, width),
            "self_attn.in_proj_bias": (3 * width,),
            "self_attn.out_proj.weight": (width, width),
            "self_attn.out_proj.bias": (width,),
            "linear1.weight": (feedforward, width),
            "linear1.bias": (feedforward,),
            "linear2.weight": (width, feedforward),
            "linear2.bias": (width,),
        }
        tensors = {f"{prefix}.{name}": draw(*shape) for name, shape in shapes.items()}
        for norm in ("norm1", "norm2"):
            tensors[f"{prefix}.{norm}.weight"] = 1 + draw(width)
            tensors[f"{prefix}.{norm}.bias"] = draw(width)
        return tensors

    state = layer("encoder_layer")
    for index in range(depth):
        state |= layer(f"transformer_encoder.layers.{index}")
    for name in (
        "attention.query_layer",
        "attention.key_layer",
        "attention.value_layer",
        "attention.output_layer.0",
        "attention.output_layer.2",
        "fc",
    ):
        state |= {f"{name}.weight": draw(width, width), f"{name}.bias": draw(width)}
    return state


def write_authors_file(path: Path, **shape) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(authors_state_dict(**shape), path)
    return path


def parameters_equal(left: SURAdapterBundle, right: SURAdapterBundle) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def killed_at_a_rename(number: int, work: Callable[[], object]) -> None:
    """Do ``work`` in a child that is killed just before the file of this number, from 1, takes its name."""
    child = os.fork()
    if not child:
        rename, left = os.replace, [number]

        def kill_instead(source, target):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = kill_instead
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
