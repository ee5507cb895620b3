"""The noise keys of a finished run are deleted, wherever they lie; a run that needs its key keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import forget_key
from store.run_dir import RunDir
from tests.rejects import rejects


@pytest.mark.parametrize("name", ["run", f"{16 * 'a'}-{8 * 'b'}"])
def test_all_keys_of_a_release_go_and_nothing_else(name, tmp_path):
    run = RunDir(tmp_path / "store" / name)
    (tmp_path / "0").symlink_to(run.path)
    inner = run.making.internal / "runs" / "1" / "internal"
    inner.mkdir(parents=True)
    keys = [run.noise_key, inner / "noise.key"]
    for place in (*keys, run.ledger):
        place.write_text("x")
    other = tmp_path / "store" / "other" / "internal" / "noise.key"
    other.parent.mkdir(parents=True)
    other.write_text("x")
    with rejects("run", str(tmp_path / "0"), "no release yet"):
        forget_key.main([f"run={tmp_path / '0'}"])
    run.release.mkdir()
    forget_key.main([f"run={tmp_path / '0'}"])
    assert not any(key.exists() for key in keys)
    assert run.ledger.exists()
    assert other.exists()
    forget_key.main([f"run={Path(tmp_path / '0')}"])
