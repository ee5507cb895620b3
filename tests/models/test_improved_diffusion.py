"""Converted checkpoints against the outputs and samples of improved-diffusion's own code."""

import json

import numpy as np
import pytest
import torch

from models.diffusion.improved_diffusion import set_heads, to_unet
from models.diffusion.model import DiffusionModel
from models.diffusion.samplers import ddim, sdedit
from models.diffusion.schedules import cosine_alpha_bar, respaced_timesteps
from tests.facts import GOLDEN

VARIATIONS = [("100", 98), ("100", 60), ("100", 5), ("ddim10", 10), ("ddim10", 7), ("40", 20), ("40", 10)]


def shapes(name):
    return json.loads((GOLDEN / f"improved_diffusion_{name}_keys.json").read_text())


def made_weights(name, seed):
    """As golden/README.md makes them."""
    rng = np.random.RandomState(seed)
    state = {}
    for key, shape in sorted(shapes(name).items()):
        r = rng.standard_normal(shape).astype(np.float32)
        one_dimensional = (1 if key.endswith("weight") else 0) + 0.1 * r
        r = r / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else one_dimensional
        state[key] = torch.from_numpy(r.astype(np.float32))
    return state


@pytest.fixture(scope="module", params=["cond", "uncond"])
def golden(request):
    return request.param, np.load(GOLDEN / f"improved_diffusion_mini_{request.param}.npz")


@pytest.fixture(scope="module")
def model(golden):
    name, arrays = golden
    unet = to_unet(made_weights(f"mini_{name}", int(arrays["seed"])), image_size=32).eval()
    labels, scale = (1000, 1.0) if name == "cond" else (1, 1000 / 4000)
    return DiffusionModel(unet, cosine_alpha_bar(4000), labels, "100", timestep_scale=scale)


def predict(model, labels):
    return lambda x, t: model.guided_noise(x, t, torch.from_numpy(labels))


@torch.inference_mode()
def test_the_network_computes_what_the_original_does(golden, model):
    name, arrays = golden
    labels = torch.from_numpy(arrays["y"]) if name == "cond" else None
    out = model.network(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["network_t"]), labels).sample.numpy()
    assert np.abs(out - arrays["model_output"]).max() < 1e-5 * np.abs(arrays["model_output"]).max()


@torch.inference_mode()
@pytest.mark.parametrize(("respacing", "degree"), VARIATIONS)
def test_a_variation_is_the_originals(golden, model, respacing, degree):
    arrays = golden[1]
    x_0, noise = torch.from_numpy(arrays["x0"]), torch.from_numpy(arrays["noise"])
    timesteps = respaced_timesteps(4000, respacing)
    sample = sdedit(predict(model, arrays["y"]), x_0, noise, degree, timesteps, model.alpha_bar)
    assert np.abs(sample.numpy() - arrays[f"sdedit/{respacing}/{degree}/sample"]).max() < 1e-3


@torch.inference_mode()
def test_a_random_sample_is_the_originals(golden, model):
    arrays = golden[1]
    timesteps = respaced_timesteps(4000, "ddim10")
    sample = ddim(predict(model, arrays["y"]), torch.from_numpy(arrays["noise"]), timesteps, model.alpha_bar)
    assert np.abs(sample.numpy() - arrays["random/ddim10/sample"]).max() < 1e-3


def test_a_wrong_number_of_heads_changes_the_output(golden):
    name, arrays = golden
    state = made_weights(f"mini_{name}", int(arrays["seed"]))
    labels = torch.from_numpy(arrays["y"]) if name == "cond" else None
    unet = to_unet(state, image_size=32).eval()
    set_heads(unet, 2)
    with torch.inference_mode():
        out = unet(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["network_t"]), labels).sample.numpy()
    assert np.abs(out - arrays["model_output"]).max() > 1e-2


@pytest.mark.parametrize(("name", "parameters"), [("imagenet64_cond", 273_049_350), ("imagenet64_uncond", 121_063_942)])
def test_the_official_models_convert_with_every_weight(name, parameters):
    with torch.device("meta"):
        unet = to_unet({key: torch.empty(shape) for key, shape in shapes(name).items()}, image_size=64)
    assert sum(weight.numel() for weight in unet.parameters()) == parameters
    assert {module.heads for module in unet.modules() if hasattr(module, "heads")} == {4}


@pytest.mark.parametrize("break_it", [lambda s: s.pop("out.2.weight"), lambda s: s.update({"other.weight": s["out.2.weight"]})])
def test_another_architecture_is_refused(break_it):
    state = made_weights("mini_cond", 0)
    break_it(state)
    with pytest.raises(ValueError, match="not a checkpoint of improved-diffusion"):
        to_unet(state, image_size=32)
