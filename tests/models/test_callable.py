"""The user's own API: paced, repeated, kept; and a run of Private Evolution on it that is killed and asks for nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.public.callable import RequestedAPI
from tests.command import bytes_of, call, output_of
from tests.rejects import assert_refused, rejects

FLAKY = """
import json, os
from pathlib import Path
import numpy as np

class Flaky:
    def __init__(self):
        self.fail_at = int(os.environ.get("FAIL_AT", "-1"))
        self.log = Path("asked.json")
    def _asked(self, stream):
        asked = json.loads(self.log.read_text()) if self.log.exists() else []
        if "DOWN" in os.environ and len(asked) == 6:
            raise ConnectionError("service down")
        if len(asked) == self.fail_at:
            self.log.write_text(json.dumps([*asked, "failed"]))
            raise KeyboardInterrupt
        self.log.write_text(json.dumps([*asked, stream]))
        return np.random.default_rng(sum(map(ord, stream)))
    def random(self, labels, *, stream):
        return self._asked(stream).integers(0, 256, (len(labels), 8, 8, 1)).astype(np.uint8)
    def variation(self, images, labels, degree, *, stream):
        return np.clip(images + self._asked(stream).normal(0, degree, images.shape), 0, 255).astype(np.uint8)
"""


class API:
    def __init__(self, failures: int = 0, answer: Any = None):
        self.failures, self.answer, self.asked = failures, answer, []  # type: ignore[var-annotated]

    def random(self, labels, *, stream):
        self.asked.append(stream)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("busy")
        return np.full((len(labels), 2, 2, 3), len(self.asked), np.uint8) if self.answer is None else self.answer

    def variation(self, images, labels, degree, *, stream):
        self.asked.append(stream)
        return images + 1


def requested(api: API, **changes: Any) -> tuple[RequestedAPI, list[float]]:
    slept: list[float] = []
    settings = dict(
        factory="mine:api",
        image_shape=(2, 2, 3),
        num_labels=3,
        size=4,
        retries=3,
        retry_seconds=1.0,
        pause=0.0,
        sleep=slept.append,
    )
    return RequestedAPI(api=api, **{**settings, **changes}), slept


def test_a_call_is_split_into_requests_and_counted():
    api, done = API(), []  # type: ignore[var-annotated]
    images = requested(api)[0].random(np.zeros(10, np.int64), stream="a", advance=done.append)
    assert api.asked == ["a/0", "a/4", "a/8"]
    assert images[:, 0, 0, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 2
    assert done == [4, 4, 2]


def test_a_failed_request_is_made_again_after_longer_and_longer_pauses():
    api = API(failures=3)
    wrapped, slept = requested(api)
    wrapped.random(np.zeros(4, np.int64), stream="a")
    assert [seconds for seconds in slept if seconds] == [1, 2, 4]
    assert api.asked == ["a/0"] * 4


def test_a_service_that_stays_down_ends_the_run_in_one_line():
    with pytest.raises(SystemExit, match=r"^request a/0 failed 4 times: busy; the same command goes on$"):
        requested(API(failures=4))[0].random(np.zeros(4, np.int64), stream="a")


def test_a_mistake_is_not_tried_again_and_its_line_is_named():
    class Mistaken(API):
        def random(self, labels, *, stream):
            self.asked.append(stream)
            return len(None)  # type: ignore[arg-type]

    api = Mistaken()
    with rejects("model.factory", "mine:api", "TypeError: ", "NoneType", "(test_callable.py:"):
        requested(api)[0].random(np.zeros(4, np.int64), stream="a")
    assert len(api.asked) == 1


def test_requests_keep_their_distance():
    """A request takes two seconds here; a pause takes as long as it is told to."""
    now = 1000.0

    class Slow(API):
        def random(self, labels, *, stream):
            nonlocal now
            now += 2
            return super().random(labels, stream=stream)

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    slept: list[float] = []
    wrapped = requested(Slow(), pause=10.0, sleep=sleep, clock=lambda: now)[0]
    wrapped.random(np.zeros(12, np.int64), stream="a")
    assert slept == [0, 8, 8]


def test_what_was_answered_is_not_asked_again_and_another_question_is(tmp_path):
    labels, images = np.zeros(6, np.int64), np.zeros((6, 2, 2, 3), np.uint8)
    first = requested(API(), kept=tmp_path)[0].variation(images, labels, 3, stream="a")
    api = API()
    again = requested(api, kept=tmp_path)[0]
    assert np.array_equal(again.variation(images, labels, 3, stream="a"), first)
    assert not api.asked
    again.variation(images, labels, 4, stream="a")
    again.variation(images + 1, labels, 3, stream="a")
    again.variation(images, labels, 3, stream="b")
    assert len(api.asked) == 6


@pytest.mark.parametrize("answer", [np.zeros((4, 2, 2, 3)), np.zeros((4, 3, 3, 3), np.uint8), np.zeros((3, 2, 2, 3), np.uint8)])
def test_a_wrong_answer_is_named(answer):
    api = API(answer=answer)
    with rejects("model.factory", "mine:api", "a/0"):
        requested(api)[0].random(np.zeros(4, np.int64), stream="a")
    assert len(api.asked) == 4


def test_an_answer_that_is_too_short_is_asked_for_again():
    class Short(API):
        def random(self, labels, *, stream):
            return super().random(labels[1:] if len(self.asked) < 2 else labels, stream=stream)

    api = Short()
    assert requested(api)[0].random(np.zeros(4, np.int64), stream="a").shape == (4, 2, 2, 3)
    assert len(api.asked) == 3


RUN = ["model=callable", "model.factory=flaky:Flaky", "model.image_size=8", "model.image_channels=1", "model.labels=10"]
RUN += ["model.request_size=5", "method.num_samples=20", "method.iterations=1", "method.variation_degrees=[3]"]
RUN += ["method.lookahead=2", "method.embedding=pixels", "method.expansions=0", "eval=none", "device=cpu", "privacy.noise_seed=1"]
RUN += ["privacy.epsilon=null", "privacy.noise_multiplier=3"]


@pytest.mark.usefixtures("here")
def test_private_evolution_on_an_api_that_dies_asks_for_nothing_twice(tmp_path, monkeypatch):
    Path("flaky.py").write_text(FLAKY)
    monkeypatch.setenv("FAIL_AT", "7")
    with pytest.raises(KeyboardInterrupt):
        call(*RUN)
    monkeypatch.setenv("FAIL_AT", "-1")
    assert (result := call(*RUN)).code == 0, result.err
    asked = json.loads(Path("asked.json").read_text())
    assert len(asked) == 1 + 4 * (1 + 2 + 1)
    assert len(set(asked)) == len(asked)
    Path("asked.json").unlink()
    assert call(*RUN, "hydra.run.dir=whole").code == 0
    assert bytes_of(output_of(Path("run"))) == bytes_of(output_of(Path("whole")))


@pytest.mark.usefixtures("here")
def test_a_run_whose_service_is_down_keeps_what_it_has_and_goes_on(monkeypatch):
    Path("flaky.py").write_text(FLAKY)
    monkeypatch.setenv("DOWN", "1")
    run = [*RUN, "model.retries=1", "model.retry_seconds=0"]
    result = call(*run)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(
        "request pe/round=1/lookahead=0/degree=3.0/10 failed 2 times: service down; the"
    )
    assert "Traceback" not in result.err
    monkeypatch.delenv("DOWN")
    assert (result := call(*run)).code == 0, result.err
    asked = json.loads(Path("asked.json").read_text())
    assert len(set(asked)) == len(asked) == 4 * (1 + 2 + 1)


@pytest.mark.usefixtures("here")
def test_a_plan_knows_nothing_of_the_services_network():
    intrinsic = ["eval.intrinsic_dimension.enabled=true", "eval.intrinsic_dimension.degrees=[3]"]
    intrinsic += ["eval.intrinsic_dimension.start=samples", "eval.intrinsic_dimension.embedding=pixels"]
    plan = json.loads(call(*RUN, *intrinsic, "plan_only=true").out)
    assert plan["model"]["parameters"] is plan["work"]["flops"] is plan["work"]["seconds"] is None
    assert plan["work"]["network_calls"] == 20 * (1 + 2 + 1)
    assert plan["evaluation"]["intrinsic_dimension"]["seconds"] is None


FACTORIES = """
value = 5
def needs(x): ...
def raises():
    raise RuntimeError("no API\\nkey")
