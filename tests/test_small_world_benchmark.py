"""The small world's benchmark: every table on random tiny models, stops that lose nothing, honest figures."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import small_world as command
from benchmarks.small_world_arms import gallery, page
from benchmarks.small_world_arms.arms import ABLATIONS, DEFAULT, PAPER, STARTS, TrainedArm, shown
from benchmarks.small_world_arms.authors import AuthorsObjective
from benchmarks.small_world_arms.costs import Costs
from benchmarks.small_world_arms.groups import BASE, COMPLEX
from benchmarks.small_world_arms.plan import GROUPS, Plan, settings_that_count
from benchmarks.small_world_arms.scores import MEAN
from benchmarks.small_world_arms.study import Study
from benchmarks.small_world_arms.training import Workshop, begin_phi1
from sur_core import load_adapter
from sur_core.bundle import new_adapter
from sur_core.evaluation import EvaluationStopped, Verdict
from sur_core.objective import Batch, Objective
from sur_core.training import Stopped
from sur_core.training_config import TrainingConfig
from tests.small_data import tiny_backend, trainable
from tests.small_world_stand_ins import stand_in_models

TRAINING = {
    "align_steps": 60,
    "full_steps": 2,
    "train_batch_size": 2,
    "depth": 1,
    "feedforward": 16,
    "logging_steps": 20,
    "validation_steps": 0,
    "validation_share": 0.0,
    "lr_warmup_steps": 1,
    "checkpointing_steps": 1000,
}
TYPES = ("counting", "color", "action")
FEW = ("main", "quality", "eta")
COSTS = Costs(align_step=0.03, full_step=0.2, picture=0.05)


class OddJudge:
    """Right if a picture's sum is odd: random models never draw a valid scene, and all marks would be 0."""

    name = "odd"

    def check(self, prompts) -> None:
        pass

    def mark(self, pixels, prompt) -> Verdict:
        total = int(pixels.astype(np.int64).sum())
        return Verdict(total % 2 == 1, str(total), {"odd": total % 2 == 1, "third": total % 3 == 0})


@pytest.fixture(scope="module")
def models():
    return stand_in_models()


@pytest.fixture(scope="module", autouse=True)
def without_curves():
    """Pictures of the losses would take most of the time; they are tested with the training log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sur_core.training_log.draw_curves", lambda *_: None)
        yield


LONG = {"align_steps": 64, "full_steps": 2, "learning_rate": 7e-4}


def small_plan(folder, models, **changes) -> Plan:
    small = {"per_type": 2, "rows": 12, "steps": 1, "references": 2, "turns": 1, "resamples": 200}
    plan = Plan(models=models).quick(folder)
    return replace(plan, **{**small, "training_seeds": (0, 1), "training": TRAINING, "long": LONG, **changes})


@pytest.fixture(scope="module")
def done(models, tmp_path_factory):
    """(plan, figures) of a whole run: of two training seeds, but of one where many adapters are trained."""
    plan = small_plan(tmp_path_factory.mktemp("bench"), models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "make_judge", OddJudge)
        Study(replace(plan, groups=FEW), lambda _: None, lambda *_: None).run()
        rest = replace(plan, groups=tuple(ABLATIONS), training_seeds=(0,))
        figures = Study(rest, lambda _: None, lambda *_: None).run()
    return plan, figures


# --- a whole run --------------------------------------------------------------------------------------------


def test_every_group_is_run_and_written(done):
    plan, figures = done
    assert list(figures["tables"]) == list(GROUPS)
    assert json.loads(plan.figures.read_text()) == figures
    text = plan.page.read_text()
    assert text == page.page(figures)
    for name, group in figures["tables"].items():
        seeds = 2 if name in FEW else 1
        assert group["training_seeds"] == list(range(seeds))
        for arm, row in group["rows"].items():
            assert f"| {arm} " in text
            assert set(row["percent"]) == {*TYPES, MEAN}
            assert len(row["percent"][MEAN]["per_seed"]) == (1 if arm in (BASE, COMPLEX) else seeds)
    for name in ("gain_points", "gap_closed", "ci95", "base", "base_complex", "sur"):
        assert set(figures[name]) == {*TYPES, MEAN}
    assert np.isfinite(figures["kid"]["sur_minus_base"])


def test_the_figures_are_those_of_the_pictures(done):
    """Counted again from the verdicts that the last group's evaluation has written."""
    plan, figures = done
    found = json.loads((plan.work_dir / "evaluation/results.json").read_text())
    rows = figures["tables"][GROUPS[-1]]["rows"]
    for label, row in rows.items():
        arm = label if label in (BASE, COMPLEX) else f"{label}, seed 0"
        for kind in TYPES:
            pictures = [p for p in found["pictures"] if p["arm"] == arm and p["type"] == kind]
            share = 100 * sum(p["verdict"]["right"] for p in pictures) / len(pictures)
            assert row["percent"][kind]["mean"] == pytest.approx(share, rel=1e-5)
    assert 0 < rows[BASE]["percent"][MEAN]["mean"] < 100, "a run in which nothing varies shows nothing"


