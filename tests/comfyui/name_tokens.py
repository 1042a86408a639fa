"""What the pack calls the tokens of ComfyUI's own tokenizers. Run with ComfyUI's Python by test_insight.py:

    name_tokens.py PACK COMFYUI EMBEDDINGS TEXTS.json

prints one JSON object: {kind of CLIP: [for each text {encoder: [[[name, kind, whole word], ...] a chunk]}]}.
"""

import importlib.util
import json
import os
import sys
import types

pack, comfyui, embeddings, texts = (os.path.abspath(argument) for argument in sys.argv[1:5])
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, comfyui)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.sd  # noqa: E402
from comfy import sd1_clip, sdxl_clip  # noqa: E402
from comfy.text_encoders import sd2_clip  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "pack", os.path.join(pack, "__init__.py"), submodule_search_locations=[pack]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])
naming = importlib.import_module("pack.nodes.clip_tokens")

KINDS = {
    "sd1": sd1_clip.SD1Tokenizer,
    "sd2": sd2_clip.SD2Tokenizer,
    "sdxl": sdxl_clip.SDXLTokenizer,
    "refiner": lambda **options: sd1_clip.SD1Tokenizer(
        clip_name="g", tokenizer=sdxl_clip.SDXLClipGTokenizer, **options
    ),
}


def clip_with(tokenizer):
    """A CLIP as far as tokenizing goes: ComfyUI's own method and tokenizer, without weights."""
    clip = types.SimpleNamespace(tokenizer=tokenizer, tokenizer_options={})
    clip.tokenize = types.MethodType(comfy.sd.CLIP.tokenize, clip)
    return clip


def named(clip, text):
    return {
        encoder: [[[token.text, token.kind, token.whole] for token in chunk] for chunk in chunks]
        for encoder, chunks in naming.token_names(clip, text).items()
    }


with open(texts, encoding="utf8") as file:
    prompts = json.load(file)
clips = {kind: clip_with(make(embedding_directory=embeddings)) for kind, make in KINDS.items()}
found = {kind: [named(clip, text) for text in prompts] for kind, clip in clips.items()}
print("\n" + json.dumps(found))
