"""A tiny language model, adapters and conditionings for the cases of llmdiff_inside.py."""

import importlib.util
import os
from pathlib import Path

import torch
from llmdiff_comfy import NODES, core, module, pack, tiny_model, work

FOLDER = Path(work, "models")
LLM, GPT = "maker/tiny-llama", "tiny-gpt2"
LONG, SHORT = "seven red balloons above a glass", "a cat"


def _helper(name):
    """A module of the tests by its file: ComfyUI has a package called tests too."""
    path = os.path.join(pack, "tests", f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"sur_{name}", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


models = _helper("llmdiff_models")
for _name, _family in ((LLM, "llama"), (GPT, "gpt2")):
    if not (FOLDER / "llm" / _name).exists():
        models.write_llm(FOLDER / "llm" / _name, _family)


def llm(name=LLM, dtype="fp32", device="auto", max_tokens=64):
    return NODES["LLMDiffLoadLLM"].execute(name, dtype, device, max_tokens).result[0]


def write_adapter(name, model, llm_name=LLM, seed=0, **config):
    """An adapter for a MODEL and a language model that has left its zero start; its name in the dropdown."""
    info = llm(llm_name).info
    layers = module("nodes.llmdiff_unet").cross_attention_layers(model.model.diffusion_model, "").values()
    shapes = tuple(core.LayerShape(a.to_q.in_features, a.heads, a.dim_head) for a in layers)
    context = next(iter(layers)).to_k.in_features
    made = core.LLMDiffConfig(info.width, info.layers, context, shapes, **config)
    known = {"llm_name": info.name, "llm_identity": info.identity}
    with torch.inference_mode(False):
        adapter = core.new_llmdiff_adapter(made, seed, **known)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for weight in adapter.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(noise / weight.shape[1] ** 0.5 if weight.dim() == 2 else 0.3 * noise)
        core.save_llmdiff(adapter, FOLDER / "llmdiff_adapters" / name)
    return name


MODEL = tiny_model()
for _file, _options in (
    ("drop.safetensors", {"seed": 0}),
    ("keep.safetensors", {"seed": 2, "clip": "keep"}),
    ("gpt.safetensors", {"seed": 4, "llm_name": GPT}),
):
    write_adapter(_file, MODEL, **_options)


def load(name="drop.safetensors"):
    return NODES["LLMDiffLoadAdapter"].execute(name).result[0]


DROP, KEEP, OTHER = load(), load("keep.safetensors"), load("gpt.safetensors")


def clip(seed=0, tokens=77, width=20, **options):
    """As CLIP Text Encode gives it."""
    drawn = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))
    return [[drawn, {"pooled_output": torch.zeros(1, 4), **options}]]


def encode(text=LONG, adapter=DROP, conditioning=None, language_model=None):
    given = language_model or llm(GPT if adapter is OTHER else LLM)
    return NODES["LLMDiffEncode"].execute(given, adapter, text, conditioning).result[0]


def apply(model=MODEL, adapter=DROP, strength=1.0, start=0.0, end=1.0):
    return NODES["LLMDiffApply"].execute(model, adapter, strength, start, end).result[0]


def words(of, *args, **named):
    """What an error says; the case fails if there is none."""
    try:
        of(*args, **named)
    except (ValueError, OSError) as error:
        return str(error)
    raise AssertionError("nothing was refused")


def close(one, other, tolerance=1e-4):
    """Nowhere further apart than a share of the largest value."""
    worst = ((one - other).abs().max() / other.abs().max()).item()
    assert worst < tolerance, f"{worst:.2g} apart"


def differ(one, other, by=1e-2):
    assert (one - other).abs().max() > by, "the same"