def test_the_default_is_the_same_arm_in_all_groups(done):
    plan, figures = done
    groups = figures["tables"]
    default = groups["value"]["rows"][groups["value"]["default"]]["percent"]
    plain = groups["value"]["rows"]["as in the paper"]["percent"]
    for name in ABLATIONS:
        found = groups[name]["rows"][groups[name]["default"]]["percent"]
        expected = plain if name == "authors" else default
        for kind in default:
            assert found[kind]["per_seed"] == expected[kind]["per_seed"]
    longer = groups["value"]["rows"]["with the query, trained longer"]["percent"]
    for kind, found in groups["eta"]["rows"]["eta 1"]["percent"].items():
        assert longer[kind]["per_seed"] == found["per_seed"][:1]
    assert groups["quality"]["rows"] == groups["main"]["rows"]


def test_eta_0_is_the_base_picture_by_picture(done):
    _, figures = done
    eta = figures["tables"]["eta"]
    assert eta["zero"] == {
        "pictures": 12,
        "differing_pictures": 0,
        "embeddings": 12,
        "differing_embeddings": 0,
    }
    assert set(eta["rows"]["eta 0"]["percent"][MEAN]["per_seed"]) == {
        eta["rows"][BASE]["percent"][MEAN]["mean"]
    }


def test_eta_0_would_not_equal_the_base_if_equation_7_were_wrong(done, monkeypatch):
    """Drawn from changed embeddings, the pictures differ; so the check above can fail."""
    plan, _ = done
    monkeypatch.setattr(gallery, "make_judge", OddJudge)
    room, prompts = gallery.Gallery(plan, lambda *_: None), plan.prompts(plan.large)[:2]
    drawn = [room.draw_changed(prompts, 1, change) for change in (lambda h: h, lambda h: h + 0.5)]
    assert drawn[0].keys() == drawn[1].keys() == {(prompt.id, 0) for prompt in prompts}
    assert all(not np.array_equal(drawn[0][place], drawn[1][place]) for place in drawn[0])


def test_a_second_run_trains_and_draws_nothing(done, monkeypatch, capsys):
    """By the command, whose last line is the JSON that it writes."""
    plan, figures = done
    monkeypatch.setattr(gallery, "make_judge", OddJudge)
    made = {path: path.stat().st_mtime_ns for path in plan.work_dir.rglob("*") if is_made(path)}
    monkeypatch.setattr(command, "make_plan", lambda options: replace(plan, groups=("main",)))
    assert command.main([]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again == json.loads(plan.figures.read_text())
    assert again["tables"] == figures["tables"]
    assert made == {path: path.stat().st_mtime_ns for path in plan.work_dir.rglob("*") if is_made(path)}


def is_made(path) -> bool:
    return path.suffix in (".png", ".safetensors") or path.name.startswith("costs")


def test_a_stopped_run_goes_on(done, tmp_path, models, monkeypatch):
    """Stopped by Ctrl-C while it renders, trains and draws; then it ends as if nothing had been."""
    whole, figures = done
    monkeypatch.setattr(gallery, "make_judge", OddJudge)
    plan = small_plan(tmp_path, models, groups=("main",))
    stops = iter(["pictures", "stage align", "drawing"])
    wanted = [next(stops)]

    def hear(what, *_):
        if wanted[0] and what.startswith(wanted[0]):
            wanted[0] = ""
            os.kill(os.getpid(), signal.SIGINT)

    raised = []
    for _ in range(4):
        try:
            again = Study(plan, hear, hear).run()
        except (KeyboardInterrupt, Stopped, EvaluationStopped) as stop:
            raised.append(type(stop))
            wanted[0] = next(stops, "")
    assert raised == [KeyboardInterrupt, Stopped, EvaluationStopped]
    expected = figures["tables"]["main"]
    assert again["tables"]["main"]["properties"] == expected["properties"]
    for arm, row in again["tables"]["main"]["rows"].items():
        for name in set(row) & {"percent", "gain_points", "gap_closed"}:
            assert row[name] == expected["rows"][arm][name], (arm, name)
    adapters = [
        load_adapter(Workshop(p, print, print).adapter(shown(p), 1)).state_dict() for p in (whole, plan)
    ]
    assert all(torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])


