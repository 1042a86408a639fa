"""Everything up to the review in one go: collect, caption, clean, stats.

All flags of these steps are taken; where two steps have one of the same name, it begins with the step's name
here, as --caption-model. Stop it at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sur_core.processes import Processes
from sur_core.stop_signals import StopSignals
from sur_core.surd_build.captioner import check_captioner
from sur_core.surd_build.captions import given_prompt, selected_samples
from sur_core.surd_build.clip_scores import check_clip
from sur_core.surd_build.manifest import Manifest, SurdBuildError
from sur_core.surd_build.model_source import find_model
from sur_core.surd_build.rules import check_rule
from sur_core.surd_build.shell import as_typed
from sur_core.surd_sources import TABLE_NAMES

from ..common import all_processes
from . import caption, clean, collect, stats
from .common import STOPPED, add_work_folder

STEPS = {"collect": collect, "caption": caption, "clean": clean, "stats": stats}

SHARED = ("device", "local_files_only", "threads")
"""Flags that mean the same in every step and are given once."""

ALONE = ("collect", "stats")
"""Steps that one process does while the others wait."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_work_folder(parser)
    flags = {step: _flags(module) for step, module in STEPS.items()}
    often = Counter(flag.dest for own in flags.values() for flag in own)
    groups = {step: parser.add_argument_group(step) for step in STEPS if flags[step]}
    shared = parser.add_argument_group("several steps")
    seen = set()
    for step, own in flags.items():
        for flag in own:
            if flag.dest not in SHARED:
                groups[step]._add_action(_renamed(flag, step, often[flag.dest] > 1))
            elif flag.dest not in seen:
                seen.add(flag.dest)
                shared._add_action(flag)


def run(options: argparse.Namespace) -> int | None:
    _check_early(options)
    processes, _ = all_processes(options.device)
    with StopSignals() as signals:  # in every process, also in those that wait for the main one
        return _do_all(options, processes, lambda: signals.received)


def _do_all(options: argparse.Namespace, processes: Processes, stopped: Callable) -> int | None:
    for step in STEPS:
        if processes.count == 1 and stopped():  # several must go the same way: the steps' own ends decide
            return STOPPED
        own = _options_of(step, options)
        if step == "caption" and not own.all and _has_all_prompts(options.work):
            _say(processes, "caption: every picture came with a plain prompt; --all captions them anyway")
            continue
        if code := _do(step, own, processes):
            return code
    work = as_typed([str(options.work)])
    _say(processes, f"now look at what was made:    python -m train surd review {work}")
    _say(processes, f"then write the data set with: python -m train surd export {work} OUT")
    return None


def _do(step: str, options: argparse.Namespace, processes: Processes) -> int:
    """One step; its exit code, which is the same in all processes."""
    if step not in ALONE:
        return STEPS[step].run(options) or 0
    code = [1]
    try:
        if processes.is_main:
            code = [STEPS[step].run(options) or 0]
    finally:
        if processes.count > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(code)
    return code[0]


def _flags(module) -> list[argparse.Action]:
    """What a step takes besides its work folder."""
    parser = argparse.ArgumentParser(add_help=False)
    module.add_arguments(parser)
    return [action for action in parser._actions if action.dest != "work"]


def _renamed(flag: argparse.Action, step: str, ambiguous: bool) -> argparse.Action:
    """The flag under a destination of its own, and a name of its own where another step has it too."""
    made = copy.copy(flag)
    if made.metavar is None and made.nargs != 0 and not made.choices:
        made.metavar = flag.dest.upper()
    made.dest = f"{step}.{flag.dest}"
    if ambiguous:
        made.option_strings = [f"--{step}-{name.removeprefix('--')}" for name in flag.option_strings]
    return made


def _options_of(step: str, options: argparse.Namespace) -> argparse.Namespace:
    """What the step's own command line would have given."""
    given = vars(options)
    own = {name.partition(".")[2]: value for name, value in given.items() if name.startswith(f"{step}.")}
    return argparse.Namespace(work=options.work, **{name: given[name] for name in SHARED}, **own)


def _check_early(options: argparse.Namespace) -> None:
    """What would otherwise be found wrong after all pictures have been read, or captioned."""
    sources = [Path(source) for source in _options_of("collect", options).sources]
    for source in sources:
        if not source.exists():
            raise SurdBuildError(f"{source}: no such file or folder. Check the name")
    own = _options_of("clean", options)
    check_rule(own.rule, own.threshold)
    _check_model("clean", own, check_clip)
    if any(source.is_dir() and not (source / TABLE_NAMES[0]).is_file() for source in sources):
        _check_model("caption", _options_of("caption", options), check_captioner)


def _check_model(step: str, own: argparse.Namespace, check: Callable) -> None:
    try:
        find_model(own.model, check, own.revision, own.local_files_only)
    except (OSError, ValueError) as error:
        raise SurdBuildError(f"{error} (--{step}-model says which model or folder)") from error


def _has_all_prompts(work: Path) -> bool:
    manifest = Manifest(work)
    return all(given_prompt(manifest, sample) for sample in selected_samples(manifest))


def _say(processes: Processes, line: str) -> None:
    if processes.is_main:
        print(line)
