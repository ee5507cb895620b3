"""What a run would cost, said before any image is opened: `plan_only=true`."""

from __future__ import annotations

import json
import math

import pytest
import torch
from diffusers import UNet2DModel
from torch.nn.modules.module import register_module_parameter_registration_hook

from data.datasets.digits import Digits
from privacy.mechanisms import Unit
from tests.command import NOISY, PUBLIC_ONLY, STRONG_NOISE, call, python_run
from tests.facts import FACTS, number
from tests.rejects import assert_refused

PLAN = {
    "method": None,
    "dataset": {"name", "n_private", "n_public", "shape", "classes"},
    "privacy": {"epsilon", "delta", "noise_multiplier", "accountant", "events"},
    "model": {"parameters", "trainable_parameters"},
    "work": {"steps", "network_calls", "flops"},
}


def fixed_noise(name: str) -> list[str]:
    """The overrides of a golden fact."""
    inputs = FACTS[name]["inputs"]
    return [
        "tuned=none",
        "privacy.epsilon=null",
        f"privacy.noise_multiplier={number(inputs['sigma'])}",
        f"privacy.delta={inputs['delta']}",
        f"method.iterations={inputs['T']}",
        f"method.variation_degrees={[10] * inputs['T']}".replace(" ", ""),
        "method.noise=gaussian",
    ]


PAPER_ROWS = {  # experiment: the golden rows of its noise (or epsilon) under Opacus' RDP, and of its network
    "mnist": ("epsilon", FACTS["dpd.mnist.N50000"]["computed_value"], FACTS["dpd.unet28.c10"]["computed_value"]),
    "cifar10": (
        "noise_multiplier",
        FACTS["dpd.sigma.CIFAR_N50000.eps10.T200.delta1e-05"]["computed_value"]["opacus_rdp"],
        FACTS["dpd.unet32.ss0.c10"]["computed_value"],
    ),
    "camelyon17": (
        "noise_multiplier",
        FACTS["dpd.sigma.Camelyon_N302436.eps10.T200.delta3e-06"]["computed_value"]["opacus_rdp"],
        FACTS["dpd.unet32.ss0.c10"]["computed_value"] - 8 * 768,  # two classes, not ten, of an embedding of 768
    ),
}


@pytest.mark.parametrize("experiment", PAPER_ROWS)
def test_a_paper_s_experiment_plans_to_its_golden_noise_and_parameters(experiment, here):
    quantity, value, parameters = PAPER_ROWS[experiment]
    result = call(f"+experiment=dp_diffusion/{experiment}", "plan_only=true", "privacy.accountant=rdp")
    plan = json.loads(result.out)
    assert plan["privacy"][quantity] == pytest.approx(value, rel=1e-4)
    assert plan["model"]["parameters"] == plan["model"]["trainable_parameters"] == parameters
    assert plan["work"]["flops"] > 1e18


SLOW_TO_IMPORT = {
    "diffusers",  # it brings transformers, peft and torchvision
    "faiss",
    "matplotlib",
    "opacus",
    "pandas",
    "plotly",
    "pytorch_fid",
    "sklearn",
    "torchmetrics",
    "wandb",
}


def test_plan_only_prints_one_document_writes_nothing_and_imports_only_what_it_needs(tmp_path):
    """What the U-Net costs is in a table."""
    command = ["plan_only=true", f"hydra.run.dir={tmp_path}/run", *fixed_noise("pe.table1.T5")]
    result = python_run(*command, PYTHONPROFILEIMPORTTIME="1")
    assert result.code == 0, result.err
    assert json.loads(result.out)["privacy"]["epsilon"] == pytest.approx(FACTS["pe.table1.T5"]["computed_value"], abs=1e-6)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in result.err.splitlines()}
    assert {"torch", "hydra"} <= imported
    assert not imported & SLOW_TO_IMPORT
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [["+experiment=dp_diffusion/cifar10"], ["method=dp_loda"], ["method=pe"], ["method=public_only"]],
    ids=["dp_diffusion", "dp_loda", "pe", "public_only"],
)
def test_a_plan_builds_its_networks_without_weights(here, command):
    devices: list[torch.device] = []
    hook = register_module_parameter_registration_hook(lambda module, name, value: devices.append(value.device))
    try:
        result = call("plan_only=true", *command)
    finally:
        hook.remove()
    assert result.code == 0, result.err
    assert devices
    assert {device.type for device in devices} == {"meta"}


@pytest.mark.parametrize(
    "name", ["pe.table1.T1", "pe.cifar.eps067.T7", "pe.camelyon.eps10", "pe.camelyon.eps992", "pe.cat.eps662"]
)
def test_the_plan_reproduces_the_published_epsilon(here, name):
    plan = json.loads(call("plan_only=true", *fixed_noise(name)).out)
    assert plan["privacy"]["epsilon"] == pytest.approx(FACTS[name]["computed_value"], abs=1e-6)
    assert plan["privacy"]["epsilon"] == pytest.approx(FACTS[name]["paper_value"], abs=FACTS[name]["tolerance"])