def test_results_of_another_plan_are_not_mixed_in(done, models):
    plan, _ = done
    other = Study(replace(plan, guidance=3.0), lambda _: None, lambda *_: None)._read()
    assert other["tables"] == {} and other["gain_points"] == {}
    text = page.page(other)
    assert "Not run yet, or only with other settings: main, quality" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "nowhere"], "nowhere"),
        (["--seeds", "-1"], "seed must be"),
        (["--seeds", "1", "1"], "all different"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, words, capsys, tmp_path):
    assert command.main(["--quick", "--work-dir", str(tmp_path), *arguments]) == 1
    assert words in capsys.readouterr().err


def test_a_quick_run_never_touches_the_results_of_the_repository(tmp_path):
    for arguments in (["--quick"], ["--quick", "--work-dir", str(tmp_path)]):
        plan = command.make_plan(command.parse(arguments))
        assert plan.page.parent == plan.figures.parent == plan.work_dir
    plan = command.make_plan(command.parse(["--only", "eta", "main", "--seeds", "3", "4"]))
    assert (plan.page.name, plan.groups, plan.training_seeds) == ("RESULTS.md", ("main", "eta"), (3, 4))


# --- arms ---------------------------------------------------------------------------------------------------

CHANGES = {
    "value": {"query_in_value", *LONG},
    "layers": {"vectors"},
    "terms": {"lambda_llm", "lambda_cp", "align_steps", "full_steps", "vectors"},
    "start": {"init_from"},
    "stages": {"align_steps", "full_steps"},
    "authors": {"token_mixing", "kl_direction"},
    "llmdiff": {"llmdiff_clip", "full_steps"},
}


@pytest.mark.parametrize("group", ABLATIONS)
def test_an_ablation_differs_from_the_default_in_what_it_says(group, models, tmp_path):
    plan = small_plan(tmp_path, models)
    shop = Workshop(plan, print, print)
    arms = ABLATIONS[group](plan, COSTS, shop.layers)
    reference = {"authors": PAPER, "llmdiff": list(arms.values())[1]}.get(group, DEFAULT)
    default, seen = shop.config(reference, 1), set()
    for label, arm in arms.items():
        config = shop.config(arm, 1)
        if arm.is_llmdiff != reference.is_llmdiff:  # the other system, for the same compute
            assert arm is DEFAULT
            assert COSTS.seconds(config) == pytest.approx(COSTS.seconds(default), abs=COSTS.full_step / 2)
            seen.add(config.output_dir)
            continue
        fields = TrainingConfig.__dataclass_fields__
        differing = {name for name in fields if getattr(config, name) != getattr(default, name)}
        assert differing - {"title", "output_dir"} <= CHANGES[group], arm
        if "long" not in label:
            assert COSTS.seconds(config) == pytest.approx(COSTS.seconds(default), abs=COSTS.full_step / 2)
        seen.add(config.output_dir)
    assert len(seen) == len(arms), "arms share a folder"
    assert list(arms.values()).count(reference) == 1


