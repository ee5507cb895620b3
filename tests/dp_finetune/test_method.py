"""Which public models can be trained: those that have a denoiser, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dp_finetune.loda import DPLoDA
from dp_finetune.method import DPDiffusion
from models.api import Denoiser
from models.diffusion.timesteps import Interval
from models.public.renderer import PrintedDigits
from models.public.settings import Model
from privacy.config import Privacy
from tests.conformance.worlds import Grey, model_settings
from tests.rejects import rejects

PRIVACY = Privacy(noise_multiplier=2.0)
MIXTURE = [Interval(low=0, high=100, weight=1.0)]


@dataclass(kw_only=True)
class Foreign(Model):
    """Has a denoiser, and is no `Network`."""

    name: str = "foreign"
    labels: int = 10
    null_label: bool = True
    pretrained: str | None = "somewhere"

    @property
    def num_steps(self) -> int:
        return model_settings().num_steps

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return Grey().shape

    def skeleton(self) -> Denoiser | None:
        return model_settings().skeleton()


@pytest.mark.parametrize("kind", [DPDiffusion, DPLoDA])
def test_a_model_is_trained_for_its_denoiser_and_not_for_its_class(kind):
    method = kind(num_samples=6, steps=3, batch_size=6, augmult=2, learning_rate=0.01, timestep_mixture=MIXTURE)
    method.check(Grey(closed=True), Foreign(), PRIVACY)
    assert method.training_facts(Grey(), Foreign())["trainable_parameters"] > 0
    with rejects("model", "printed_digits"):
        method.check(Grey(closed=True), PrintedDigits(image_size=8), PRIVACY)
