"""What the benchmark measures, and with how many pictures: every number that decides its length."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from small_world.dataset import ROWS
from small_world.demo import DemoSettings
from small_world.places import DEMO_CONFIG, LLMDIFF_CONFIG, PROMPT_SETS, Models
from sur_core.evaluation import EvalPrompt, load_prompts
from sur_core.llmdiff.training import OF_SUR
from sur_core.model_files import fingerprint
from sur_core.training_config import TrainingConfig, check_setting

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("main", "quality", "eta", "value", "layers", "terms", "start", "stages", "authors", "llmdiff")
LONG = {"align_steps": 5000, "full_steps": 8000, "learning_rate": 7e-4}
_SUR_ONLY = ("align_steps", "full_steps", "eta", "lambda_llm", "lambda_cp", *OF_SUR)
_NO_RESULT = ("work_dir", "page", "figures", "models", "training_seeds", "groups", "batch_size")


@dataclass(frozen=True)
class Plan:
    """All settings. What is not here is as in the demo: ``small_world/demo.toml`` and ``DemoSettings``.

    Attributes:
        work_dir: folder of everything that is made on the way; a stopped run goes on there.
        page, figures: where the Markdown page and the JSON go.
        models: of the small world.
        training_seeds: one default adapter, and one of each ablation, is trained for each; a seed is also
            that of its training set.
        groups: which to run, of ``GROUPS``.
        large, paper: prompt sets: the larger test, on which no setting was chosen, and the paper's fifteen
            prompts a type.
        per_type: prompts taken of each type of these sets; 0 takes all.
        main_noises: pictures of each prompt of the larger test in groups main and quality.
        ablation_noises: the same in all other groups.
        paper_noises: pictures of each of the paper's prompts.
        eta, etas: strength in training and everywhere else, and the strengths of group eta.
        rows: of a training set.
        steps, guidance, batch_size: of drawing.
        references: true pictures of each prompt of the larger test, for KID.
        training: settings of training that differ from ``demo.toml``.
        long: those in which the adapters of groups main, quality and eta differ from the default: trained
            until more does not help, where the ablations compare short trainings.
        turns: of the calibration.
        resamples: of the bootstraps.
    """

    work_dir: Path = Path("runs/small_world")
    page: Path = ROOT / "RESULTS.md"
    figures: Path = ROOT / "benchmarks/small_world.json"
    models: Models = field(default_factory=Models)
    training_seeds: tuple[int, ...] = (0, 1, 2)
    groups: tuple[str, ...] = GROUPS
    large: Path = PROMPT_SETS["final"]
    paper: Path = PROMPT_SETS["paper"]
    per_type: int = 0
    main_noises: int = 2
    ablation_noises: int = 1
    paper_noises: int = DemoSettings.seeds
    eta: float = DemoSettings.eta
    etas: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    rows: int = ROWS
    steps: int = DemoSettings.steps
    guidance: float = DemoSettings.guidance
    batch_size: int = DemoSettings.batch_size
    references: int = 4
    training: dict = field(default_factory=dict)
    long: dict = field(default_factory=lambda: dict(LONG))
    turns: int = 30
    resamples: int = 10_000

    def __post_init__(self):
        seeds = [check_setting("seed", seed) for seed in self.training_seeds]
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"training seeds: expected at least one, all different; found {seeds}")
        if unknown := [name for name in self.groups if name not in GROUPS]:
            raise ValueError(f"there is no group {unknown[0]!r}; known are {', '.join(GROUPS)}")

    def quick(self, work_dir: Path) -> Plan:
        """Every table with one seed and next to no training: some minutes, and proves nothing."""
        return replace(
            self,
            work_dir=work_dir,
            page=work_dir / "RESULTS.md",
            figures=work_dir / "small_world.json",
            training_seeds=(0,),
            large=self.paper,
            main_noises=1,
            paper_noises=1,
            rows=300,
            steps=8,
            turns=5,
            training={"align_steps": 300, "full_steps": 20, "checkpointing_steps": 100},
            long={"align_steps": 300, "full_steps": 40},
        )

    @cached_property
    def config(self) -> TrainingConfig:
        """Training of the default adapter, but for model, data and folders."""
        return TrainingConfig.load(DEMO_CONFIG, **{"eta": self.eta, **self.training})

    @cached_property
    def llmdiff_config(self) -> TrainingConfig:
        """Training of an LLMDiff-Adapter, the same way."""
        shared = {name: value for name, value in self.training.items() if name not in _SUR_ONLY}
        return TrainingConfig.load(LLMDIFF_CONFIG, llm=str(self.models.llm), **shared)

    def prompts(self, which: Path) -> tuple[EvalPrompt, ...]:
        """The prompts of a set, or the first of each type."""
        found, count = [], {}
        for prompt in load_prompts(which):
            count[prompt.type] = count.get(prompt.type, 0) + 1
            if not self.per_type or count[prompt.type] <= self.per_type:
                found.append(prompt)
        return tuple(found)

    @cached_property
    def models_fingerprint(self) -> str:
        """Hex hash of all files of the models."""
        files = sorted(path for path in self.models.root.rglob("*") if path.suffix != ".md")
        root = self.models.root
        return fingerprint([(path.relative_to(root).as_posix(), path) for path in files if path.is_file()])

    def identity_of(self, group: str) -> str:
        """Hex hash of everything that decides a group's figures, but for the training seeds."""
        if group != "llmdiff":
            return self.identity
        return hashed([self.identity, settings_that_count(self.llmdiff_config)])

    @cached_property
    def identity(self) -> str:
        """The same of all groups of SUR-adapters alone."""
        values = {name: value for name, value in asdict(self).items() if name not in _NO_RESULT}
        values |= {name: fingerprint([("", values[name])]) for name in ("large", "paper")}
        return hashed([values, settings_that_count(self.config), self.models_fingerprint])


def settings_that_count(config: TrainingConfig) -> dict:
    """Settings that decide the weights; where things lie does not, nor what is another system's."""
    fields = TrainingConfig.__dataclass_fields__
    others = {"init_from"}
    if config.system == "sur":
        others |= {name for name, spec in fields.items() if spec.metadata["section"] == "llmdiff"} | {
            "system"
        }
    counted = {name for name, spec in fields.items() if not spec.metadata["free"]} | {"train_batch_size"}
    return {name: value for name, value in asdict(config).items() if name in counted - others}


def hashed(values) -> str:
    """Hex hash of JSON values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
