"""The ledger: written before it is spent, never beyond the plan, never twice; the certificate is what the entries cost."""

from __future__ import annotations

import json
import math
import os

import pytest

from privacy.accounting import Accountant, compose_epsilon
from privacy.gaussian import gaussian_epsilon
from privacy.ledger import BudgetError, Ledger, certificate
from privacy.mechanisms import (
    DeclaredPublic,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    Mechanism,
    NonPrivate,
    SampledGaussian,
    Spend,
)
from privacy.risk import risk

SIGMA, DELTA = Gaussian(2.0), 1e-5
MECHANISMS = [SIGMA, DiscreteGaussian(1.5), SampledGaussian(1.0, 0.1), DiscreteLaplace(0.5), DeclaredPublic(), NonPrivate()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


def votes_ledger(path, mechanism: Mechanism = SIGMA, rounds: int = 5) -> Ledger:
    return Ledger(path, [Spend("pe.votes", mechanism, rounds)], DELTA, Accountant.pld)


def certify(ledger: Ledger, noise_seed: int | None = None) -> dict:
    document = certificate(
        ledger, identity="ab12", size=10, noise_seed=noise_seed, assumptions=["size: 10"], provenance={"method": "pe"}
    )
    return json.loads(json.dumps(document, allow_nan=False))


def test_an_entry_is_on_disk_before_spend_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_text()))
    votes_ledger(path).spend("pe.votes/round=1", SIGMA)
    assert synced == 2 * ['{"purpose": "pe.votes/round=1", "mechanism": "gaussian", "noise_multiplier": 2.0}\n']  # file, folder


def test_a_planned_purpose_that_was_never_spent_is_told(path):
    ledger = votes_ledger(path, rounds=2)
    with pytest.raises(BudgetError, match=r"purpose=pe\.votes"):
        ledger.require_all_spent()
    ledger.spend("pe.votes/round=1", SIGMA)
    ledger.require_all_spent()
    votes_ledger(path, rounds=2).require_all_spent()  # after a kill, from a checkpoint: it is not spent again


def test_many_uses_may_be_one_entry_which_reads_back(path):
    votes_ledger(path).spend("pe.votes", SIGMA, count=4)
    assert len(path.read_text().splitlines()) == 1
    again = votes_ledger(path)
    assert again.spends == [Spend("pe.votes", SIGMA, 4)]
    again.spend("pe.votes", SIGMA, count=4)  # the same start again
    assert again.spends == [Spend("pe.votes", SIGMA, 4)]
    with pytest.raises(BudgetError, match="all 5 planned uses are spent"):
        again.spend("pe.votes/round=5", SIGMA, count=2)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.kind)
def test_every_mechanism_reads_back(path, mechanism):
    votes_ledger(path, mechanism).spend("pe.votes/round=1", mechanism)
    assert votes_ledger(path, mechanism).spends == [Spend("pe.votes", mechanism, 1)]


@pytest.mark.parametrize(
    ("purpose", "mechanism"), [("fid", SIGMA), ("pe.votes", Gaussian(1.0)), ("pe.votes", DiscreteGaussian(2.0))]
)
def test_what_is_not_in_the_plan_is_refused_and_not_written(path, purpose, mechanism):
    with pytest.raises(BudgetError, match=f"purpose={purpose} .* not in the plan"):
        votes_ledger(path).spend(purpose, mechanism)
    assert not path.exists()


def test_more_than_the_plan_is_refused_and_not_written(path):
    ledger = votes_ledger(path, rounds=2)
    ledger.spend("pe.votes/round=1", SIGMA)
    ledger.spend("pe.votes/round=2", SIGMA)
    with pytest.raises(BudgetError, match="all 2 planned uses are spent"):
        ledger.spend("pe.votes/round=3", SIGMA)
    assert len(path.read_text().splitlines()) == 2


def test_one_process_cannot_spend_the_same_purpose_twice(path):
    ledger = votes_ledger(path)
    ledger.spend("pe.votes/round=1", SIGMA)
    with pytest.raises(BudgetError, match="spent already"):
        ledger.spend("pe.votes/round=1", SIGMA)


def test_a_resumed_run_does_not_count_the_same_purpose_again(path):
    votes_ledger(path).spend("pe.votes/round=1", SIGMA)
    resumed = votes_ledger(path)
    before = path.read_text()
    resumed.spend("pe.votes/round=1", SIGMA)
    assert path.read_text() == before
    resumed.spend("pe.votes/round=2", SIGMA)
    assert resumed.spends == votes_ledger(path).spends == [Spend("pe.votes", SIGMA, 2)]


def test_a_resumed_run_cannot_spend_beyond_the_plan(path):
    votes_ledger(path, rounds=1).spend("pe.votes/round=1", SIGMA)
    with pytest.raises(BudgetError, match="all 1 planned"):
        votes_ledger(path, rounds=1).spend("pe.votes/round=2", SIGMA)


def test_a_resumed_run_cannot_change_the_noise(path):
    votes_ledger(path).spend("pe.votes/round=1", SIGMA)
    with pytest.raises(BudgetError, match="was spent as"):
        votes_ledger(path, Gaussian(3.0)).spend("pe.votes/round=1", Gaussian(3.0))


