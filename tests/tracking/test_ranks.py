from __future__ import annotations

import pytest

from tracking.ranks import decided_once


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
