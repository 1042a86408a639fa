"""Runs the groups one after the other. After each, the page and the JSON say all that is known so far."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from small_world.dataset import Report
from sur_core.atomic import atomic_write
from sur_core.evaluation.drawing import library_versions
from sur_core.training_progress import duration_words

from .arms import DEFAULT
from .costs import Costs, endless, kept, seconds_of_steps
from .gallery import Gallery
from .groups import RUN, Bench, as_json, needed
from .page import headline_figures, page
from .plan import GROUPS, Plan, hashed, settings_that_count
from .training import Workshop


class Study:
    """A whole benchmark in one folder.

    Args:
        say: is told what happens, a line at a time.
        report: is told (what, done, total) of what takes its time.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None], report: Report):
        plan.models.check()
        self.plan, self._say, self._report = plan, say, report
        self.workshop, self.gallery = Workshop(plan, say, report), Gallery(plan, report)

    def run(self) -> dict:
        """The figures, which are also written. What :meth:`Workshop.adapter` and :meth:`Gallery.show` raise
        when a signal comes goes through; the same call then goes on.
        """
        costs = self._costs()
        bench = Bench(self.plan, self.workshop, self.gallery, costs, self._say)
        left = list(self.plan.groups)
        while left:
            name = left[0]
            self._train(left, costs)
            with self._timed(name):
                figures = RUN[name](bench)
            self._keep(name, figures)
            left.pop(0)
            self._say(f"group {name} is done; the tables so far: {self.write()}\n")
        return self._read()

    def write(self) -> Path:
        """Write the page and the JSON from what is kept of every group; the page's path."""
        figures = self._read()
        for path, text in (
            (self.plan.figures, json.dumps(figures, indent=1) + "\n"),
            (self.plan.page, page(figures)),
        ):
            with atomic_write(path) as file:
                file.write(text.encode("utf-8"))
        return self.plan.page

    # --- what it costs ---

    def _costs(self) -> Costs:
        plan, seed = self.plan, self.plan.training_seeds[0]

        def measure() -> Costs:
            self._say("measuring what a step and a picture cost")
            trainer = self.workshop.ready_trainer(endless(plan.config), DEFAULT, seed)
            steps = seconds_of_steps(trainer, plan.turns)
            return Costs(*steps, self.gallery.seconds_per_picture(plan.prompts(plan.large)))

        costs = kept(self._costs_file, measure)
        self._say(
            f"a step: align {1000 * costs.align_step:.1f} ms, full {1000 * costs.full_step:.1f} ms; a "
            f"picture: {1000 * costs.picture:.1f} ms. {plan.config.align_steps:,} align and "
            f"{plan.config.full_steps:,} full steps are worth {costs.align_steps_worth(plan.config):,} align "
            f"or {costs.full_steps_worth(plan.config):,} full steps"
        )
        return costs

    @property
    def _costs_file(self) -> Path:
        plan = self.plan
        key = hashed([settings_that_count(plan.config), plan.models_fingerprint, plan.steps])
        return plan.work_dir / f"costs-{key}.json"

    def _kept_costs(self) -> Costs | None:
        return kept(self._costs_file, None) if self._costs_file.is_file() else None

    def _train(self, left: list[str], costs: Costs) -> None:
        """Train what the first of the groups that are ``left`` needs and has not."""
        arms = list(dict.fromkeys(needed(left[0], self.plan, costs, self.workshop.layers)))
        wanted = [(arm, seed) for arm in arms for seed in self.plan.training_seeds]
        for arm, seed in wanted:
            if not self.workshop.is_trained(arm, seed):
                config = self.workshop.config(arm, seed)
                self._say(
                    f"group {left[0]}: adapter '{arm.name}', training seed {seed}, {config.align_steps:,} "
                    f"align and {config.full_steps:,} full steps; about {self._to_go(left, costs)} to go"
                )
                self.workshop.adapter(arm, seed)
        self._say(f"group {left[0]}: pictures; about {self._to_go(left, costs)} to go")

    def _to_go(self, left: list[str], costs: Costs) -> str:
        """In words: the steps and pictures of the groups that are left, as if no picture were there yet."""
        plan, seconds, arms = self.plan, 0.0, {}
        for name in left:
            mine = needed(name, plan, costs, self.workshop.layers)
            arms |= dict.fromkeys(mine)
            seconds += costs.picture * self._pictures(name, len(mine))
        for arm in arms:
            for seed in plan.training_seeds:
                config, step = self.workshop.config(arm, seed), self.workshop.counters(arm, seed).step
                seconds += costs.seconds(config) * (1 - step / config.total_steps)
        return duration_words(seconds)

    def _pictures(self, name: str, arms: int) -> int:
        plan, seeds = self.plan, len(self.plan.training_seeds)
        large = len(plan.prompts(plan.large))
        if name in ("main", "quality"):
            paper = len(plan.prompts(plan.paper)) * plan.paper_noises if name == "main" else 0
            return (2 + seeds) * (large * plan.main_noises + paper)
        trained = len(plan.etas) if name == "eta" else arms
        return (2 + seeds * trained) * large * plan.ablation_noises

    # --- what is kept ---

    def _keep(self, name: str, figures: dict) -> None:
        figures = {"training_seeds": list(self.plan.training_seeds), **figures}
        content = {"identity": self.plan.identity_of(name), "figures": as_json(figures)}
        with atomic_write(self.plan.work_dir / "groups" / f"{name}.json") as file:
            file.write(json.dumps(content).encode("utf-8"))

    def _read(self) -> dict:
        """All figures. Groups that were run with another plan or other models are left out."""
        groups = {}
        for name in GROUPS:
            path = self.plan.work_dir / "groups" / f"{name}.json"
            found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            if found.get("identity") == self.plan.identity_of(name):
                groups[name] = found["figures"]
        seconds = self._seconds()
        return {
            **headline_figures(groups),
            "tables": groups,
            "seconds": {name: round(value) for name, value in seconds.items()},
            "training": self._training(list(groups)),
            "about": self._about(),
        }

    def _about(self) -> dict:
        plan, config = self.plan, self.plan.config
        return {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": str(self.gallery.pipeline._execution_device),
            "versions": {"python": platform.python_version(), **library_versions()},
            "models_fingerprint": plan.models_fingerprint,
            "rows": plan.rows,
            "eta": plan.eta,
            "drawing_steps": plan.steps,
            "guidance": plan.guidance,
            "references_per_prompt": plan.references,
            "training": settings_that_count(config),
            "long": plan.long,
        }

    def _training(self, groups: list[str]) -> dict:
        """All adapters of some groups: how many, and the sum of the seconds that their trainings took."""
        costs, seeds = self._kept_costs(), self.plan.training_seeds
        if costs is None:
            return {}
        arms = {arm for name in groups for arm in needed(name, self.plan, costs, self.workshop.layers)}
        seconds = sum(self.workshop.counters(arm, seed).seconds for arm in arms for seed in seeds)
        return {"adapters": len(arms) * len(seeds), "seconds": round(seconds), "costs": asdict(costs)}

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Adds to the group's seconds of drawing and judging, over all starts."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = self._seconds()
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began
            with atomic_write(self._seconds_file) as file:
                file.write(json.dumps(seconds).encode())

    @property
    def _seconds_file(self) -> Path:
        return self.plan.work_dir / f"seconds-{self.plan.identity}.json"

    def _seconds(self) -> dict[str, float]:
        path = self._seconds_file
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
