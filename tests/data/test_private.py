"""The one handle to private images: no ledger entry, no pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data.private import PrivateDataset
from data.samples import SampleSet
from privacy.accounting import Accountant
from privacy.ledger import BudgetError, Ledger
from privacy.mechanisms import DeclaredPublic, DiscreteGaussian, Spend
from tests.rejects import ANY, rejects

VOTES = DiscreteGaussian(1.5)
LABELS = np.array([0, 2, 2, 0, 2], np.int64)


class Handle:
    """A private dataset whose loads are recorded: each with the purposes that were on disk at that moment."""

    def __init__(self, folder, size: int = len(LABELS)):
        self.path, self.on_disk_at_load = folder / "ledger.jsonl", []  # type: ignore[var-annotated]
        plan = [Spend("votes", VOTES, 2), Spend("class_counts", DeclaredPublic())]
        ledger = Ledger(self.path, plan, 1e-5, Accountant.pld)
        self.private = PrivateDataset(self.load, size, 4, ledger)

    def load(self) -> SampleSet:
        self.on_disk_at_load.append([json.loads(line)["purpose"] for line in self.path.read_text().splitlines()])
        return SampleSet(np.zeros((5, 8, 8, 1), np.uint8), LABELS, 4)


def test_public_facts_load_nothing(tmp_path):
    handle = Handle(tmp_path)
    assert (handle.private.size, handle.private.num_classes) == (5, 4)
    assert handle.on_disk_at_load == []


def test_images_load_once_and_after_their_entry_is_on_disk(tmp_path):
    handle = Handle(tmp_path)
    assert len(handle.private.spend("votes/round=1", VOTES)) == 5
    handle.private.spend("votes/round=2", VOTES)
    assert handle.on_disk_at_load == [["votes/round=1"]]


def test_a_refused_spend_loads_nothing(tmp_path):
    handle = Handle(tmp_path)
    with pytest.raises(BudgetError):
        handle.private.spend("peek", VOTES)
    with pytest.raises(BudgetError):
        handle.private.spend("votes/round=1", DiscreteGaussian(0.1))
    assert handle.on_disk_at_load == []


def test_a_wrongly_declared_size_is_refused(tmp_path):
    with rejects("dataset", ANY, " 6 images"):
        Handle(tmp_path, size=6).private.spend("votes/round=1", VOTES)


def test_the_class_histogram_counts_every_class_and_is_spent_for(tmp_path):
    handle = Handle(tmp_path)
    counts, parts = handle.private.class_histogram("class_counts", DeclaredPublic())
    assert (counts.tolist(), parts) == ([2, 0, 3, 0], 1)
    assert handle.on_disk_at_load == [["class_counts"]]
