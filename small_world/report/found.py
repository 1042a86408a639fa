"""What a demo's folder holds, read for its report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sur_core.evaluation import ALL, EvalPrompt, Interval, share_of_gap


@dataclass(frozen=True)
class Results:
    """An evaluation as its results.json has it.

    Attributes:
        folder: of the evaluation.
        data: what results.json holds; its schema is told in :mod:`sur_core.evaluation.results`.
    """

    folder: Path
    data: dict

    @classmethod
    def read(cls, folder: Path) -> Results:
        """OSError or ValueError if there is no readable results.json."""
        path = folder / "results.json"
        try:
            return cls(folder, json.loads(path.read_text("utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({error}); evaluate again") from error

    @cached_property
    def prompts(self) -> list[EvalPrompt]:
        return [EvalPrompt(**prompt) for prompt in self.data["prompts"]]

    @property
    def types(self) -> list[str]:
        return list(dict.fromkeys(prompt.type for prompt in self.prompts))

    @property
    def seeds(self) -> list[int]:
        return self.data["settings"]["seeds"]

    @property
    def base(self) -> str:
        """The arm that the others are compared with."""
        return self.data["baseline"]

    @property
    def complex(self) -> str | None:
        """The arm that draws complex prompts without an adapter."""
        return next(
            (a["name"] for a in self.data["arms"] if a["text"] == "complex" and not a["adapter"]), None
        )

    @property
    def adapted(self) -> dict[float, str]:
        """Arms with the adapter by eta, rising."""
        return {
            arm["eta"]: arm["name"]
            for arm in sorted(self.data["arms"], key=lambda a: a["eta"])
            if arm["adapter"]
        }

    @cached_property
    def _pictures(self) -> dict[tuple[str, str, int], dict]:
        return {(p["arm"], p["prompt_id"], p["seed"]): p for p in self.data["pictures"]}

    def picture(self, arm: str, prompt_id: str, seed: int) -> dict:
        return self._pictures[arm, prompt_id, seed]

    def right(self, arm: str, type: str = ALL, seeds: list[int] | None = None) -> list[float]:
        """Marks of an arm's pictures: 1 right, 0 wrong."""
        wanted = self.seeds if seeds is None else seeds
        return [
            float(self.picture(arm, prompt.id, seed)["verdict"]["right"])
            for prompt in self.prompts
            for seed in wanted
            if type in (ALL, prompt.type)
        ]

    def one(self, table: str, **wanted) -> dict | None:
        """The entry of a list of results.json with these values."""
        fits = (e for e in self.data[table] if all(e[name] == value for name, value in wanted.items()))
        return next(fits, None)

    def accuracy(self, arm: str, type: str = ALL) -> dict:
        return self.one("accuracies", arm=arm, type=type)

    def comparison(self, arm: str, type: str = ALL, measure: str = "right") -> dict | None:
        return self.one("comparisons", arm=arm, type=type, measure=measure)

    def gap_closed(self, arm: str, type: str = ALL) -> tuple[float | None, Interval]:
        """How much of the way from the base's simple to its complex prompts an arm goes."""
        asked = [prompt for prompt in self.prompts if type in (ALL, prompt.type)]
        settings = self.data["settings"]
        return share_of_gap(
            *(self.right(name, type) for name in (self.base, arm, self.complex)),
            [prompt.id for prompt in asked for _ in self.seeds],
            [prompt.type for prompt in asked for _ in self.seeds],
            resamples=settings["resamples"],
            seed=settings["bootstrap_seed"],
            confidence=settings["confidence"],
        )
