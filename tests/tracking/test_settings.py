"""What differs among settings, and what is enough to tell them apart."""

from __future__ import annotations

from tracking.settings import differing, telling


def test_a_key_that_is_not_there_is_as_null():
    assert differing([{"a": 1, "b": None}, {"a": 1}]) == []
    assert differing([{"a": 1, "b": 2}, {"a": 2}]) == ["a", "b"]


def test_no_key_is_told_that_adds_nothing_and_names_come_before_numbers():
    settings = [{"rate": 0.1, "adapter": "loda", "rank": 4}, {"rate": 0.2, "adapter": "lora", "rank": 4}]
    assert telling(settings) == ["adapter"]
    assert telling([*settings, {**settings[0], "rank": 8}]) == ["adapter", "rank"]
    assert telling(settings[:1] * 2) == []


def test_all_settings_that_differ_are_told_apart():
    settings = [{"a": a, "b": b, "c": a * b} for a in (1, 2) for b in (2, 3)]
    keys = telling(settings)
    assert len({tuple(one[key] for key in keys) for one in settings}) == len(settings)
