"""What batches save when pictures are captioned and cleaned, against one picture at a time.

One at a time is the loop of transformers' own examples: open the file, the processor, the model, decode.
Batched is the whole step: files read, checked and decoded on threads beside the model, the journal, the
manifest. Both read the weights, take turns on the same files and models of random weights, and must give the
same captions and scores.

The figures are of models as deep as the paper's (BLIP base and CLIP ViT-B/32: 12 + 12 blocks) but 32 wide,
and BLIP with 145 image tokens in place of 577, whose attention costs the same at any width. They stand for a
GPU, where much of the time of one picture goes into starting one small operation after another; that was not
measured. The real shape is measured beside them, which says what to expect of a CPU.

What no batch saves is reading: decoding a PNG and resizing it, which threads do for the next batch beside
the model's work on this one. There are some batches of each kind, because the first one has nothing beside
it. One at a time is read by Pillow, batches by kornia-rs where it is installed; the table says what either
takes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sur_core.plain_png import find_decoder
from sur_core.surd_build.captioner import Decoding, check_captioner
from sur_core.surd_build.captions import caption_samples
from sur_core.surd_build.clean import score_samples
from sur_core.surd_build.clip_scores import check_clip
from sur_core.surd_build.image_feed import read_image
from sur_core.surd_build.manifest import Manifest
from sur_core.surd_build.model_source import ModelSource, find_model, load_image_processor
from sur_core.surd_build.samples import read_samples

from .collecting import natural, quartiles, spread

CAPTION_TOKENS = 12
"""What a caption of COCO takes."""

WORDS = "a the of in on and with near red blue green white cat dog bird house tree man woman photo light sky"


@dataclass(frozen=True)
class Shape:
    """Models to measure with.

    Attributes:
        name: for the table.
        width, text_width, vocabulary: of BLIP and CLIP's image tower; of CLIP's text tower; of BLIP.
        patch: pixels of BLIP's image tokens, of 384 x 384.
        captioned, cleaned: pictures. caption_batch, clean_batch: at once.
    """

    name: str
    width: int
    text_width: int
    vocabulary: int
    patch: int
    captioned: int
    cleaned: int
    caption_batch: int = 16
    clean_batch: int = 64


NARROW = Shape("32 wide", 32, 32, 0, 32, 64, 256)
WIDE = Shape("real shape", 768, 512, 30524, 16, 8, 24, 8, 24)


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """{figure: {"median", "low", "high"}}, low and high being quartiles; prints the table."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    figures = {}
    narrow = replace(NARROW, captioned=48, cleaned=192) if quick else NARROW
    print(
        f"caption and clean: random weights, CPU, {torch.get_num_threads()} threads, {os.cpu_count()} cores"
    )
    for shape, turns in ((narrow, 3),) if quick else ((narrow, 7), (WIDE, 3)):
        for step, ways in (("caption", captioning), ("clean", cleaning)):
            with tempfile.TemporaryDirectory() as folder:
                ratios = _in_turns(step, shape, turns, *ways(Path(folder), shape))
            if shape is narrow:
                figures[f"{step}_one_by_one_over_batched"] = spread(ratios)
    return figures


def captioning(folder: Path, shape: Shape) -> tuple[Callable, Callable, Callable]:
    """(one by one, batched, check): the first two give {sample: result} of all pictures."""
    from tests.surd_models import make_blip

    blip = make_blip(folder / "m", 0, shape.width, 12, 384, shape.patch, shape.vocabulary)
    source, work = find_model(str(blip), check_captioner), write_set(folder, shape.captioned, plain=False)

    def batched() -> dict[str, str]:
        manifest = Manifest(shutil.copytree(work, folder / "again", dirs_exist_ok=True))
        limits = Decoding("", CAPTION_TOKENS, CAPTION_TOKENS)
        caption_samples(manifest, source, limits, device="cpu", batch_size=shape.caption_batch)
        return {key: record["caption"] for key, record in manifest.records("caption").items()}

    def check(plain: dict, ours: dict) -> None:
        assert plain == ours and len(set(plain.values())) > 1, "the captions of both ways differ"

    return lambda: caption_one_by_one(source, work), batched, check


@torch.inference_mode()
def caption_one_by_one(source: ModelSource, work: Path) -> dict[str, str]:
    from PIL import Image
    from transformers import AutoTokenizer, BlipForConditionalGeneration

    model = BlipForConditionalGeneration.from_pretrained(source.folder).eval()
    processor, tokenizer = load_image_processor(source), AutoTokenizer.from_pretrained(source.folder)
    found = {}
    for sample in read_samples(Manifest(work)):
        inputs = processor(images=Image.open(sample.path).convert("RGB"), return_tensors="pt")
        limits = {"max_new_tokens": CAPTION_TOKENS, "min_new_tokens": CAPTION_TOKENS}
        tokens = model.generate(**inputs, **limits)[0]
        found[sample.id] = " ".join(tokenizer.decode(tokens, skip_special_tokens=True).split())
    return found


