"""The page: what came out, the numbers, the pictures, how it was made, and what it does not show."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from sur_core import read_passport
from sur_core.atomic import atomic_write
from sur_core.evaluation import Evaluation, read_results
from sur_core.page_elements import element, page, table
from sur_core.training_config import STAGES
from sur_core.training_log import read_log
from sur_core.training_progress import duration_words

from .curves import loss_curves
from .found import strongest
from .grid import picture_grid
from .summary import headline, judgement, overall
from .tables import accuracy_table, quality_table, strength_table
from .tokens import change_picture, token_changes

TITLE = "SUR-adapter in a small world"
STYLE = Path(__file__).with_name("style.css")

WORLD = (
    "SURD-Shapes is a world small enough to be known whole: 64 x 64 pictures of one to six objects "
    "(counting), of two objects that each have their own color (color), and of a figure in one of six poses "
    "(action). A tiny Stable Diffusion was raised there on keyword prompts only. Its text encoder knows the "
    "words of narrative English as well, but in places the image model was never taught to read: the problem "
    "that the paper describes, in small. A tiny language model has read, in text alone, what the words mean. "
    "The adapter learns from both, and at drawing time no language model is needed.",
    "The test prompts are about combinations that training never shows, in sentence forms that it never "
    "uses, and half of them have words that no training prompt has. That is said of the triplets the adapter "
    "is trained on: the tiny CLIP and the language model have read sentences of every form about every "
    "combination, and the image model has seen every combination. The judge reads pixels; a picture that "
    "is no valid scene is wrong.",
)
LIMITS = (
    "That a real Stable Diffusion gains as much. Models, language and pictures here are thousands of times "
    "smaller, and their gap between narrative and keyword prompts is wide by construction.",
    "That the paper's adapter to the letter does as much: this one has the extension query_in_value, by "
    "which Eq. 6 keeps the query. RESULTS.md compares the two.",
    "That the adapter understands language. It reaches words that the text encoder and the language model "
    "know; what neither knows it cannot draw.",
    "How much depends on the seed of training: this is one run. The project's benchmark repeats it.",
    "That two arms are equal where no difference was found: see the note below the tables.",
    "Quality as people see it. KID and cosine are measured with the small CLIP of this world and compare "
    "with nothing outside it.",
)


def write_report(
    folder: Path, settings, seconds: Mapping[str, float], commands: Mapping[str, Sequence[str]]
) -> Path:
    """Write report.html into a demo's folder, atomic.

    Args:
        folder: with results.json, adapter.safetensors, ``fit/log.csv``, ``fit/config.toml`` and
            ``eta/results.json``.
        settings: :class:`small_world.demo.DemoSettings`.
        seconds: how long each step took, all its runs together.
        commands: of each step, as people type them.

    Raises:
        OSError, ValueError: a file is missing or damaged, in words.
    """
    main, etas = read_results(folder), read_results(folder / "eta")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", TITLE),
        element("style", STYLE.read_text("utf-8")),
    )
    body = element(
        "body",
        element("main", _top(main), _numbers(main, etas), _pictures(main, etas)),
        _training(folder, settings, main),
        _making(folder, main, seconds, commands),
        element("section", element("h2", "What this does not show"), _list(LIMITS)),
    )
    path = folder / "report.html"
    with atomic_write(path) as file:
        file.write(page(head, body).encode("utf-8"))
    return path


def _top(main: Evaluation) -> list[Element]:
    return [
        element("h1", TITLE),
        element("p", headline(main), class_=f"lead {overall(main)}"),
        _list(judgement(main)),
        element("h2", "The world"),
        *(element("p", text) for text in WORLD),
    ]


def _numbers(main: Evaluation, etas: Evaluation) -> Element:
    remarks = [element("p", remark, class_="note") for remark in main.remarks]
    tables = (accuracy_table(main), strength_table(main, etas), quality_table(main))
    return element("section", element("h2", "Numbers"), *tables, remarks)


def _pictures(main: Evaluation, etas: Evaluation) -> Element:
    return element("section", element("h2", "Pictures"), picture_grid(main, etas))


def _training(folder: Path, settings, main: Evaluation) -> Element:
    eta, _ = strongest(main)
    log = read_log(folder / "fit" / "log.csv")
    firsts = {name: next(p for p in main.prompts if p.type == name) for name in main.types}
    changes = token_changes(
        settings.models.base, folder / "adapter.safetensors", [p.prompt for p in firsts.values()], eta
    )
    words = (
        f"What the adapter does to the embedding of each token at strength {eta:g}, for the first prompt of "
        "each type. A token that keeps its direction has 1 - cosine 0."
    )
    return element(
        "section",
        element("h2", "Training"),
        element("p", _stages(log)),
        element("div", loss_curves(log), class_="curves"),
        element("h2", "Token by token"),
        element("p", words),
        [change_picture(change, name) for name, change in zip(firsts, changes, strict=True)],
    )


def _stages(log: list[dict[str, str]]) -> str:
    last = {stage: max((int(r["step"]) for r in log if r["stage"] == stage), default=0) for stage in STAGES}
    full = max(0, last["full"] - last["align"])
    return (
        f"{last['align']:,} steps of stage align, which makes simple prompts say what complex ones do and "
        f"what the language model knows (Eq. 5 and 9), then {full:,} steps of stage full, in which "
        "pictures count too (Eq. 8)."
    )


def _making(
    folder: Path, main: Evaluation, seconds: Mapping[str, float], commands: Mapping[str, Sequence[str]]
) -> Element:
    about = [[name, str(value)] for name, value in main.about.items()]
    drawing = main.settings
    about += [
        [
            "drawing",
            f"{drawing.steps} steps, guidance {drawing.guidance_scale:g}, {_scheduler(drawing.scheduler)}",
        ],
        ["machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"],
        ["Python", platform.python_version()],
    ]
    spent = {name: value for name, value in seconds.items() if name in commands}
    times = [[name, duration_words(value)] for name, value in (*spent.items(), ("all", sum(spent.values())))]
    lines = [f"# {name}\n" + "\n".join(given) for name, given in commands.items()]
    return element(
        "section",
        element("h2", "How it was made"),
        element("p", "The adapter's passport, as its file has it:"),
        element("pre", read_passport(folder / "adapter.safetensors").to_text(), tabindex=0),
        element("p", "Nothing but public commands, which do the same again:"),
        element("pre", "\n\n".join(lines), tabindex=0),
        table(["step", "time"], times, "Time of each step") if spent else "",
        table(["what", "which"], about, "What it was made with"),
        element("p", "Every setting of training:"),
        element(
            "details",
            element("summary", "config.toml"),
            element("pre", (folder / "fit" / "config.toml").read_text("utf-8"), tabindex=0),
        ),
    )


def _scheduler(chosen: str) -> str:
    return "the model's own scheduler" if chosen == "keep" else f"scheduler {chosen}"


def _list(lines: Sequence[str]) -> Element:
    return element("ul", [element("li", line) for line in lines])