def test_other_settings_train_another_adapter(models, tmp_path):
    plan = small_plan(tmp_path, models)
    folders = {
        Workshop(other, print, print).config(arm, seed).output_dir
        for other in (plan, replace(plan, eta=0.5), replace(plan, rows=13))
        for arm in (DEFAULT, TrainedArm("other"))
        for seed in (0, 1)
    }
    assert len(folders) == 12
    assert "output_dir" not in settings_that_count(plan.config) and "seed" in settings_that_count(plan.config)


@pytest.mark.parametrize(("kind", "deviation"), [("normal", 0.02), ("kaiming", (2 / 96) ** 0.5)])
def test_phi_1_begins_as_its_arm_says(kind, deviation):
    weight = nn.Parameter(torch.zeros(400, 96))
    begin_phi1(weight, kind, torch.Generator().manual_seed(0))
    assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(weight.mean().item()) < deviation / 50
    assert set(STARTS) == {"normal", "kaiming"}


def test_a_start_differs_from_the_default_in_phi_1_alone(done):
    plan, _ = done
    shop = Workshop(plan, print, print)
    for kind in STARTS:
        config = shop.config(TrainedArm(f"start {kind}", start=kind), 0)
        given = load_adapter(config.init_from).state_dict()
        fresh = new_adapter({"clip_l": 32}, 0, depth=1, feedforward=16, heads=4, dropout=0.0).state_dict()
        differing = {key for key in fresh if not torch.equal(fresh[key], given[key])}
        assert differing == {"towers.clip_l.g.weight"}


# --- as the authors' code -----------------------------------------------------------------------------------


def batch_of(count: int) -> Batch:
    draw = torch.Generator().manual_seed(count)
    shapes = {"simple": (77, 32), "complex": (77, 32), "knowledge": (20,), "latents": (4, 8, 8)}
    shapes |= {"noise": (4, 8, 8)}
    parts = {name: torch.randn(count, *shape, generator=draw) for name, shape in shapes.items()}
    mask, times = torch.ones(count, 77, dtype=torch.bool), torch.arange(count) * 200
    return Batch(list(range(count)), ["x"] * count, mask=mask, timesteps=times, **parts)


def losses_of(adapter, batch, cut=None, mix=None, **settings):
    backend = tiny_backend()
    config = TrainingConfig(**{"eta": 1.0, "lambda_llm": 1e-3, "lambda_cp": 1e-3, "dropout": 0.0, **settings})
    given = config, backend.widths, 20
    objective = Objective(*given) if cut is None else AuthorsObjective(*given, cut=cut, mix=mix)
    return objective(adapter, batch, backend)


def test_the_cut_takes_equation_8s_gradient_and_nothing_else():
    adapter, batch = trainable({"clip_l": 32}, dropout=0.0), batch_of(3)
    ours, theirs = losses_of(adapter, batch), losses_of(adapter, batch, cut=True, mix=False)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert ours.simple.requires_grad and not theirs.simple.requires_grad
    expected = torch.autograd.grad((1e-3 * (ours.llm + ours.cp)).sum(), adapter.towers["clip_l"].g.weight)
    found = torch.autograd.grad(theirs.total.sum(), adapter.towers["clip_l"].g.weight)
    torch.testing.assert_close(found, expected)


def test_mixing_reads_the_batch_as_the_sequence_in_training_only():
    adapter = trainable({"clip_l": 32}, dropout=0.0, token_mixing="none")
    both, alone = batch_of(3), batch_of(3)
    alone.simple = alone.simple.clone()
    alone.simple[1:] += 1.0
    mixed = [losses_of(adapter, batch, cut=False, mix=True).llm[0].item() for batch in (both, alone)]
    apart = [losses_of(adapter, batch).llm[0].item() for batch in (both, alone)]
    assert mixed[0] != mixed[1], "a sample's loss depends on the others"
    assert apart[0] == pytest.approx(apart[1], rel=1e-6)
    adapter.eval()
    validated = losses_of(adapter, both, cut=False, mix=True)
    torch.testing.assert_close(validated.llm, losses_of(adapter, both).llm)


def test_mixing_refuses_dropout():
    with pytest.raises(ValueError, match="dropout 0, found 0.1"):
        losses_of(trainable({"clip_l": 32}), batch_of(2), cut=False, mix=True, dropout=0.1)
