from __future__ import annotations

import pytest

from scripts.paper.runs import Measured
from tests.scripts.paper.fake import fake


@pytest.fixture
def found(tmp_path) -> dict[str, list[Measured]]:
    runs = []
    for i, (epsilon, seed, accuracy) in enumerate([(1.0, 0, 0.5), (1.0, 1, 0.6), (10.0, 0, 0.9)]):
        config = {"privacy": {"epsilon": epsilon}, "seed": seed, "method": {"timestep_mixture": [{"high": 30}]}}
        metrics = {"wrn40_4/accuracy": accuracy, "wrn40_4/accuracy_at=50": accuracy / 2, "fid/train": 10 * epsilon}
        runs.append(fake(tmp_path / str(i), config, {**metrics, "fid/train/class=7": 3.0, "time/method_seconds": 3600}, epsilon))
    return {"loda/table2": runs}
