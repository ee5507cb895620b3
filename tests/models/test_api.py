"""What is and what is not a denoiser, and what one promises."""

from __future__ import annotations

import numpy as np
import torch

from models.api import Denoiser, KeepsState
from models.public.renderer import Renderer
from models.public.settings import PublicModel
from tests.rejects import rejects
from tests.toy import Cloud, denoiser, tiny_unet


def test_a_diffusion_model_is_a_denoiser_and_other_apis_are_none():
    assert isinstance(denoiser(), Denoiser)
    assert isinstance(denoiser(), KeepsState)
    for api in (Renderer(8, 0), Cloud()):
        assert not isinstance(api, (Denoiser, KeepsState))
        with rejects("model", "cloud"):
            _ = PublicModel("cloud", api, {}).denoiser


def test_decoding_undoes_encoding():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    x = denoiser().encode(images)
    assert (x.shape, x.min(), x.max()) == ((4, 1, 8, 8), -1, 1)
    assert np.array_equal(denoiser().decode(x), images)


def test_one_timestep_for_all_rows_is_that_timestep_in_every_row():
    model = denoiser(timestep_scale=0.25)
    x, labels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2, 10])
    assert torch.allclose(model.predict_noise(x, 7, labels), model.predict_noise(x, torch.tensor([7, 7, 7]), labels), atol=1e-6)


def test_noise_is_predicted_without_guidance_and_by_the_network_that_is_given():
    guided, plain = denoiser(guidance=3.0), denoiser()
    inputs = torch.ones(1, 1, 8, 8), 5, torch.tensor([1])
    assert torch.equal(guided.predict_noise(*inputs), plain.predict_noise(*inputs))
    other = tiny_unet(num_class_embeds=11).requires_grad_(False)
    for p in other.parameters():
        p.zero_()
    assert not plain.predict_noise(*inputs, network=other).any()


def test_dummy_inputs_are_what_the_network_takes():
    model = denoiser()
    x, t, labels = model.dummy_inputs(2)
    assert model.predict_noise(x, t, labels).shape == x.shape == (2, 1, 8, 8)
