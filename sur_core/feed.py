"""From sample numbers to batches: reads rows and images ahead by threads, draws noise, encodes what is not
cached.

What is drawn for a sample depends on (seed, step, epoch, sample) alone, so that the same batches come out
whatever the number of threads or processes, and after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from .backend import Backend
from .cache import read_ahead
from .images import FittedImage, fit_image, to_pixels
from .objective import Batch
from .randomness import CountedDropout, SampleOrder, counted_generator
from .training_config import TrainingConfig
from .training_data import TrainingData, cache_settings


@dataclass
class Item:
    """What one sample brings along, on the CPU: rows as they are cached, or what is to be encoded."""

    sample: int
    name: str
    counts: tuple[int, ...]
    simple: dict | str = ""
    complex: dict | str | None = None
    knowledge: np.ndarray | None = None
    encoding: np.ndarray | None = None
    latents: dict | FittedImage | None = None
    draws: dict[str, torch.Tensor] = field(default_factory=dict)


class Feed:
    """Makes the batches of one process."""

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        device: torch.device | str = "cpu",
        process: tuple[int, int] = (0, 1),
    ):
        """``process``: number of this process and how many there are."""
        self.config, self.data, self.backend, self.device = config, data, backend, torch.device(device)
        self.process = process
        self.resolution = cache_settings(config, backend).resolution

    @property
    def global_batch(self) -> int:
        """Samples of one optimiser step, all processes together."""
        config = self.config
        return config.train_batch_size * config.gradient_accumulation_steps * self.process[1]

    def steps(self, stage: str, start: int, end: int) -> Iterator[tuple[int, list[Batch]]]:
        """(step, its batches) of a stage, for steps ``start`` to ``end``, counted over the whole run."""
        samples = self.data.samples(stage)
        order = SampleOrder(len(samples), self.config.seed, f"order {stage}")
        first = 0 if stage == "align" else self.config.align_steps
        number, count = self.process
        size, parts = self.config.train_batch_size, self.config.gradient_accumulation_steps

        def items():
            for step in range(start, end):
                for part in range(parts):
                    place = (step - first) * self.global_batch + (part * count + number) * size
                    chosen = [order[place + offset] for offset in range(size)]
                    yield step, [(epoch, int(samples[chosen_at])) for epoch, chosen_at in chosen]

        def read(work):
            step, chosen = work
            return step, [self._train_item(stage, step, epoch, sample) for epoch, sample in chosen]

        batches = []
        for step, ready in read_ahead(read, items(), self.config.dataloader_num_workers):
            batches.append(self.collate(ready, self.config.dropout))
            if len(batches) == parts:
                yield step, batches
                batches = []

    def validation(self, stage: str) -> Iterator[Batch]:
        """This process's share of the held-out samples, always with the same noise and timesteps."""
        samples = self.data.samples(stage, "validation")
        number, count = self.process
        mine = range(number, len(samples), count)
        size = self.config.train_batch_size
        work = [mine[at : at + size] for at in range(0, len(mine), size)]

        def read(places):
            return [self._validation_item(stage, samples, place) for place in places]

        for ready in read_ahead(read, work, self.config.dataloader_num_workers):
            yield self.collate(ready, dropout=0.0)

    def _train_item(self, stage: str, step: int, epoch: int, sample: int) -> Item:
        item = self._read(stage, sample, (step, epoch, sample), "train")
        if stage == "full":
            generator = counted_generator(self.config.seed, "sample", *item.counts)
            times = len(self.backend.alphas_cumprod)
            item.draws["timestep"] = torch.randint(times, (), generator=generator)
            item.draws["flip"] = torch.rand((), generator=generator) < 0.5 * self.config.random_flip
            self._draw_noise(item, generator)
        return item

    def _validation_item(self, stage: str, samples: np.ndarray, place: int) -> Item:
        item = self._read(stage, int(samples[place]), (place,), "validation")
        if stage == "full":
            generator = counted_generator(self.config.seed, "validation", item.sample)
            # Spread evenly over the schedule: with random timesteps a small set would mostly measure those.
            share = (place + torch.rand((), generator=generator)) / len(samples)
            times = len(self.backend.alphas_cumprod)
            item.draws["timestep"] = (share * times).long().clamp(max=times - 1)  # 32 bits can round up to 1
            item.draws["flip"] = torch.tensor(False)
            self._draw_noise(item, generator)
        return item

    def _draw_noise(self, item: Item, generator: torch.Generator) -> None:
        edge = self.resolution // self.backend.vae_factor
        shape = (self.backend.latent_channels, edge, edge)
        item.draws["posterior"] = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        offset = torch.randn(shape[0], 1, 1, generator=generator)
        item.draws["noise"] = noise + self.config.noise_offset * offset

    def _read(self, stage: str, sample: int, counts: tuple[int, ...], part: str) -> Item:
        data = self.data
        item = Item(sample, data.surd[sample].name, counts)
        self._read_prompts(item, part)
        if stage == "full":
            if data.latents is not None:
                item.latents = data.latents.rows.read(int(data.latent_rows[sample]))
            else:
                item.latents = self._fitted(sample)
        return item

    def _read_prompts(self, item: Item, part: str) -> None:
        """What is read of a sample besides its image; ``part`` is ``"train"`` or ``"validation"``."""
        data, sample = self.data, item.sample
        item.simple = self._prompt(sample, "simple")
        item.complex = self._prompt(sample, "complex") if self.config.lambda_cp else None
        if data.knowledge is not None:
            item.knowledge = data.knowledge.read(int(data.knowledge_rows[sample]))

    def _prompt(self, sample: int, column: str) -> dict | str:
        """A prompt's cached row, or the prompt where none are cached."""
        if self.data.texts is None:
            return getattr(self.data.surd[sample], column)
        return self.data.texts.rows.read(int(self.data.text_rows[column][sample]))

    def _fitted(self, sample: int) -> FittedImage:
        return fit_image(self.data.surd.read_image(sample), self.resolution, self.config.crop)

    def collate(self, items: list[Item], dropout: float) -> Batch:
        """Put items side by side on the device; prompts and images that are not cached are encoded here."""
        rows = self._text_rows(items)
        batch = Batch([item.sample for item in items], [item.name for item in items], **rows)
        if items[0].knowledge is not None:
            batch.knowledge = self._tensor([item.knowledge for item in items])
        if dropout:
            generators = [
                counted_generator(self.config.seed, "dropout", *item.counts, device=self.device)
                for item in items
            ]
            batch.dropout = CountedDropout(generators, dropout)
        if items[0].latents is not None:
            batch.timesteps = torch.stack([item.draws["timestep"] for item in items]).to(self.device)
            batch.noise = torch.stack([item.draws["noise"] for item in items]).to(self.device)
            batch.latents, sizes = self._latents(items)
            if batch.pooled is not None:
                batch.time_ids = torch.tensor(sizes, dtype=torch.float32, device=self.device)
        return batch

    def _text_rows(self, items: list[Item]) -> dict[str, torch.Tensor | None]:
        """simple, mask, complex and pooled of :class:`Batch`."""
        if isinstance(items[0].simple, dict):
            simple, complex = [item.simple for item in items], [item.complex for item in items]
            towers = list(self.backend.widths)
            rows = {
                "simple": torch.cat([self._tensor([r[name] for r in simple]) for name in towers], -1),
                "mask": self._tensor([row["mask"] for row in simple]).bool(),
                "pooled": self._tensor([row["pooled"] for row in simple]) if "pooled" in simple[0] else None,
            }
            if complex[0] is not None:
                rows["complex"] = torch.cat([self._tensor([r[name] for r in complex]) for name in towers], -1)
            return rows
        prompts = [item.simple for item in items]
        if items[0].complex is not None:
            prompts += [item.complex for item in items]
        encoded, count = self.backend.encode_text(prompts), len(items)
        hidden = torch.cat([part.float() for part in encoded.hidden.values()], -1)
        return {
            "simple": hidden[:count],
            "mask": encoded.mask[:count],
            "pooled": None if encoded.pooled is None else encoded.pooled[:count].float(),
            "complex": hidden[count:] if len(prompts) > count else None,
        }

    def _latents(self, items: list[Item]) -> tuple[torch.Tensor, list[list[int]]]:
        """Latents [B, C, h, w] drawn from the VAE's posterior, and SDXL's time ids for each."""
        flips = [bool(item.draws["flip"]) for item in items]
        drawn = torch.stack([item.draws["posterior"] for item in items]).to(self.device)
        if isinstance(items[0].latents, FittedImage):
            images = [item.latents for item in items]
            pixels = [to_pixels(image.pixels, flip) for image, flip in zip(images, flips, strict=True)]
            encoded = self.backend.encode_image(torch.stack(pixels).to(self.device))
            mean, std = encoded.mean, encoded.std
            sizes = [
                [*image.original_size, *(image.flipped_crop_top_left if flip else image.crop_top_left)]
                for image, flip in zip(images, flips, strict=True)
            ]
        else:
            ends = ["_flipped" if flip else "" for flip in flips]
            pairs = list(zip((item.latents for item in items), ends, strict=True))
            mean = self._tensor([row["mean" + end] for row, end in pairs])
            std = self._tensor([row["std" + end] for row, end in pairs])
            sizes = [
                [*row["sizes"][:2], *(row["sizes"][4:] if end else row["sizes"][2:4])] for row, end in pairs
            ]
        return mean + std * drawn, [[*map(int, size), self.resolution, self.resolution] for size in sizes]

    def _tensor(self, arrays: list[np.ndarray]) -> torch.Tensor:
        """[B, ...], float32 on the device; travels in the type it was cached in."""
        tensor = torch.from_numpy(np.stack(arrays))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True).float()
