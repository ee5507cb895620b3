"""What a method takes: the parts add up to the whole, and a killed run goes on counting."""

from __future__ import annotations

import time

import pytest

import tracking.meter
from tracking.meter import CPU_SECONDS, MEMORY, PART, SECONDS, Meter


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """One that the test moves, by the clock and of the processor alike."""

    class Clock:
        now = 1000.0

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "process_time", lambda: clock.now / 2)
    monkeypatch.setattr(tracking.meter, "peak_gib", lambda: clock.now / 1000)
    return clock


def times(meter: Meter) -> dict[str, float]:
    return {key.removeprefix(PART): value for key, value in meter.taken().items() if key != MEMORY}


def test_parts_and_the_rest_add_up_to_the_whole(tmp_path, clock):
    meter = Meter(tmp_path / "meter.json")
    clock.sleep(1)
    for seconds in (2, 4):
        with meter.part("votes"):
            clock.sleep(seconds)
    with meter.part("random"):
        clock.sleep(8)
    clock.sleep(16)
    assert times(meter) == {SECONDS: 31, CPU_SECONDS: 15.5, "votes": 6, "random": 8, "other": 17}


def test_without_parts_there_is_no_rest(tmp_path, clock):
    meter = Meter(tmp_path / "meter.json")
    clock.sleep(3)
    assert times(meter) == {SECONDS: 3, CPU_SECONDS: 1.5}


def test_the_time_of_a_part_is_not_that_of_a_part_around_it(tmp_path, clock):
    meter = Meter(tmp_path / "meter.json")
    with meter.part("outer"):
        clock.sleep(1)
        with meter.part("inner"):
            clock.sleep(2)
        clock.sleep(4)
    assert times(meter) == {SECONDS: 7, CPU_SECONDS: 3.5, "outer": 5, "inner": 2, "other": 0}


def test_a_part_that_breaks_was_taken_all_the_same(tmp_path, clock):
    def breaks():
        with Meter(tmp_path / "meter.json").part("random"):
            clock.sleep(7200)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        breaks()
    assert times(Meter(tmp_path / "meter.json"))["random"] == 7200


def test_what_is_done_with_items_is_not_what_it_takes_to_make_them(tmp_path, clock):
    def items():
        for item in "abc":
            clock.sleep(1)
            yield item
        clock.sleep(1)

    meter, seen = Meter(tmp_path / "meter.json"), []
    for item in meter.each("made", items()):
        with meter.part("used"):
            clock.sleep(10)
        seen.append(item)
    assert seen == ["a", "b", "c"]
    assert times(meter) == {SECONDS: 34, CPU_SECONDS: 17, "made": 4, "used": 30, "other": 0}


def test_a_killed_run_goes_on_counting_and_forgets_a_second_at_most(tmp_path, clock):
    killed = Meter(tmp_path / "meter.json")
    training = killed.part("training")
    training.__enter__()
    for _ in range(100):
        clock.sleep(0.75)
        killed.save()
    clock.sleep(3600)  # nobody works on it
    resumed = Meter(tmp_path / "meter.json")
    with resumed.part("training"):
        clock.sleep(10)
    with resumed.part("sampling"):
        clock.sleep(5)
    found = times(resumed)
    assert found[SECONDS] == found["training"] + found["sampling"] + found["other"]
    assert 75 - 1 <= found["training"] - 10 <= 75
    assert (found["sampling"], found["other"]) == (5, 0)


def test_memory_is_the_most_of_all_its_processes(tmp_path, clock, monkeypatch):
    killed = Meter(tmp_path / "meter.json")
    clock.sleep(2)
    killed.save()
    monkeypatch.setattr(tracking.meter, "peak_gib", lambda: 0.5)
    assert Meter(tmp_path / "meter.json").taken()[MEMORY] == 1.0