@pytest.mark.parametrize("method", ["pe", "public_only", "real_data"])
def test_a_plan_holds_the_promised_keys_and_opens_no_image(here, monkeypatch, method):
    for split in ("private", "train", "public", "test"):
        monkeypatch.setattr(Digits, split, lambda self: pytest.fail("an image was opened"))
    result = call("plan_only=true", f"method={method}", *STRONG_NOISE[:2])
    assert (result.code, result.err) == (0, "")
    plan = json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert plan.keys() >= PLAN.keys()
    for key, inner in PLAN.items():
        assert inner is None or plan[key].keys() >= inner
    assert plan["method"] == method
    assert plan["dataset"]["n_private"] == 1437
    assert "public" in plan["dataset"]["n_private_is"]
    assert (plan["privacy"]["unit"], plan["privacy"]["neighbouring"]) == ("image", Unit.image.neighbouring)
    low, high = {"public_only": (0, 0), "pe": (0.01, 0.99), "real_data": (1, 1)}[method]
    assert low <= plan["privacy"]["risk"]["advantage"] <= high
    assert not list(here.iterdir())  # nothing is written


def test_a_plan_lists_every_event_and_its_epsilon_is_their_composition(here):
    overrides = [
        "tuned=none",
        "privacy.epsilon=5",
        "dataset.class_counts=laplace",
        "privacy.class_counts_epsilon=1",
        "privacy.accountant=rdp",
    ]
    plan = json.loads(call("plan_only=true", "tuned=none", *overrides).out)
    privacy = plan["privacy"]
    assert [event["purpose"] for event in privacy["events"]] == ["class_counts", "pe.votes"]
    assert 4.99 < privacy["epsilon"] <= 5
    assert math.isfinite(privacy["noise_multiplier"])


def test_a_plan_has_the_caution_of_the_certificate(here):
    large = [*PUBLIC_ONLY, "privacy.delta=3.4e-4"]
    planned = json.loads(call(*large, "plan_only=true").out)["privacy"]["caution"]
    assert call(*large).code == 0
    assert planned == json.loads((here / "run" / "release" / "privacy.json").read_text())["caution"]
    assert "probability 0.49" in planned
    assert "caution" not in json.loads(call(*PUBLIC_ONLY, "plan_only=true").out)["privacy"]


SAMPLED, VOTES, LAPLACE = ["method=dp_diffusion"], ["method=pe"], ["dataset.class_counts=laplace"]
EXTREME = {
    "a tiny delta": [*SAMPLED, "privacy.delta=1e-12"],
    "hardly a delta": [*SAMPLED, "privacy.delta=1e-300"],
    "little noise": [*SAMPLED, *STRONG_NOISE[:1], "privacy.noise_multiplier=1e-6"],
    "much noise": [*SAMPLED, *STRONG_NOISE[:1], "privacy.noise_multiplier=999999"],
    "a large epsilon": [*SAMPLED, "privacy.epsilon=999999"],
    "little noise on votes": [*VOTES, *STRONG_NOISE[:1], "privacy.noise_multiplier=1e-6"],
    "much noise on votes": [*VOTES, *STRONG_NOISE[:1], "privacy.noise_multiplier=999999"],
    "a large epsilon of votes": [*VOTES, "privacy.epsilon=999999"],
    "a large share of counts": [
        *VOTES,
        "privacy.epsilon=1000",
        "dataset.class_counts=laplace",
        "privacy.class_counts_epsilon=710",
    ],
    "shares above the budget": [*VOTES, "dataset.class_counts=laplace", "privacy.class_counts_epsilon=999999"],
    "a large share of selection": [
        *VOTES,
        "privacy.epsilon=1000",
        "privacy.selection_epsilon=710",
        "eval.downstream.choose_from=[0.1,0.03]",
    ],
}


@pytest.mark.parametrize("accountant", ["pld", "rdp", "prv"])
@pytest.mark.parametrize("overrides", EXTREME.values(), ids=EXTREME)
def test_extreme_budgets_have_a_plan_or_one_line(here, overrides, accountant):
    result = call("plan_only=true", f"privacy.accountant={accountant}", "eval.frechet.enabled=false", *overrides)
    if result.code == 0:
        assert json.loads(result.out)["privacy"]["epsilon"] >= 0
    else:
        assert_refused(result, "privacy.")


def test_a_plan_leaves_the_folders_that_the_user_made(here):
    (here / "mine").mkdir()
    assert call("plan_only=true", "hydra.run.dir=mine/run", "method=public_only").code == 0
    assert [path.name for path in here.rglob("*")] == ["mine"]


@pytest.mark.parametrize("method", [NOISY, [*PUBLIC_ONLY, "model.guidance=1"]], ids=["pe", "public_only"])
def test_the_plan_announces_exactly_the_network_calls_of_the_command(here, monkeypatch, method):
    calls, forward = [], UNet2DModel.forward

    def counted(self, x, *rest):
        calls.append(len(x))
        return forward(self, x, *rest)

    whole_batches = [*method, "method.conditional=false", "method.num_samples=64", "eval=none"]
    plan = json.loads(call("plan_only=true", *whole_batches).out)
    monkeypatch.setattr(UNet2DModel, "forward", counted)
    assert call(*whole_batches).code == 0
    assert sum(calls) == plan["work"]["network_calls"]
