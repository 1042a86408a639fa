"""The demo: data, vectors, cache, fit, evaluate, report. Every step is commands that anybody can give.

What it tells is all it does: the same commands make the same files, in another folder too. A stopped demo
goes on where it was, because every command does.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from sur_core.atomic import atomic_write
from sur_core.evaluation import load_prompts

from .dataset import Report, write_reference, write_surd
from .places import DEMO_CONFIG, JUDGE, PROMPT_SETS, Models

STATE = "demo.json"
ADAPTER, REPORT, REPORT_STEP = "adapter.safetensors", "report.html", "report"
SURD, REFERENCE, KNOWLEDGE, CACHE, FIT, ETAS = "surd", "reference", "knowledge", "cache", "fit", "eta"
_MADE = (SURD, REFERENCE, KNOWLEDGE, CACHE, FIT, ETAS, "images", "features")
_MADE_FILES = (ADAPTER, REPORT, "results.json", "results.csv", "tables.csv", "tables.md", STATE)


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does. What decides its length stands here and in ``demo.toml``.

    Attributes:
        output_dir: folder of everything it makes.
        models: the tiny models.
        prompts: file of the test prompts.
        seed: of the training set and of training.
        rows: of the training set.
        seeds: pictures of each prompt in the main comparison: base, base from complex prompts, and SUR at
            ``eta``.
        etas, eta_seeds: further strengths, and the pictures of each prompt that these get.
        eta: the strength that the adapter is trained with and measured at.
        steps, guidance: of drawing.
        batch_size: pictures drawn at once.
        references: true pictures of each prompt, for KID.
        fit: further flags of ``train fit``.
    """

    output_dir: str | os.PathLike
    models: Models = field(default_factory=Models)
    prompts: str | os.PathLike = PROMPT_SETS["paper"]
    seed: int = 0
    rows: int = 4000
    seeds: int = 10
    eta: float = 1.0
    etas: tuple[float, ...] = (0.25, 0.5, 0.75)
    eta_seeds: int = 2
    steps: int = 12
    guidance: float = 2.0
    batch_size: int = 64
    references: int = 10
    fit: tuple[str, ...] = ()

    def quick(self) -> DemoSettings:
        """A demo of well under a minute that shows every step, and proves nothing."""
        fit = ("--align-steps", "300", "--full-steps", "20", "--checkpointing-steps", "100", *self.fit)
        return replace(self, rows=300, seeds=1, eta_seeds=1, steps=8, references=2, fit=fit)

    def to_json(self) -> dict:
        """What must be equal for a demo to go on in its folder. Models and prompts are not in it: their
        content is compared by the commands.
        """
        values = asdict(self)
        for name in ("output_dir", "models", "prompts", "batch_size"):
            del values[name]
        return json.loads(json.dumps(values))

    def to_python(self) -> str:
        """A call that makes the same settings, its paths as short as they can be written here and now."""
        default = DemoSettings(self.output_dir)
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        changed = (f", {name}={_python(v)}" for name, v in values.items() if v != getattr(default, name))
        return f"DemoSettings({_python(Path(self.output_dir))}{''.join(changed)})"


@dataclass(frozen=True)
class Step:
    """One step: its commands as people type them, and what runs them, returning an exit code."""

    name: str
    words: str
    commands: tuple[str, ...]
    run: Callable[[], int]


