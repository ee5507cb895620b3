"""Train what `model=digits_unet` ships: a diffusion U-Net and a feature extractor, on printed digits alone.

    python -m scripts.pretrain_public                # about 25 minutes on 2 CPU cores; writes models/weights/digits

No private image is opened. Each image is a new random distortion of a glyph.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from hydra import compose, initialize_config_dir
from rich.progress import track
from safetensors.torch import save_file

from conf.schema import register, to_typed
from data.digits import printed
from data.images import to_network
from models.diffusion import save_schedule
from models.ema import EMA
from models.features import PublicFeatures
from models.schedules import linear_alpha_bar
from models.seeds import torch_rng
from models.unet import EMBEDDED, UNet


def train_unet(model: UNet, x: torch.Tensor, y: torch.Tensor, steps: int, batch_size: int, seed: int) -> Any:
    """Noise prediction with label dropout 0.1, so that the model also serves classifier-free guidance."""
    torch.manual_seed(seed)
    unet: Any = UNet2DModel(**model.architecture())
    rng = torch_rng(seed, "pretrain/unet")
    alpha_bar = torch.from_numpy(linear_alpha_bar()).float()
    ema = EMA(unet, decay=0.999)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    for _ in track(range(steps), description="U-Net on printed digits"):
        rows = torch.randint(len(x), (batch_size,), generator=rng)
        t = torch.randint(len(alpha_bar), (batch_size,), generator=rng)
        noise = torch.randn(x[rows].shape, generator=rng)
        dropped = torch.rand(batch_size, generator=rng) < 0.1
        labels = torch.where(dropped, model.labels, y[rows])
        a = alpha_bar[t].reshape(-1, 1, 1, 1)
        x_t = a.sqrt() * x[rows] + (1 - a).sqrt() * noise
        loss = F.mse_loss(unet(x_t, t, labels).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(unet)
    ema.copy_to(unet)
    return unet


def train_features(x: torch.Tensor, y: torch.Tensor, steps: int, batch_size: int, seed: int) -> PublicFeatures:
    """Classification with shifts and pixel noise."""
    torch.manual_seed(seed)
    network, rng = PublicFeatures(), torch_rng(seed, "pretrain/features")
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in track(range(steps), description="features on printed digits"):
        rows = torch.randint(len(x), (batch_size,), generator=rng)
        noisy = x[rows] + 0.2 * torch.randn(x[rows].shape, generator=rng)
        shift = int(torch.randint(-1, 2, (1,), generator=rng))
        loss = F.cross_entropy(network(torch.roll(noisy, shift, dims=3)), y[rows], label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300_000, help="printed digits to render")
    parser.add_argument("--unet-steps", type=int, default=6000)
    parser.add_argument("--feature-steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=EMBEDDED / "digits")
    args = parser.parse_args()
    register()
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        model = to_typed(compose("config", ["model=digits_unet"])).model
    assert isinstance(model, UNet)

    images, labels = printed(args.images, seed=args.seed)
    x, y = to_network(images), torch.from_numpy(labels)
    started = time.time()
    features = train_features(x, y, args.feature_steps, args.batch_size, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(features.state_dict(), args.out / "features.safetensors")
    unet = train_unet(model, x, y, args.unet_steps, args.batch_size, args.seed)
    unet.half().save_pretrained(args.out / "unet")  # float16 halves the file; it is loaded as float32
    save_schedule(model.alpha_bar(), args.out / "scheduler")
    print(f"wrote {args.out} in {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
