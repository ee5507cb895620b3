"""How a refusal is worded. Other tests assert which setting it is about: see tests/rejects.py."""

from __future__ import annotations

import ast
import pickle
import re
from enum import Enum
from pathlib import Path

import pytest

from conf.help import one_line
from errors import InputError, format_value, naming, reject_unless, require, unusable, unusable_file
from tests.command import ROOT, call

FOLDERS = ("audit", "baselines", "conf", "data", "dp_finetune", "eval", "models", "pe", "pipeline", "privacy", "scripts", "store")
SOURCES = [*ROOT.glob("*.py"), *(file for name in (*FOLDERS, "tracking") for file in Path(ROOT, name).rglob("*.py"))]


class Colour(Enum):
    red = "dark red"


def test_what_holds_says_nothing():
    require(True, "a.b", 1, "2")
    reject_unless(True, "a.b", 1, "it is odd")


@pytest.mark.parametrize(
    ("value", "written"), [(2.0, "2.0"), (None, "null"), (True, "true"), (False, "false"), (Colour.red, "dark red"), ([1], "[1]")]
)
def test_a_value_is_as_users_write_it(value, written):
    assert format_value(value) == written
    with pytest.raises(InputError) as raised:
        require(False, "a.b", value, "above 0 and at most 1")
    assert str(raised.value) == f"a.b must be above 0 and at most 1, not {written}."
    assert (raised.value.key, raised.value.value) == ("a.b", written)


@pytest.mark.parametrize("problem", ["it is not empty", "it is not empty."])
def test_a_problem_is_said_of_the_value(problem):
    with pytest.raises(InputError) as raised:
        reject_unless(False, "a.b", None, problem)
    for error in (raised.value, unusable("a.b", None, problem)):
        assert str(error) == "a.b=null cannot be used: it is not empty."
        assert (error.key, error.value) == ("a.b", "null")


def test_an_error_about_a_file_is_of_no_setting():
    error = unusable_file(Path("a/b.zip"), "it is no readable zip (torn)")
    assert (str(error), error.key, error.value) == ("a/b.zip cannot be used: it is no readable zip (torn).", None, None)


def test_an_error_of_foreign_code_is_one_line_about_the_setting():
    with pytest.raises(InputError) as raised, naming("a.b", "x"):
        raise ValueError("torn\n  at byte 3.")
    assert str(raised.value) == "a.b=x cannot be used: torn at byte 3."
    assert (raised.value.key, raised.value.value) == ("a.b", "x")
    inner = InputError("of something else")
    with pytest.raises(InputError) as raised, naming("a.b", "x"):
        raise inner
    assert raised.value is inner
    assert (inner.key, inner.value) == (None, None)


def test_an_error_crosses_processes_with_its_setting():
    again = pickle.loads(pickle.dumps(unusable("a.b", 1, "it is odd")))
    assert (str(again), again.key, again.value) == ("a.b=1 cannot be used: it is odd.", "a.b", "1")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("dataset.fraction=2", "dataset.fraction must be above 0 and at most 1, not 2.0."),
        ("method.num_samples=15", "method.num_samples must be divisible by 10 classes, unless dataset.class_counts is public,"),
        ("dataset.class_counts=laplace", "privacy.class_counts_epsilon must be a number, as dataset.class_counts=laplace"),
        ("device=tpu", "device must be one of auto, cpu, cuda or cuda:N, not tpu."),
        (
            "privacy.epsilon=null",
            "privacy.epsilon=null cannot be used: with privacy.noise_multiplier=null, exactly one of",
        ),
        ("model.respacing=foo", "model.respacing=foo cannot be used: respacing='foo' is not 'N' or 'ddimN' with N >= 1."),
        ("+method.iteratons=3", "method.iteratons=3 cannot be used: there is no such key; there are name, num_samples, "),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_users_see(overrides, line):
    result = call(*overrides.split())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"error: {line}")
    assert result.err.endswith(".\n")
    assert ".." not in result.err


def test_only_a_mistake_of_the_user_is_a_line():
    assert one_line(unusable("a.b", 1, "it is odd")) == "error: a.b=1 cannot be used: it is odd."
    assert one_line(ValueError("of our own code")) is None


WORDS = {"allowed": "require", "problem": "reject_unless"}  # what the texts are called where they are no argument


def clauses(file: Path) -> list[tuple[str, str]]:
    """The literal texts that the functions of errors.py put into a sentence, by the function; … is what is put into them."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "require",
            "reject_unless",
            "unusable",
            "unusable_file",
        ):
            name, text = getattr(node.func, "id", ""), node.args[-1]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in WORDS:
            name, text = WORDS[getattr(node.targets[0], "id", "")], node.value
        else:
            continue
        parts = text.values if isinstance(text, ast.JoinedStr) else [text]
        if any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts):
            found.append((name, "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)))
    return found


def test_every_clause_fits_into_its_sentence():
    """`key must be {allowed}, not value.` and `key=value cannot be used: {problem}.`"""
    found = [clause for file in SOURCES for clause in clauses(file)]
    assert len(found) > 200
    for name, text in found:
        assert not text.endswith((".", ";", ":", ",", " ")), text
        assert not re.match(r"(must|not|is|has|holds|lists)\b|[A-Z][a-z]|\s", text), text
        assert name != "require" or ": " not in text, text
