from __future__ import annotations

import pytest

from tests.command import ROOT, in_processes
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
    done = in_processes(2, str(script))
    assert done.code == 0, done.err
    assert done.out.count("together") == 4  # of two processes that write at once, lines may join


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
