"""What builds of the small world's models rest on: the loop, streams of scenes, what is kept, processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from small_world.making import pictures, processes
from small_world.making.kept import digest, kept
from small_world.making.loop import Plan, generator, raise_model
from small_world.making.pictures import Pool
from small_world.render import render
from small_world.scenes import TYPES

CPU = torch.device("cpu")


def silent(*_) -> None:
    pass


class Interrupted(Exception):
    pass


def test_what_a_step_draws_depends_on_seed_and_step_alone():
    def draw(seed, step):
        return torch.rand(4, generator=generator(seed, step)).tolist()

    torch.manual_seed(3)
    first = draw(1, 7)
    torch.manual_seed(4)
    assert first == draw(1, 7)
    assert len({tuple(draw(seed, step)) for seed in range(6) for step in range(50)}) == 300


def test_the_rate_warms_up_and_ends_at_zero():
    plan = Plan(steps=100, batch_size=1, learning_rate=1.0, warmup=10)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[9] == pytest.approx(1.0) and 0 < rates[-1] < 1e-3
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_training_makes_a_loss_fall(tmp_path):
    model = torch.nn.Linear(4, 1)
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    target, losses = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]), []

    def loss_of(step, random):
        rows = torch.randint(64, (16,), generator=random)
        loss = (model(inputs[rows]) - target[rows]).square().mean()
        losses.append(loss.item())
        return loss

    raise_model("x", model, loss_of, Plan(200, 16, 5e-2, warmup=5), tmp_path / "x.pt", silent, CPU)
    assert losses[-1] < 0.05 * losses[0]
    assert (tmp_path / "x.log").read_text().count("step") == 4


def test_a_stream_of_scenes_is_a_function_of_its_number(tmp_path):
    pool = Pool(stream=3, count=6)
    first = np.array(pool.pictures(tmp_path / "a", silent))
    assert np.array_equal(first, pool.pictures(tmp_path / "b", silent))
    assert np.array_equal(first[:4], Pool(3, 4).pictures(tmp_path / "b", silent))
    assert not np.array_equal(first, Pool(4, 6).pictures(tmp_path / "b", silent))
    assert np.array_equal(first[5], render(pool.scene(5)))


def test_a_pool_has_the_shares_it_says():
    shares = {"counting": 2, "color": 5, "action": 1}
    for pool, whole in ((Pool(1, 36), dict(pictures.EVEN)), (Pool(1, 80, shares), shares)):
        types = [pool.scene(index).meaning.type for index in range(pool.count)]
        rounds = pool.count // sum(whole.values())
        assert {type: types.count(type) for type in TYPES} == {k: v * rounds for k, v in whole.items()}


def test_a_pools_name_changes_with_what_is_drawn(monkeypatch):
    pools = Pool(1, 8), Pool(1, 9), Pool(2, 8), Pool(1, 8, {"counting": 1, "color": 1, "action": 1})
    assert len({pool.name() for pool in pools}) == 4 and pools[0].name() == Pool(1, 8).name()
    before = pools[0].name()
    monkeypatch.setattr(pictures, "render", lambda scene: render(scene) ^ 1)
    assert pools[0].name() != before


def test_a_digest_tells_parts_apart():
    parts = [
        torch.zeros(2),
        torch.zeros(1, 2),
        np.zeros(2, np.int8),
        {"a": torch.zeros(2)},
        {"b": torch.zeros(2)},
        {"a": 1},
        ["a", 1],
        0.5,
        "0.5",
    ]
    assert len({digest(part) for part in parts}) == len(parts)
    assert digest(*parts) == digest(*parts) and digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_an_array_is_made_once_and_whole(tmp_path):
    path = tmp_path / "folder/array.npy"

    def broken():
        yield np.ones((2, 3), np.float32)
        raise Interrupted

    with pytest.raises(Interrupted):
        kept(path, broken, (4, 3), np.float32)
    assert not path.exists()
    pieces = [np.full((2, 3), value, np.float32) for value in (1, 2)]
    for parts in (lambda: pieces, broken):
        assert np.array_equal(kept(path, parts, (4, 3), np.float32), np.concatenate(pieces))


@pytest.mark.parametrize(
    ("cores", "sizes", "expected"), [(1, [64], 1), (6, [64], 4), (6, [64, 48], 4), (3, [9, 6], 3)]
)
def test_every_process_has_an_equal_share(cores, sizes, expected, monkeypatch):
    monkeypatch.setattr(processes.os, "cpu_count", lambda: cores)
    assert processes.workers(sizes) == expected


def test_where_processes_cannot_talk_nothing_is_done_and_it_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    assert not processes.in_processes(2, Path.touch, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert "cannot talk to one another" in caplog.text


def test_what_is_raised_in_a_process_is_told(tmp_path):
    with pytest.raises(processes.ProcessRaisedException, match="FileExistsError"):
        processes.in_processes(2, Path.mkdir, tmp_path)
