"""The commit that a number was made with: a + says that something else ran."""

from __future__ import annotations

import subprocess

import pytest

from tracking import environment as module
from tracking.environment import environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name in ("run.py", "README.md", "docs/results.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("as committed\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "marked"), [(None, False), ("docs/results.md", False), ("README.md", False), ("new.txt", False), ("run.py", True)]
)
def test_only_another_program_is_marked(checkout, changed, marked):
    if changed:
        (checkout / changed).write_text("otherwise\n")
    commit = environment()["commit"]
    assert commit.endswith("+") == marked
    assert len(commit) >= 7


def test_without_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert "commit" not in environment()
