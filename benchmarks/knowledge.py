"""What batching, length bucketing and stopping at a layer are worth when knowledge vectors are made.

    python benchmarks/knowledge.py [--quick]

The same prompts go through a small random Llama (8 blocks, 256 wide) on the CPU in two ways, which take turns
so that a change of the machine's speed meets both: one prompt at a time through the whole model, with every
hidden state returned and the middle one averaged; and ``build_knowledge`` up to the middle layer, with all it
does besides: reading the weights, tokenising twice, writing the file. The ratio of each turn is taken;
printed are the median and quartiles. The vectors of both ways must agree before anything is reported.

The last line is one JSON object with the figure.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sur_core.knowledge import build_knowledge  # noqa: E402

LAYERS, WIDTH, WORDS = 8, 256, 4000


def write_model(folder: Path) -> None:
    """A Llama of random weights whose tokenizer has one token a word and a start token, as Llama's has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{word}": word + 3 for word in range(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def simple_prompts(count: int) -> list[str]:
    """Prompts as long as short narrative ones are: 5 to 40 tokens, mostly 8 to 16."""
    draw = random.Random(0)
    lengths = [min(40, max(5, round(draw.lognormvariate(2.4, 0.4)))) for _ in range(count)]
    return [" ".join(f"w{draw.randrange(WORDS)}" for _ in range(length)) for length in lengths]


def one_by_one(model, tokenizer, prompts: list[str], layer: int) -> tuple[float, np.ndarray]:
    """Seconds of the plain way, and its vectors, float32 [prompts, width]. The model is already loaded."""
    start = time.perf_counter()
    vectors = []
    with torch.inference_mode():
        for prompt in prompts:
            hidden = model(**tokenizer(prompt, return_tensors="pt"), output_hidden_states=True).hidden_states
            vectors.append(hidden[layer][0, 1:].mean(0))  # without the start token, as build_knowledge
    vectors = torch.stack(vectors).numpy()
    return time.perf_counter() - start, vectors


def batched(folder: Path, prompts: list[str], layer: int, path: Path) -> tuple[float, np.ndarray]:
    """Seconds of the whole build, and its vectors."""
    start = time.perf_counter()
    vectors = build_knowledge(prompts, path, folder, layer, device="cpu", store_dtype="fp32", restart=True)
    seconds = time.perf_counter() - start
    found = np.stack([vectors[prompt] for prompt in prompts])
    vectors.close()
    return seconds, found


def measure(count: int, turns: int) -> list[tuple[float, float]]:
    """Seconds of both ways in every turn."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.disable(logging.WARNING)
    prompts, layer, taken = simple_prompts(count), LAYERS // 2, []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "llm")
        tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "llm")
        model = AutoModel.from_pretrained(Path(folder) / "llm").eval()
        one_by_one(model, tokenizer, prompts[:20], layer)
        for _ in range(turns):
            plain, expected = one_by_one(model, tokenizer, prompts, layer)
            path = Path(folder) / "vectors.safetensors"
            ours, found = batched(Path(folder) / "llm", prompts, layer, path)
            np.testing.assert_allclose(found, expected, atol=1e-5)
            taken.append((plain, ours))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer prompts and turns")
    count, turns = (300, 3) if parser.parse_args().quick else (600, 7)

    threads, versions = torch.get_num_threads(), f"torch {torch.__version__}"
    print(
        f"{count} prompts, layer {LAYERS // 2} of {LAYERS}, {WIDTH} wide, CPU, {threads} threads, {versions}"
    )
    taken = measure(count, turns)
    for name, seconds in zip(("one by one", "batched"), zip(*taken, strict=True), strict=True):
        print(f"{name:12} median {count / statistics.median(seconds):7.0f} prompts/s")
    ratios = [plain / ours for plain, ours in taken]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    print(f"{'ratio':12} median {middle:7.2f}, quartiles {low:.2f}-{high:.2f}")
    print(json.dumps({"one_by_one_over_batched": round(middle, 2)}))


if __name__ == "__main__":
    main()
