"""Draw prompts with and without adapters, judge the pictures, and tell how they compare."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from sur_core.evaluation import (
    Arm,
    EvaluationSettings,
    EvaluationStopped,
    accuracy_table,
    adapter_arm,
    amount_words,
    check_inputs,
    evaluate,
    load_prompts,
    open_pipeline,
    quality_table,
    system_name,
    trained_amount,
)
from sur_core.evaluation.judging import make_judge
from sur_core.evaluation.judging.settings import settled
from sur_core.evaluation.judging.settings import with_device as judge_on
from sur_core.evaluation.report import REPORT
from sur_core.evaluation.settings import DTYPES, SCHEDULERS
from sur_core.evaluation.study_config import load_study, with_device
from sur_core.evaluation.study_run import run_study
from sur_core.evaluation.study_tables import tables_at_a_glance
from sur_core.processes import ALONE, Processes

from .common import Bars, all_processes, quiet_libraries

BASE, BASE_COMPLEX = "base", "base, complex prompt"
_NEEDED = ("pretrained_model_name_or_path", "prompts", "output_dir")
_WITH_CONFIG = ("command", "config", "output_dir", "device")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "TOML file with a study: models x methods x adapters; only --output-dir and --device go with it"
    parser.add_argument("--config", type=Path, metavar="FILE", help=words)
    _add_model(parser.add_argument_group("model"))
    _add_arms(parser.add_argument_group("what is compared"))
    _add_drawing(parser.add_argument_group("drawing"))
    _add_marks(parser.add_argument_group("marks"))


def _add_model(group) -> None:
    add = group.add_argument
    words = "diffusers folder, hub id or checkpoint file of SD 1.x, SD 2.x or SDXL"
    add("--pretrained-model-name-or-path", metavar="MODEL", help=words)
    add("--family", default="", choices=("sd1", "sd2", "sdxl"), help="insist on one")
    add("--revision", default="", help="of a hub id")
    add("--variant", default="", help="such as fp16: weights named so")
    add("--single-file-config", default="", metavar="FOLDER", help="that describes a checkpoint file")
    add("--prediction-type", default="", help="epsilon or v_prediction, if the scheduler does not say")
    add("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    add("--dtype", default="fp32", choices=DTYPES, help="of the weights (fp32)")
    add("--clip-skip", type=int, default=1, metavar="N", help="as in training (1)")


def _add_arms(group) -> None:
    add = group.add_argument
    words = "prompt set, .jsonl or .toml; or paper, narrative"
    add("--prompts", type=Path, metavar="FILE", help=words)
    add("--types", nargs="+", default=(), metavar="TYPE", help="only prompts of these types")
    words = "adapter file; may be repeated; the name is for the tables"
    add("--adapter", action="append", default=[], metavar="[NAME=]FILE", help=words)
    words = "the language model that LLMDiff-Adapters read: folder or hub id"
    add("--llm", default="", metavar="LLM", help=words)
    words = "where it reads prompts: auto (where is drawn), cpu, cuda, ... (auto)"
    add("--llm-device", default="auto", metavar="DEVICE", help=words)
    words = "strengths of the adapter, each an arm; otherwise the one it was trained with"
    add("--eta", nargs="+", type=float, default=(), metavar="ETA", help=words)
    words = "correct the negative prompt too, as the authors' code does"
    add("--to-negative", action="store_true", help=words)
    words = "also the base model on the complex prompts"
    add("--with-complex", action="store_true", help=words)
    add("--negative-prompt", default="", metavar="TEXT", help="of all arms (none)")


def _add_drawing(group) -> None:
    add = group.add_argument
    words = "folder for pictures and tables; a stopped run goes on there"
    add("--output-dir", type=Path, metavar="FOLDER", help=words)
    add("--seeds", type=int, default=10, metavar="N", help="pictures of each prompt, seeds 0 to N-1 (10)")
    add("--seed-list", nargs="+", type=int, metavar="SEED", help="instead: these seeds")
    add("--steps", type=int, default=20, metavar="N", help="denoising steps (20)")
    add("--guidance", type=float, default=7.5, metavar="SCALE", help="guidance scale (7.5)")
    add("--scheduler", default="keep", choices=SCHEDULERS, help="keep: the model's own (keep)")
    add("--width", type=int, default=0, help="in pixels (the model's own)")
    add("--height", type=int, default=0, help="in pixels (the model's own)")
    add("--batch-size", type=int, default=8, metavar="N", help="pictures drawn at once (8)")


def _add_marks(group) -> None:
    add = group.add_argument
    words = "who says whether a picture is right: detector:MODEL, vlm:MODEL, a .toml file with [judge], or "
    words += "module:callable such as small_world.judge:make_judge"
    add("--judge", metavar="JUDGE", help=words)
    add("--clip", type=Path, metavar="FOLDER", help="transformers CLIPModel, for CLIP Score and cosine")
    words = "pictures that KID compares with; needs --clip; a file PROMPT_ID-NUMBER is of that prompt"
    add("--reference", type=Path, metavar="FOLDER", help=words)
    add("--resamples", type=int, default=10_000, metavar="N", help="of the bootstrap intervals (10000)")
    add("--bootstrap-seed", type=int, default=0, metavar="SEED", help="of the same (0)")


def run(options: argparse.Namespace) -> int:
    processes, device = _processes(options.device)
    try:
        with Bars(processes.is_main) as bars:
            return (_run_study if options.config else _run_one)(options, processes, device, bars)
    except EvaluationStopped as stopped:
        if processes.is_main:
            print(stopped)
        return 128 + stopped.signal


def _run_study(options: argparse.Namespace, processes: Processes, device: str, bars: Bars) -> int:
    if others := [name for name in _given(options) if name not in _WITH_CONFIG]:
        flag = "--" + others[0].replace("_", "-")
        raise ValueError(f"{flag} does not go with --config; set it in {options.config}")
    config = load_study(options.config, options.output_dir)
    if options.device != "auto":
        config = with_device(config, options.device)
    quiet_libraries("diffusers", "transformers")
    own = device if processes.count > 1 or options.device != "auto" else ""
    study = run_study(config, bars, processes, own, _command(options))
    if study is not None:
        places = f"all tables: {study.folder / 'study.md'}; with pictures: {study.folder / REPORT}"
        print(f"{tables_at_a_glance(study)}; {places}")
    return 0


def _command(options: argparse.Namespace) -> str:
    """What made a study, as it can be typed again."""
    words = ["python", "-m", "train", "evaluate", "--config", str(options.config)]
    words += [] if options.output_dir is None else ["--output-dir", str(options.output_dir)]
    return shlex.join(words + ([] if options.device == "auto" else ["--device", options.device]))


def _given(options: argparse.Namespace) -> list[str]:
    """The settings that are not as they would be without any flag."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plain = vars(parser.parse_args([]))
    return [name for name, value in vars(options).items() if name not in plain or value != plain[name]]


