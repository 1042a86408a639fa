"""Reads the small world's text models with whatever transformers is there; prints what it found as JSON."""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer, CLIPModel, CLIPTextModel, CLIPTokenizer, LlamaForCausalLM

root = Path(sys.argv[1])
text = "a trio of crimson balls, (flat colors:1.1)"
models, not_loaded = {}, {}
for name, kind in (("base/text_encoder", CLIPTextModel), ("clip", CLIPModel), ("llm", LlamaForCausalLM)):
    models[name], found = kind.from_pretrained(root / name, dtype=torch.float32, output_loading_info=True)
    not_loaded[name] = sorted(map(str, [*found["missing_keys"], *found["unexpected_keys"]]))
tokens = {
    f"{kind.__name__} of {name}": kind.from_pretrained(root / name)(text).input_ids
    for name, kind in (
        ("base/tokenizer", CLIPTokenizer),
        ("base/tokenizer", AutoTokenizer),
        ("clip", CLIPTokenizer),
        ("llm", AutoTokenizer),
    )
}
ids = torch.tensor([tokens["CLIPTokenizer of base/tokenizer"]])
with torch.no_grad():
    outputs = {
        "base/text_encoder": models["base/text_encoder"].eval()(ids).last_hidden_state,
        "clip": models["clip"].eval().text_model(ids).last_hidden_state,
        "llm": models["llm"].eval()(torch.tensor([tokens["AutoTokenizer of llm"]])).logits,
    }
print(
    json.dumps(
        {
            "transformers": transformers.__version__,
            "not loaded": not_loaded,
            "tokens": tokens,
            "sums": {name: output.abs().mean().item() for name, output in outputs.items()},
        }
    )
)