class Demo:
    """The demo in one folder.

    Args:
        say: is told what happens, a line at a time.
        report: is told (what, done, total) of work that no command does.
    """

    def __init__(self, settings: DemoSettings, say: Callable[[str], None], report: Report):
        self.settings, self.folder = settings, Path(settings.output_dir)
        self._say, self._report = say, report
        self._seconds: dict[str, float] = {}

    def run(self, restart: bool = False) -> int:
        """0, or the exit code of the command that ended early. ValueError, OSError for bad input."""
        began = time.monotonic()
        self.settings.models.check()
        load_prompts(self.settings.prompts)
        self._open(restart)
        steps = self.steps()
        for number, step in enumerate(steps, start=1):
            self._say(f"\n[{number}/{len(steps)}] {step.name}: {step.words}")
            for command in step.commands:
                self._say(f"  $ {command}")
            if code := self._timed(step):
                self._say(f"stopped in step {step.name}; the same command goes on from there")
                return code
        passed = time.monotonic() - began
        self._say(f"\ndone in {int(passed) // 60} min {int(passed) % 60} s: {self.folder / REPORT}")
        return 0

    def steps(self) -> list[Step]:
        from train import cache, evaluate, fit, vectors

        return [
            self._data_step(),
            self._step(
                "vectors", "what the language model makes of every prompt", (vectors, self._vectors())
            ),
            self._step("cache", "every picture and prompt encoded once", (cache, self._training())),
            self._step("fit", "train the adapter: first align, then full", (fit, self._training())),
            self._step(
                "evaluate",
                "draw the test prompts with and without the adapter, judge the pictures",
                (evaluate, self._evaluation("", (self.settings.eta,), self.settings.seeds, complete=True)),
                (evaluate, self._evaluation(ETAS, self.settings.etas, self.settings.eta_seeds)),
            ),
            self._report_step(),
        ]

    # --- the steps ---

    def _data_step(self) -> Step:
        settings = self.settings
        surd, reference = self.folder / SURD, self.folder / REFERENCE
        prompts = f"load_prompts({_python(Path(settings.prompts))})"
        calls = _told(
            "from small_world.dataset import write_surd; "
            f"write_surd({_python(surd)}, {settings.rows}, {settings.seed})",
            "from small_world.dataset import write_reference; from sur_core.evaluation import load_prompts; "
            f"write_reference({_python(reference)}, {prompts}, {settings.references})",
        )
        words = (
            f"{settings.rows:,} pictures with two prompts each, and true pictures of what the test asks for"
        )

        def run() -> int:
            write_surd(surd, settings.rows, settings.seed, self._report)
            asked = load_prompts(settings.prompts)
            write_reference(reference, asked, settings.references, report=self._report)
            return 0

        return Step("data", words, calls, run)

    def _report_step(self) -> Step:
        trained, adapter = self.folder / FIT / ADAPTER, self.folder / ADAPTER
        calls = _told(
            f"import shutil; shutil.copyfile({_python(trained)}, {_python(adapter)})",
            "from small_world.demo import DemoSettings, Models, write_demo_report; "
            f"write_demo_report({self.settings.to_python()})",
        )

        def run() -> int:
            with atomic_write(adapter) as file:
                file.write(trained.read_bytes())
            write_demo_report(self.settings)
            return 0

        words = "the adapter put where it is found; tables, pictures and curves in one file"
        return Step(REPORT_STEP, words, calls, run)

    def _step(self, name: str, words: str, *calls: tuple) -> Step:
        """A step of public commands: (module of train, arguments) of each."""

        def run() -> int:
            for module, arguments in calls:
                parser = argparse.ArgumentParser(prog=f"python -m train {_command(module)}")
                module.add_arguments(parser)
                if code := module.run(parser.parse_args(arguments)):
                    return code
            return 0

        commands = (shlex.join(["python", "-m", "train", _command(m), *arguments]) for m, arguments in calls)
        return Step(name, words, tuple(commands), run)

    def _vectors(self) -> list[str]:
        return [
            *self._paths(SURD, f"{KNOWLEDGE}/vectors.safetensors"),
            "--llm",
            _shown(self.settings.models.llm),
        ]

    def _training(self) -> list[str]:
        data, vectors, caches, output = self._paths(SURD, f"{KNOWLEDGE}/vectors.safetensors", CACHE, FIT)
        return [
            *("--config", _shown(DEMO_CONFIG)),
            *("--pretrained-model-name-or-path", _shown(self.settings.models.base)),
            *("--data", data, "--vectors", vectors, "--cache-dir", caches, "--output-dir", output),
            *("--eta", f"{self.settings.eta:g}", "--seed", str(self.settings.seed)),
            *self.settings.fit,
        ]

    def _evaluation(
        self, folder: str, etas: tuple[float, ...], seeds: int, complete: bool = False
    ) -> list[str]:
        settings = self.settings
        adapter, reference, output = self._paths(f"{FIT}/{ADAPTER}", REFERENCE, folder)
        arguments = [
            *("--pretrained-model-name-or-path", _shown(settings.models.base)),
            *("--prompts", _shown(settings.prompts), "--adapter", f"SUR={adapter}"),
            *("--eta", *(f"{eta:g}" for eta in etas), "--seeds", str(seeds)),
            *("--steps", str(settings.steps), "--guidance", f"{settings.guidance:g}"),
            *("--batch-size", str(settings.batch_size), "--judge", JUDGE, "--output-dir", output),
        ]
        if complete:
            arguments += ["--with-complex", "--clip", _shown(settings.models.clip), "--reference", reference]
        return arguments

    def _paths(self, *names: str) -> list[str]:
        return [_shown(self.folder / name) for name in names]

    # --- what the folder remembers ---

    def _open(self, restart: bool) -> None:
        state = self.folder / STATE
        if not state.is_file() and self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder}: holds something, but no demo; choose an empty folder")
        if restart and state.is_file():
            _forget(self.folder)
        if state.is_file():
            before, self._seconds = _read_state(state)
            now = self.settings.to_json()
            changed = [
                f"{name} was {before.get(name)}, now is {now[name]}"
                for name in now
                if before.get(name) != now[name]
            ]
            if changed:
                raise ValueError(
                    f"{self.folder}: holds a demo with other settings ({'; '.join(changed)}). Choose another "
                    "output_dir, or give --restart to throw it away"
                )
        self._save()

    def _timed(self, step: Step) -> int:
        began = time.monotonic()
        try:
            return step.run() or 0
        finally:
            self._seconds[step.name] = self._seconds.get(step.name, 0.0) + time.monotonic() - began
            self._save()

    def _save(self) -> None:
        content = {"settings": self.settings.to_json(), "seconds": self._seconds}
        with atomic_write(self.folder / STATE) as file:
            file.write(json.dumps(content, indent=1).encode("utf-8"))


