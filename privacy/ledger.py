"""The ledger: every private touch is written down, and synced to disk, before its noise is drawn.

The certificate's epsilon is the composition of these entries, never the target copied over.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disk import sync_folder
from errors import unusable_file
from privacy.accounting import Accountant, compose_epsilon
from privacy.config import caution
from privacy.mechanisms import Mechanism, NonPrivate, Spend, Unit
from privacy.risk import risk


class BudgetError(RuntimeError):
    """A private touch that the plan does not hold, or the same touch twice."""


class Ledger:
    """Entries in a JSON-lines file, checked against the plan that the user was shown.

    A purpose ends in `/name=index` where it repeats ("pe.votes/round=3"); the plan names it without ("pe.votes"). An entry
    that an interrupted start already wrote is not counted again: its noise is the same noise (see `privacy.noise`).
    """

    def __init__(self, path: Path, plan: Sequence[Spend], delta: float, accountant: Accountant):
        self._path, self._plan = path, {spend.purpose: spend for spend in plan}
        self.delta, self.accountant = delta, accountant
        self._touched: set[str] = set()
        self._entries = read_entries(path)
        self._uses: Counter[str] = Counter()
        for spend in aggregate(self._entries):
            self._uses[spend.purpose] += spend.count
        if path.exists():
            self._rewrite()

    def spend(self, purpose: str, mechanism: Mechanism, count: int = 1) -> None:
        """Write `count` uses of `mechanism` down; returns once they are on disk. BudgetError where they are not in the plan."""
        planned = self._plan.get(purpose.split("/")[0])
        if planned is None or planned.mechanism != mechanism:
            raise BudgetError(f"purpose={purpose} with {mechanism} is not in the plan: {planned}")
        if purpose in self._touched:
            raise BudgetError(f"purpose={purpose} is spent already in this run")
        self._touched.add(purpose)
        entry = Spend(purpose, mechanism, count)
        if purpose in self._entries:
            if self._entries[purpose] != entry:
                raise BudgetError(f"purpose={purpose} was spent as {self._entries[purpose]}, not as {entry}")
            return
        if self._uses[planned.purpose] + count > planned.count:
            raise BudgetError(f"purpose={purpose}: all {planned.count} planned uses are spent")
        self._entries[purpose] = entry
        self._uses[planned.purpose] += count
        first = not self._path.exists()
        with self._path.open("a") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())
        if first:
            sync_folder(self._path.parent)

    def require_all_spent(self) -> None:
        """BudgetError where a planned purpose was never spent: the method may have read without it. Fewer uses are fine."""
        missing = [purpose for purpose in self._plan if not self._uses[purpose]]
        if missing:
            raise BudgetError(f"purpose={', '.join(missing)} is planned and was not spent, so nothing is released")

    @property
    def spends(self) -> list[Spend]:
        """What has been spent so far, in order, equal purposes counted together."""
        return aggregate(self._entries)

    @property
    def epsilon(self) -> float:
        return compose_epsilon(self.spends, self.delta, self.accountant)

    @property
    def holds_private_data(self) -> bool:
        """Whether something was read without noise, so that nothing made from it may be released."""
        return any(isinstance(entry.mechanism, NonPrivate) for entry in self._entries.values())

    def _rewrite(self) -> None:
        """Drop a torn last line, atomically."""
        fresh = self._path.with_suffix(".partial")
        with fresh.open("w") as file:
            file.writelines(map(_line, self._entries.values()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
        sync_folder(self._path.parent)


def _line(entry: Spend) -> str:
    """Of the file; one use goes without its count."""
    count = {"count": entry.count} if entry.count > 1 else {}
    return json.dumps({"purpose": entry.purpose, **count, **entry.mechanism.to_dict()}) + "\n"


def read_entries(path: Path) -> dict[str, Spend]:
    """By purpose, what the ledger at `path` holds; nothing where there is none. InputError where it is damaged."""
    entries: dict[str, Spend] = {}
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = {"count": 1, **json.loads(line)}
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise unusable_file(path, f"line {number} is damaged, so what was spent is not known") from error
            break  # the last line of a killed start: its noise was never drawn
        entries[entry["purpose"]] = Spend.from_dict(entry)
    return entries


def aggregate(entries: dict[str, Spend]) -> list[Spend]:
    """Equal purposes counted together, in order."""
    counts: Counter[tuple[str, Mechanism]] = Counter()
    for entry in entries.values():
        counts[entry.purpose.split("/")[0], entry.mechanism] += entry.count
    return [Spend(purpose, mechanism, count) for (purpose, mechanism), count in counts.items()]


def certificate(
    ledger: Ledger,
    *,
    identity: str,
    size: int,
    unit: Unit = Unit.image,
    noise_seed: int | None,
    assumptions: Sequence[str],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """What is written beside a release: the privacy it has, what was spent, and what that rests on.

    `identity`: hexadecimal and random, so that its spends count once wherever they turn up again (see `privacy.inherited`);
    `size`: of units.
    """
    reasons = []
    if noise_seed is not None:
        reasons.append(f"privacy.noise_seed={noise_seed}: anyone who knows the seed can compute the noise")
    if ledger.holds_private_data:
        reasons.append("the private images were used without noise")
    epsilon = ledger.epsilon
    if not math.isfinite(epsilon) and not ledger.holds_private_data:
        reasons.append(f"epsilon is infinite at delta={ledger.delta:g}")
    warning = caution(ledger.delta, size, unit)
    return {
        "id": identity,
        "private": not reasons,
        **({"reason": "; ".join(reasons)} if reasons else {}),
        **({"caution": warning} if warning else {}),
        "epsilon": epsilon if math.isfinite(epsilon) else "inf",
        "delta": ledger.delta,
        "unit": unit.value,
        "neighbouring": unit.neighbouring,
        "accountant": ledger.accountant.value,
        "mechanisms": [spend.to_dict() for spend in ledger.spends],
        **({} if reasons else {"risk": risk(ledger.spends, ledger.delta)}),
        "public_by_assumption": list(assumptions),
        **provenance,
    }