def cleaning(folder: Path, shape: Shape) -> tuple[Callable, Callable, Callable]:
    """As :func:`captioning`."""
    from tests.surd_models import make_clip

    clip = make_clip(folder / "m", 0, shape.width, 12, 224, 32, shape.text_width)
    source, work = find_model(str(clip), check_clip), write_set(folder, shape.cleaned, plain=True)

    _print_reading(work, source)

    def batched() -> dict[str, float]:
        manifest = Manifest(shutil.copytree(work, folder / "again", dirs_exist_ok=True))
        score_samples(manifest, source, device="cpu", batch_size=shape.clean_batch)
        return {key: record["simple_score"] for key, record in manifest.records("clean").items()}

    def check(plain: dict, ours: dict) -> None:
        assert plain.keys() == ours.keys() and np.std(list(plain.values())) > 0.01
        np.testing.assert_allclose(*([way[key] for key in sorted(plain)] for way in (plain, ours)), atol=1e-3)

    return lambda: clean_one_by_one(source, work), batched, check


@torch.inference_mode()
def clean_one_by_one(source: ModelSource, work: Path) -> dict[str, float]:
    from PIL import Image
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(source.folder).eval()
    processor, tokenizer = load_image_processor(source), CLIPTokenizer.from_pretrained(source.folder)
    found = {}
    for sample in read_samples(Manifest(work)):
        inputs = processor(images=Image.open(sample.path).convert("RGB"), return_tensors="pt")
        words = tokenizer([sample.simple, sample.complex], padding=True, truncation=True, return_tensors="pt")
        found[sample.id] = float(model(**inputs, **words).logits_per_image[0].softmax(0)[0])
    return found


def write_set(folder: Path, count: int, plain: bool) -> Path:
    """A collected work folder: pictures of 512 x 512 as diffusion models draw, prompts as people write."""
    from PIL import Image

    source, draw = folder / "source", np.random.default_rng(0)
    source.mkdir()
    records = [{"step": "source", "key": "mine", "folder": str(source), "kind": "folder"}]
    for number in range(count):
        path, words = source / f"{number:04}.png", list(WORDS.split())
        Image.fromarray(natural(number)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        chosen = {"id": digest[:20], "complex": ", ".join(draw.choice(words, draw.integers(15, 45)))}
        chosen |= {"simple": " ".join(draw.choice(words, draw.integers(7, 14)))} if plain else {}
        key = f"mine/{path.name}"
        records.append({"step": "collect", "key": key, "sha256": digest})
        records.append({"step": "select", "key": key, "file": key, **chosen})
    Manifest(folder / "work").add(records)
    return folder / "work"


def _print_reading(work: Path, source: ModelSource) -> None:
    """Core-milliseconds to read, decode, resize and normalise a picture, with or without batches."""
    samples, processor = list(read_samples(Manifest(work))), load_image_processor(source)
    for decoder, quick in (("Pillow", False), ("kornia-rs", True))[: 1 + (find_decoder() is not None)]:
        start = time.process_time()
        for sample in samples:
            image = read_image(sample.path, sample.facts["sha256"], quick)
            processor(images=[image], return_tensors="pt")
        each = 1000 * (time.process_time() - start) / len(samples)
        print(f"  reading and preparing a picture for CLIP, {decoder}: {each:.1f} ms of a core")


def _in_turns(
    step: str, shape: Shape, turns: int, plain: Callable, ours: Callable, check: Callable
) -> list[float]:
    """How many times as fast batches are, turn by turn; prints both ways' rates."""
    taken: list[tuple[float, float]] = []
    for turn in range(turns + 1):
        ways, seconds, results = {"plain": plain, "ours": ours}, {}, {}
        for name in list(ways) if turn % 2 else list(ways)[::-1]:
            start = time.perf_counter()
            results[name] = ways[name]()
            seconds[name] = time.perf_counter() - start
        check(results["plain"], results["ours"])
        if turn:  # the first one warms up
            taken.append((seconds["plain"], seconds["ours"]))
    count, batch = (
        (shape.captioned, shape.caption_batch) if step == "caption" else (shape.cleaned, shape.clean_batch)
    )
    print(f"  {step}, {shape.name}: {count} pictures, {batch} at once")
    for name, times in zip(("one by one", "batched"), zip(*taken, strict=True), strict=True):
        print(f"    {name:11} median {count / statistics.median(times):6.1f} pictures/s")
    ratios = [one / other for one, other in taken]
    print(f"    ratio       {quartiles(ratios)}")
    return ratios
