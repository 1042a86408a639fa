"""Training sets, knowledge vectors, caches and adapters, made where they are not there yet.

An adapter's folder is named by a hash of what decides it: other settings train another one, and the same
ones find it again, finished or not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from small_world.dataset import Report, write_surd
from sur_core import load_adapter, save_adapter
from sur_core.bundle import new_adapter
from sur_core.randomness import counted_generator
from sur_core.training import ADAPTER_FILE, Trainer
from sur_core.training_config import ARCHITECTURE, TrainingConfig
from sur_core.training_data import CacheBuilder, open_training_data
from sur_core.training_state import Counters, read_counters
from train import vectors
from train.common import make_accelerator, open_model

from .arms import TrainedArm
from .authors import AuthorsObjective
from .plan import Plan, hashed, settings_that_count


class Workshop:
    """Everything that is trained for one plan."""

    def __init__(self, plan: Plan, say: Callable[[str], None], report: Report):
        self.plan, self._say, self._report = plan, say, report
        llm = json.loads((plan.models.llm / "config.json").read_text("utf-8"))
        self.layers: int = llm["num_hidden_layers"]

    def config(self, arm: TrainedArm, seed: int) -> TrainingConfig:
        """All settings of an arm's training."""
        plan, work = self.plan, self.plan.work_dir
        config = (plan.llmdiff_config if arm.is_llmdiff else plan.config).with_values(
            pretrained_model_name_or_path=str(plan.models.base),
            data=str(work / f"surd-{plan.rows}-{seed}"),
            cache_dir=str(work / "cache"),
            title=f"{arm.name}, seed {seed}",
            seed=seed,
            **arm.settings,
        )
        if config.lambda_llm:
            config = config.with_values(vectors=str(self._vectors_file(arm, seed)))
        if arm.start:
            config = config.with_values(init_from=str(work / "starts" / f"{arm.start}-{seed}.safetensors"))
        key = hashed([settings_that_count(config), arm.slug, plan.rows, plan.models_fingerprint])
        return config.with_values(output_dir=str(work / "adapters" / arm.slug / f"seed-{seed}-{key}"))

    def is_trained(self, arm: TrainedArm, seed: int) -> bool:
        config = self.config(arm, seed)
        counters = self.counters(arm, seed)
        return counters.step == config.total_steps and Path(config.output_dir, ADAPTER_FILE).is_file()

    def counters(self, arm: TrainedArm, seed: int) -> Counters:
        """How far an arm's training is."""
        found = read_counters(Path(self.config(arm, seed).output_dir))
        return found[0] if found else Counters()

    def adapter(self, arm: TrainedArm, seed: int) -> Path:
        """An arm's trained adapter file, trained now if it is not.

        Raises:
            Stopped, KeyboardInterrupt: a signal came; the same call goes on.
            ValueError, OSError: in words, as ``train fit``.
        """
        config = self.config(arm, seed)
        if not self.is_trained(arm, seed):
            self._make_inputs(arm, seed)
            trainer = self.trainer(config, arm)
            trainer.resume()
            trainer.run()
        return Path(config.output_dir, ADAPTER_FILE)

    def trainer(self, config: TrainingConfig, arm: TrainedArm) -> Trainer:
        """What ``train fit`` makes of the settings, ready to run, with the arm's objective."""
        accelerator = make_accelerator(config)
        data, backend = open_training_data(config), open_model(config, accelerator.device)
        trainer = Trainer(config, data, backend, accelerator, self._say)
        if arm.cut or arm.mix:
            width = data.knowledge.width if data.knowledge else None
            given = config, backend.widths, width, accelerator.device
            trainer.objective = AuthorsObjective(*given, cut=arm.cut, mix=arm.mix)
        builder = CacheBuilder(config, data, backend, progress=self._report)
        builder.build(latents=bool(config.full_steps))
        builder.open(latents=bool(config.full_steps))
        trainer.counters.sources["content of the images"] = builder.pictures()
        return trainer

    def ready_trainer(self, config: TrainingConfig, arm: TrainedArm, seed: int) -> Trainer:
        """As :meth:`trainer`, with the data made first; for steps that are not kept."""
        self._make_inputs(arm, seed)
        given = self.config(arm, seed)
        places = ("pretrained_model_name_or_path", "data", "cache_dir", "vectors")
        placed = config.with_values(**{name: getattr(given, name) for name in places})
        return self.trainer(placed.with_values(output_dir=str(self.plan.work_dir / "costs")), arm)

    def _make_inputs(self, arm: TrainedArm, seed: int) -> None:
        config = self.config(arm, seed)
        write_surd(config.data, self.plan.rows, seed, self._report)
        if config.lambda_llm:
            self._make_vectors(arm, seed, config)
        if arm.start:
            self._make_start(arm, seed, config)

    def _vectors_file(self, arm: TrainedArm, seed: int) -> Path:
        name = f"{self.plan.rows}-{seed}-layer-{self._layer(arm)}-{self.plan.models_fingerprint[:8]}"
        return self.plan.work_dir / "knowledge" / f"{name}.safetensors"

    def _layer(self, arm: TrainedArm) -> int:
        return self.layers if arm.layer is None else arm.layer

    def _make_vectors(self, arm: TrainedArm, seed: int, config: TrainingConfig) -> None:
        if Path(config.vectors).is_file():
            return
        parser = argparse.ArgumentParser(prog="python -m train vectors")
        vectors.add_arguments(parser)
        llm, layer = str(self.plan.models.llm), str(self._layer(arm))
        options = parser.parse_args([config.data, config.vectors, "--llm", llm, "--layer", layer])
        if vectors.run(options):
            raise KeyboardInterrupt

    def _make_start(self, arm: TrainedArm, seed: int, config: TrainingConfig) -> None:
        """A fresh adapter as training would begin with, but for phi_1. One of an older plan is replaced."""
        widths = open_model(config, "cpu").widths
        adapter = new_adapter(widths, seed, **{name: getattr(config, name) for name in ARCHITECTURE})
        for name, tower in adapter.towers.items():
            begin_phi1(tower.g.weight, arm.start, counted_generator(seed, f"start {arm.start} {name}"))
        path = Path(config.init_from)
        if not path.is_file() or not _same(load_adapter(path), adapter):
            save_adapter(adapter, path, title=f"phi_1 {arm.start}", steps=0)


@torch.no_grad()
def begin_phi1(weight: nn.Parameter, kind: str, generator: torch.Generator) -> None:
    """Draw the matrix of phi_1 in place; its bias stays zero."""
    if kind == "normal":
        nn.init.normal_(weight, std=0.02, generator=generator)
    else:
        nn.init.kaiming_normal_(weight, generator=generator)


def _same(left, right) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
