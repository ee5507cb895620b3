"""DP training audited in one run, by canaries that each have a weight of their own.

What is tried is all that makes a step private: sampling, per-example gradients over all weights, clipping, noise, their number in
the ledger. What cannot be seen from a canary's own weight is noise that is missing on the others alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from audit.planted import Planted, of_users, open_session, patterns
from data.dataset import Dataset
from dp_finetune.method import DPDiffusion
from models.public.settings import PublicModel
from pipeline.plan import Plan
from privacy.config import Privacy
from privacy.inherited import Inherited, PublicInput, carry_certificate
from privacy.ledger import Ledger, certificate
from privacy.noise import NoiseSource


class CanaryProbe(nn.Module):
    """A U-Net with one more weight for each canary, which the canary's gradient points along and no other image's touches.

    What Nasr et al. (2023) call a Dirac canary, made of a private image with a label of its own: at that label the output moves
    by `gain` times the weight, and a constant `offset` makes the loss slope the same way however the weight trains. That slope
    exceeds those of all other weights together a hundredfold, so that clipping leaves a step of the whole norm along one
    coordinate: the worst example that the accountant allows for. Random images without that point mostly the same way (their
    gradients' cosine is 0.7 on the digits' U-Net), and hide each other.
    """

    gain = offset = 1e3

    def __init__(self, unet: Any, first: int, canaries: int):
        super().__init__()
        self.unet, self.first, self.config = unet, first, unet.config
        self.weights = nn.Embedding(1 + canaries, 1)  # the first is everybody else's, and is not used
        nn.init.zeros_(self.weights.weight)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> UNet2DOutput:
        labels = torch.zeros(len(x), dtype=torch.int64, device=x.device) if labels is None else labels
        canary = labels >= self.first
        weight = self.weights(torch.where(canary, labels - self.first + 1, 0))[:, 0]
        move = torch.where(canary, self.gain * (weight - weight.detach()) + self.offset, 0.0)
        known = torch.where(canary, 0, labels) if self.config.num_class_embeds else None
        return UNet2DOutput(sample=self.unet(x, t, known).sample + move.reshape(-1, 1, 1, 1))


@dataclass(frozen=True)
class Training:
    """What is trained, on which images, with which canaries and noise."""

    method: DPDiffusion
    dataset: Dataset
    model: PublicModel  # trained in place
    privacy: Privacy
    included: np.ndarray  # bool [canaries]
    noise: NoiseSource
    folder: Path  # for ledger and checkpoints
    seed: int
    each: int | None = None  # images of a canary, which then is a user


def train_with_canaries(training: Training, inherited: Inherited | None = None) -> tuple[np.ndarray, Ledger]:
    """Scores float [m], high for canaries that seem to be in: the sum over steps of a canary's coordinate of the noisy gradient.

    They are divided by the noise's variance, so that those of two trainings may be added. `inherited` is what the model has spent
    before. Sampling images afterwards would cost time and no privacy: it is left out.
    """
    method, dataset, privacy = training.method, training.dataset, training.privacy
    included, seed, denoiser = training.included, training.seed, training.model.denoiser
    first = denoiser.num_labels + 1  # beyond the labels in use and the null label
    each = training.each or 1
    labels = np.repeat(first + np.arange(len(included)), each)
    images = np.repeat(patterns(len(included), dataset.shape, seed), each, 0)
    canaries = of_users(images, labels, first + len(included), training.each)
    planted = Planted.of(dataset, canaries, included)
    plan = Plan.make(method, planted, privacy, inherited)
    start = open_session(planted, privacy, plan, training.noise, training.folder, seed)
    method.prepare(denoiser.network, seed)
    denoiser.network = probe = CanaryProbe(denoiser.network, first, len(included)).to(denoiser.device)
    scores = np.zeros(len(included))

    def read(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        gradient = probe.weights.weight.grad
        assert gradient is not None
        scores[:] += gradient[1:, 0].double().cpu().numpy()

    watching = register_optimizer_step_pre_hook(read)  # what the optimizer is given is what DP-SGD publishes
    try:
        method.fit(start.private, training.model, start.run)
    finally:
        watching.remove()
        denoiser.network = probe.unet
    assert plan.noise_multiplier is not None
    return scores / plan.noise_multiplier**2, start.ledger


def train_base(training: Training) -> tuple[np.ndarray, Inherited]:
    """The model as an earlier run would release it, trained on the same images: its scores, and what whoever starts from that
    release inherits, read from the certificate that is released with it."""
    scores, ledger = train_with_canaries(training)
    document = certificate(
        ledger,
        identity=training.noise.identity(),
        size=training.dataset.num_private,
        unit=training.privacy.unit,
        noise_seed=None,
        assumptions=[],
        provenance={"dataset": training.dataset.name},
    )
    with tempfile.TemporaryDirectory() as elsewhere:
        carry_certificate(document, Path(elsewhere))
        return scores, Inherited.of([PublicInput("model.pretrained", Path(elsewhere))])