def test_a_torn_last_line_is_dropped_and_spent_again(path):
    ledger = votes_ledger(path)
    ledger.spend("pe.votes/round=1", SIGMA)
    ledger.spend("pe.votes/round=2", SIGMA)
    path.write_text(path.read_text()[:-20])
    resumed = votes_ledger(path)
    assert resumed.spends == [Spend("pe.votes", SIGMA, 1)]
    resumed.spend("pe.votes/round=2", SIGMA)
    assert votes_ledger(path).spends == [Spend("pe.votes", SIGMA, 2)]


def test_an_entry_after_a_torn_first_line_is_not_lost(path):
    path.write_text('{"purpose": "pe.vo')
    votes_ledger(path).spend("pe.votes/round=1", SIGMA)
    assert votes_ledger(path).spends == [Spend("pe.votes", SIGMA, 1)]


def test_a_damaged_line_before_others_never_lowers_epsilon(path):
    ledger = votes_ledger(path)
    for t in (1, 2, 3):
        ledger.spend(f"pe.votes/round={t}", SIGMA)
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first[:-20] + "\n", *others]))
    with pytest.raises((BudgetError, ValueError)):
        votes_ledger(path)


def test_epsilon_is_of_the_entries_and_not_of_the_plan(path):
    ledger = votes_ledger(path, rounds=5)
    assert ledger.epsilon == 0.0
    for t in (1, 2, 3):
        ledger.spend(f"pe.votes/round={t}", SIGMA)
    assert ledger.epsilon == certify(ledger)["epsilon"] == pytest.approx(gaussian_epsilon(2.0, DELTA, rounds=3), rel=1e-12)


@pytest.mark.parametrize("accountant", [Accountant.pld, Accountant.rdp], ids=lambda accountant: accountant.value)
def test_epsilon_composes_unlike_entries_by_the_run_s_accountant(path, accountant):
    plan = [Spend("class_counts", DiscreteLaplace(0.5)), Spend("pe.votes", DiscreteGaussian(1.0), 2)]
    ledger = Ledger(path, plan, DELTA, accountant)
    ledger.spend("class_counts", DiscreteLaplace(0.5))
    ledger.spend("pe.votes/round=1", DiscreteGaussian(1.0))
    ledger.spend("pe.votes/round=2", DiscreteGaussian(1.0))
    assert ledger.spends == plan
    assert ledger.epsilon == compose_epsilon(plan, DELTA, accountant)


def test_the_certificate_states_the_guarantee_and_what_it_rests_on(path):
    ledger = votes_ledger(path)
    ledger.spend("pe.votes/round=1", SIGMA)
    document = certify(ledger)
    assert document.pop("risk") == risk([Spend("pe.votes", SIGMA)], DELTA)
    assert document == {
        "id": "ab12",
        "private": True,
        "epsilon": pytest.approx(gaussian_epsilon(2.0, DELTA)),
        "delta": DELTA,
        "unit": "image",
        "neighbouring": "add or remove one image: an image is replaced by none, and the public number of images stays",
        "accountant": "pld",
        "mechanisms": [{"purpose": "pe.votes", "count": 1, "mechanism": "gaussian", "noise_multiplier": 2.0}],
        "public_by_assumption": ["size: 10"],
        "method": "pe",
    }


@pytest.mark.parametrize("noise_seed", [0, 7])
def test_a_noise_seed_voids_the_certificate(path, noise_seed):
    ledger = votes_ledger(path)
    ledger.spend("pe.votes/round=1", SIGMA)
    document = certify(ledger, noise_seed)
    assert document["private"] is False
    assert f"privacy.noise_seed={noise_seed}" in document["reason"]
    assert "risk" not in document  # it bounds nobody who knows the noise


def test_data_without_noise_void_the_certificate(path):
    ledger = Ledger(path, [Spend("real_data", NonPrivate())], DELTA, Accountant.pld)
    assert not ledger.holds_private_data
    ledger.spend("real_data", NonPrivate())
    document = certify(ledger)
    assert ledger.holds_private_data
    assert document["private"] is False
    assert document["epsilon"] == "inf"
    assert "without noise" in document["reason"]


def test_declared_public_facts_cost_nothing_but_are_certified(path):
    ledger = Ledger(path, [Spend("class_counts", DeclaredPublic())], DELTA, Accountant.pld)
    ledger.spend("class_counts", DeclaredPublic())
    document = certify(ledger)
    assert (document["private"], document["epsilon"]) == (True, 0.0)
    assert document["mechanisms"] == [{"purpose": "class_counts", "count": 1, "mechanism": "declared_public"}]


def test_an_infinite_epsilon_is_not_private(path, monkeypatch):
    monkeypatch.setattr("privacy.ledger.compose_epsilon", lambda spends, delta, accountant: math.inf)
    ledger = Ledger(path, [Spend("pe.votes", DiscreteGaussian(2.0), 2)], 1e-30, Accountant.pld)
    for t in (1, 2):
        ledger.spend(f"pe.votes/round={t}", DiscreteGaussian(2.0))
    document = certificate(ledger, identity="ab12", size=10, noise_seed=None, assumptions=[], provenance={})
    assert (document["private"], document["epsilon"]) == (False, "inf")
    assert "infinite at delta=1e-30" in document["reason"]


@pytest.mark.parametrize(("size", "cautious"), [(1, False), (2, True), (10, True), (1000, True)])
def test_a_delta_that_allows_to_publish_an_image_is_a_caution(path, size, cautious):
    ledger = votes_ledger(path)
    ledger.delta = 0.1
    document = certificate(ledger, identity="ab12", size=size, noise_seed=None, assumptions=[], provenance={})
    assert ("caution" in document) is cautious
