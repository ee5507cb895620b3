"""Ordinary training of an autoencoder on public images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.images import to_network
from data.samples import SampleSet
from models.checkpoints import load_training, save_training
from models.diffusion.autoencoder import Autoencoder
from models.public.pretraining import gradient, one_cycle
from models.seeds import torch_rng
from tracking import ranks

KL_WEIGHT = 1e-4  # of a latent, beside the absolute error of a pixel: latents stay near 0, and hardly blur
SCALED_ON = 2000  # images whose latents have variance 1


def train_autoencoder(
    autoencoder: Autoencoder,
    samples: SampleSet,
    steps: int,
    batch_size: int,
    seed: int,
    checkpoint: Path,
    device: torch.device,
    checkpoint_steps: int = 100,
) -> Iterator[int]:
    """In place: absolute error plus KL to a standard normal (Kingma & Welling 2014; Rombach et al. 2022, App. G), and a scaling
    factor of 1 / the latents' standard deviation. Images are padded and shifted as they are for encoding. Several processes make
    the same draws and share each batch. From a saved checkpoint where there is one; yields the number of steps so far."""
    vae: Any = autoencoder.network
    vae.requires_grad_(True).train()
    weights, mine = list(vae.parameters()), slice(ranks.share(), None, ranks.world())
    rng = torch_rng(seed, "pretrain/autoencoder")
    optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-4)
    schedule = one_cycle(optimizer, 4e-3, steps, 0.1)
    parts = {"vae": vae, "optimizer": optimizer, "schedule": schedule}
    done = load_training(checkpoint, rng, device, **parts)
    for step in range(done + 1, steps + 1):
        rows = torch.randint(len(samples), (batch_size,), generator=rng)
        noise = torch.randn(batch_size, autoencoder.channels, autoencoder.side, autoencoder.side, generator=rng)[mine].to(device)
        x = autoencoder.padded(to_network(samples.images[rows[mine].numpy()], device))
        if len(x):
            posterior = vae.encode(x).latent_dist
            out = vae.decode(posterior.mean + posterior.std * noise).sample
            loss = (out - x).abs().mean() + KL_WEIGHT * posterior.kl().mean() / noise[0].numel()
            (loss * (len(x) / batch_size)).backward()
        ranks.sum_over_ranks([gradient(p) for p in weights])
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if (step % checkpoint_steps == 0 or step == steps) and ranks.share() == 0:
            save_training(checkpoint, step, rng, **parts)
        yield step
    vae.requires_grad_(False).eval()
    vae.register_to_config(scaling_factor=1.0)
    some = np.linspace(0, len(samples) - 1, min(SCALED_ON, len(samples))).astype(int)
    vae.register_to_config(scaling_factor=float(1 / autoencoder.encode(samples.images[some]).std()))