def leaves():
    raise SystemExit(3)
"""


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("factory", "word"),
    [
        ("factories:value", "TypeError: 'int' object is not callable"),
        ("factories:needs", "needs() missing 1 required positional argument"),
        ("factories:raises", "RuntimeError: no API key (factories.py:5)"),
        ("factories:leaves", "SystemExit: 3 (factories.py:7)"),
        ("wrong:f", "SyntaxError: "),
        ("boom:f", "ZeroDivisionError: division by zero (boom.py:2)"),
        (":f", "module:function"),
        ("factories:", "module:function"),
        (".factories:f", "module:function"),
    ],
)
def test_a_factory_that_gives_nothing_is_one_line(factory, word):
    for name, text in {"factories": FACTORIES, "wrong": "def f(:", "boom": "\n1 / 0"}.items():
        Path(f"{name}.py").write_text(text)
    result = call(*RUN, f"model.factory='{factory}'")
    assert_refused(result, f"model.factory={factory}", word)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("override", "setting", "word"),
    [
        ("model.factory=nowhere:x", "model.factory=nowhere:x", "nowhere"),
        ("model.factory=json:loads_not", "model.factory=json:loads_not", "loads_not"),
        ("model.factory=builtins:dict", "model.factory=builtins:dict", "random"),
        ("model.factory=flaky", "model.factory=flaky", "module:function"),
        ("model.request_size=0", "model.request_size=0", ""),
        ("model.requests_per_minute=0", "model.requests_per_minute=0.0", ""),
        ("method.respacings=[ddim10]", "method.respacings=ddim10", "model=callable"),
    ],
)
def test_wrong_settings_are_one_line(override, setting, word):
    assert_refused(call(*RUN, override), setting, word)