def _processes(device: str) -> tuple[Processes, str]:
    """Which of several processes this is, and its device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return ALONE, device
    processes, own = all_processes(device)
    return processes, str(own)


def _run_one(options: argparse.Namespace, processes: Processes, device: str, bars: Bars) -> int:
    for name in _NEEDED:
        if getattr(options, name) is None:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} is missing; give it, or a whole study by --config FILE")
    settings = EvaluationSettings(
        output_dir=options.output_dir,
        seeds=_seeds(options),
        steps=options.steps,
        guidance_scale=options.guidance,
        scheduler=options.scheduler,
        width=options.width,
        height=options.height,
        batch_size=options.batch_size,
        clip_skip=options.clip_skip,
        device=options.device,
        dtype=options.dtype,
        llm_device=options.llm_device,
        resamples=options.resamples,
        bootstrap_seed=options.bootstrap_seed,
    )
    prompts, arms = load_prompts(options.prompts, options.types), make_arms(options)
    judge = make_judge(_judge_settings(options)) if options.judge and processes.is_main else None
    # Before the model is opened, which takes its time.
    check_inputs(prompts, arms, judge, options.clip, options.reference)
    found = evaluate(
        settings,
        _open(options, device),
        prompts,
        arms,
        judge=judge,
        clip=options.clip,
        reference=options.reference,
        report=bars,
        name=options.pretrained_model_name_or_path,
        processes=processes,
    )
    if not processes.is_main:
        return 0
    tables = [accuracy_table] if found.accuracies else []
    tables += [quality_table] if found.clip_scores else []
    for table in tables:
        print(table(found) + "\n")
    print(f"{len(found.pictures)} pictures; all tables: {settings.output_dir / 'tables.md'}")
    return 0


def _judge_settings(options: argparse.Namespace):
    """On ``--device`` if it is given, as in a study."""
    found = settled(options.judge)
    return found if options.device == "auto" else judge_on(found, options.device)


def make_arms(options: argparse.Namespace) -> list[Arm]:
    """The base model first, then every adapter at every strength. ValueError if the flags contradict."""
    common = {"negative_prompt": options.negative_prompt}
    arms = [Arm(BASE, **common)]
    if options.with_complex:
        arms.append(Arm(BASE_COMPLEX, text="complex", **common))
    if not options.adapter and (options.eta or options.to_negative):
        raise ValueError("--eta and --to-negative need an adapter; give --adapter FILE")
    for name, path in _named(options.adapter):
        for eta in options.eta or (_trained_eta(path),):
            arms.append(
                adapter_arm(
                    f"{name}, {amount_words(path, eta)}",
                    path,
                    eta,
                    options.llm,
                    options.to_negative,
                    **common,
                )
            )
    return arms


def _named(adapters: list[str]) -> list[tuple[str, str]]:
    """(name, path) of each ``[NAME=]FILE``. A file whose own name has a ``=`` is taken for a file."""
    found = []
    for given in adapters:
        name, equals, path = given.partition("=")
        if not equals or Path(given).is_file():
            name, path = (system_name(given) if len(adapters) == 1 else Path(given).stem), given
        found.append((name, path))
    return found


def _trained_eta(path: str) -> float:
    eta = trained_amount(path)
    if eta is None:
        raise ValueError(f"{path}: does not say with which eta it was trained; give --eta")
    return eta


def _seeds(options: argparse.Namespace) -> tuple[int, ...]:
    return tuple(range(options.seeds) if options.seed_list is None else options.seed_list)


def _open(options: argparse.Namespace, device: str):
    quiet_libraries("diffusers", "transformers")
    return open_pipeline(
        options.pretrained_model_name_or_path,
        device=device,
        dtype=options.dtype,
        family=options.family,
        revision=options.revision,
        variant=options.variant,
        single_file_config=options.single_file_config,
        prediction_type=options.prediction_type,
    )
