"""Work folders with a manifest as the steps would leave it, made without running them."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sur_core.surd_build.manifest import Manifest, hash_of
from tests.surd_files import encoded

SUBJECTS = (
    "a woman with long hair standing in front of a building",
    "two dogs playing in the snow",
    "a painting of a cat wearing a crown",
    "an astronaut riding a horse on the moon",
    "a red car parked on the side of the road",
    "three white kittens playing with a ball of yarn",
    "a dragon flying over a castle in the mountains",
    "a bowl of fruit sitting on a wooden table",
    "a young girl holding an umbrella in the rain",
    "a close up of a robot with blue eyes",
    "a group of people walking down a street at night",
    "a vase of flowers on a table next to a window",
)
QUALITIES = (
    "masterpiece",
    "best quality",
    "extremely detailed",
    "8k",
    "trending on artstation",
    "cinematic lighting",
    "(sharp focus:1.2)",
    "concept art",
    "octane render",
    "by greg rutkowski",
    "volumetric fog",
    "<lora:detail:0.8>",
    "highly detailed face",
    "depth of field",
    "intricate",
    "soft light",
    "digital painting",
)


def gradient(draw: random.Random, size: tuple[int, int]) -> Image.Image:
    """A picture of its own that compresses well; size is (width, height)."""
    corners = bytes(draw.randrange(256) for _ in range(12))
    return Image.frombytes("RGB", (2, 2), corners).resize(size, Image.Resampling.BICUBIC)


class Work:
    """A work folder in the making. ``folder`` is it, ``images`` the folder of pictures."""

    def __init__(self, root: Path, source: str = "out") -> None:
        self.folder, self.images, self.source = root / "work", root / "pictures", source
        self._records = [{"step": "source", "key": source, "folder": str(self.images), "kind": "folder"}]

    def add(
        self,
        name: str,
        image: Image.Image | bytes,
        complex: str,
        simple: str = "",
        *,
        given: str = "",
        score: float | None = None,
        dropped: str = "",
        rule: str = "",
        number: int = 1,
        **facts,
    ) -> str:
        """One image and what the steps have found about it; returns its id.

        Args:
            image: a picture, saved as PNG with the prompt in it, or a whole file.
            simple: its caption; given: its simple prompt from the source.
            score: CLIP's two-way softmax. dropped, rule: reasons of select and of the rule.
            number: of the caption, for one more sample of an image that is there already.
        """
        told = PngInfo()
        told.add_itxt("parameters", f"{complex}\nSteps: 20, Model hash: secret".encode("utf-8", "replace"))
        data = image if isinstance(image, bytes) else encoded(image, pnginfo=told)
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digest, key = hashlib.sha256(data).hexdigest(), f"{self.source}/{name}"
        ending = (f"#{number}", f"-{number}") if number > 1 else ("", "")
        sample, size = digest[:20] + ending[1], Image.open(path).size
        found = {"sha256": digest, "bytes": len(data), "width": size[0], "height": size[1], "format": "PNG"}
        found |= {"metadata": "automatic1111", "prompt": complex, **facts}
        self._records.append({"step": "collect", "key": key, "of": str(len(data)), **found})
        chosen = {"file": key, "id": sample, "complex": complex}
        chosen |= {"simple": given} if given else {}
        chosen |= {"dropped": dropped} if dropped else {}
        self._records.append({"step": "select", "key": key + ending[0], **chosen})
        if simple:
            self._records.append({"step": "caption", "key": sample, "of": digest, "caption": simple})
        if score is not None:
            scores = {"simple_score": score, "complex_score": 1 - score}
            scores |= {"simple_cosine": 0.25 + score / 50, "complex_cosine": 0.26}
            of = hash_of(given or simple, complex)
            self._records.append({"step": "clean", "key": sample, "of": of, **scores})
            self._records.append({"step": "rule", "key": sample, "of": of, "dropped": rule})
        return sample

    def record(self, **values) -> None:
        self._records.append(values)

    def manifest(self) -> Manifest:
        """Everything added so far, written."""
        made = Manifest(self.folder)
        made.add(self._records)
        self._records = []
        return made


def realistic(root: Path, count: int = 300, seed: int = 0, size: int = 96) -> Work:
    """Samples as a gallery gives them: some dropped at each step, some without a caption yet."""
    draw, work = random.Random(seed), Work(root, "my pictures")
    for number in range(count):
        subject = draw.choice(SUBJECTS)
        parts = [subject, *draw.sample(QUALITIES, draw.randint(2, len(QUALITIES)))]
        if draw.random() < 0.15:
            draw.shuffle(parts)
        if draw.random() < 0.03:
            parts *= 12
        sides = draw.choice([(size, size), (size, size * 3 // 2), (size * 3 // 2, size)])
        facts = {"license": draw.choice(["CC0-1.0", "CreativeML Open RAIL-M", "", ""])}
        facts |= {"rating": draw.choice(["general", "general", "sensitive", None])}
        picture, name = gradient(draw, sides), f"2023-05/{number:05}.png"
        chance = draw.random()
        if chance < 0.12:
            reason = draw.choice(
                ["too small: 60 x 60", "near duplicate: of 00001.png", "no prompt: none found"]
            )
            text = "" if reason.startswith("no prompt") else ", ".join(parts)
            work.add(name, picture, text, dropped=reason, **facts)
            continue
        if chance < 0.15:
            work.add(name, picture, ", ".join(parts), **facts)
            continue
        score = min(0.999, max(0.001, draw.gauss(0.62, 0.25)))
        rule = "" if score >= 0.5 else f"complex fits better: {score:.3f} < 0.5"
        work.add(name, picture, ", ".join(parts), subject, score=score, rule=rule, **facts)
    return work