def write_demo_report(settings: DemoSettings) -> Path:
    """Write report.html from what the demo's commands have made in its folder.

    Raises:
        OSError, ValueError: a file is missing or damaged, in words.
    """
    from .report import write_report

    folder = Path(settings.output_dir)
    state = folder / STATE  # not there where the commands were given by hand
    seconds = _read_state(state)[1] if state.is_file() else {}
    seconds.pop(REPORT_STEP, None)  # of an earlier report; this one's time is not known yet
    steps = Demo(settings, lambda _: None, lambda *_: None).steps()
    return write_report(folder, settings, seconds, {step.name: step.commands for step in steps})


def _read_state(path: Path) -> tuple[dict, dict[str, float]]:
    """(settings, seconds of each step)."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return dict(found["settings"]), dict(found["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({error}); give --restart to begin anew") from error


def _told(*calls: str) -> tuple[str, ...]:
    """Calls as commands for a shell."""
    return tuple(shlex.join(["python", "-c", call]) for call in calls)


def _python(value) -> str:
    """A setting as Python code. Double quotes: single ones are the shell's."""
    if isinstance(value, Models):
        return f"Models({_python(Path(value.root))})"
    if isinstance(value, Path):
        return _python(_shown(value))
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "(" + "".join(f"{_python(part)}, " for part in value).rstrip() + ")"
    return repr(value)


def _shown(path: str | os.PathLike) -> str:
    """A path as short as it can be written where the demo was started."""
    return os.path.relpath(path) if Path(path).absolute().is_relative_to(Path.cwd()) else str(path)


def _command(module) -> str:
    return module.__name__.rpartition(".")[2]


def _forget(folder: Path) -> None:
    """Delete what a demo made, and nothing else."""
    for name in _MADE:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _MADE_FILES:
        (folder / name).unlink(missing_ok=True)
