from __future__ import annotations

import pytest

from tests.command import ROOT, by_torchrun, in_processes
from tracking import ranks
from tracking.ranks import decided_once

LATE = """
import time
from datetime import timedelta

import torch
import torch.distributed.distributed_c10d as groups

from tracking import ranks

groups.default_pg_timeout = timedelta(seconds=2)  # of the group, in place of half an hour
for late in (6, 0):
    time.sleep(late if ranks.rank() == 0 else 0)
    ranks.start(torch.device("cpu"))
    assert ranks.world() == 2
    print("together" if ranks.broadcast(ranks.rank()) == 0 else "apart")
    ranks.stop()
"""


def test_rank_0_may_come_later_than_a_group_waits(tmp_path, monkeypatch):
    script = tmp_path / "late.py"
    script.write_text(LATE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = by_torchrun(2, str(script))  # whose agent has the store: without one, the others would wait for rank 0 to open it
    assert done.code == 0, done.err
    assert done.out.count("together") == 4  # of two processes that write at once, lines may join


TWO_NODES = """
import sys
from pathlib import Path

import torch

from tracking import ranks

folder = Path(sys.argv[1])
own = folder / str(ranks.rank())
own.mkdir()
ranks.start(torch.device("cpu"))
assert ranks.nodes() == ranks.world() == 2
assert ranks.share_disk(folder)
assert ranks.differing(lambda: {"same": 1, "its own": ranks.rank()}) == ["its own"]
ranks.ARRIVES = 0.0
assert not ranks.share_disk(own)
ranks.stop()
"""


def test_nodes_know_what_they_share(tmp_path):
    script = tmp_path / "two_nodes.py"
    script.write_text(TWO_NODES)
    done = in_processes(2, str(script), str(tmp_path), nodes=2)
    assert done.code == 0, done.err


def test_one_node_has_nothing_to_compare(tmp_path):
    assert ranks.differing(lambda: pytest.fail("asked for nothing")) == []
    assert ranks.share_disk(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_decided_once_is_not_decided_again(tmp_path):
    answers = iter([3, 4])
    decided = [decided_once(tmp_path / "steps.json", lambda: next(answers)) for _ in range(2)]
    assert decided == [3, 3]
    assert next(answers) == 4


def test_a_decision_that_failed_is_taken_again(tmp_path):
    def fails() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decided_once(tmp_path / "steps.json", fails)
    assert decided_once(tmp_path / "steps.json", lambda: 5) == 5
