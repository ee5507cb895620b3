"""U-Nets as diffusers stores them: `unet/` and `scheduler/` of a pipeline, or all of it in one folder, as some hubs have it.

Diffusers takes seconds to import, so it is imported where a network is made: what needs none, such as a mistake in a command, is
told at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from disk import write_json
from errors import reason

CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"
VAE = "vae"
UNPICKLED = (f"{WEIGHTS}.safetensors", f"{WEIGHTS}.safetensors.index.json")


def part(folder: Path, name: str) -> Path:
    """Where the part of this name is: in a folder of its own, or with everything else."""
    return folder / name if (folder / name).is_dir() else folder


def has_unet(folder: Path) -> bool:
    return (part(folder, "unet") / CONFIG).exists()


def stored_files(folder: Path) -> list[Path]:
    """Settings and weights of the networks, and the schedule: what is read from there, as far as it is there."""
    networks = [where / CONFIG for where in (part(folder, "unet"), folder / VAE)]
    weights = [file for config in networks for file in sorted(config.parent.glob(f"{WEIGHTS}*"))]
    return [file for file in (*networks, *weights, part(folder, "scheduler") / SCHEDULER) if file.is_file()]


def on_meta(architecture: dict[str, Any]) -> Any:
    """A U-Net of shapes without weights; ValueError where diffusers has no such one."""
    from diffusers import UNet2DModel

    try:
        with torch.device("meta"):
            return UNet2DModel(**architecture)
    except Exception as error:  # foreign settings may make anything of their reader
        raise ValueError(f"it has no U-Net of diffusers ({reason(error)})") from error


def read_config(folder: Path, name: str, file: str) -> dict[str, Any]:
    """The settings in this file of this part; ValueError where they are not there or are none."""
    path = part(folder, name) / file
    where = path.relative_to(folder)
    if not path.exists():
        raise ValueError(f"it has no {file}, in {name}/ or in the folder itself, as diffusers writes it")
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not readable ({reason(error)})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{where} holds no settings by name")
    return config


def read_alpha_bar(folder: Path) -> np.ndarray:
    """float64 [T], of the scheduler; ValueError where it has no such schedule, or one for networks that do not predict noise."""
    config = read_config(folder, "scheduler", SCHEDULER)
    kind = config.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise ValueError(f"a network that predicts noise is needed, not {kind}")
    if not {"beta_schedule", "trained_betas"} & config.keys():
        raise ValueError(f"{config.get('_class_name')} has no betas, as DDPMScheduler has them")
    betas = config.get("trained_betas")
    try:
        if betas is not None and not config.get("rescale_betas_zero_snr"):  # of which diffusers keeps float32
            alpha_bar = np.cumprod(1 - np.asarray(betas, float))
        else:
            alpha_bar = _scheduled(config)
    except Exception as error:  # a foreign file may make anything of its reader
        raise ValueError(f"it has no scheduler that diffusers reads ({reason(error)})") from error
    falls = alpha_bar.ndim == 1 and len(alpha_bar) > 0 and (np.diff(alpha_bar, prepend=1) < 0).all() and alpha_bar[-1] > 0
    if not falls:
        raise ValueError("the scheduler's betas are not all above 0 and below 1")
    return alpha_bar


def _scheduled(config: dict[str, Any]) -> np.ndarray:
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler.from_config(config)
    return scheduler.alphas_cumprod.double().numpy()


def load_unet(folder: Path, kind: str = "UNet2DModel") -> Any:
    """Every weight is from the folder, and all that is there is used; ValueError where that cannot be."""
    return _load(kind, part(folder, "unet"), "U-Net")


def load_vae(folder: Path) -> Any:
    """The `AutoencoderKL` in `vae/`, in the same way."""
    return _load("AutoencoderKL", folder / VAE, f"{VAE}/")


def _load(kind: str, where: Path, what: str) -> Any:
    import diffusers

    settings = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "local_files_only": True}
    unpickled = any((where / name).exists() for name in UNPICKLED)
    try:
        made = getattr(diffusers, kind)
        loaded: Any = made.from_pretrained(where, use_safetensors=unpickled, output_loading_info=True, **settings)
    except Exception as error:  # a foreign folder may make anything of its reader
        raise ValueError(f"it has no {what} that diffusers reads ({reason(error)})") from error
    network, found = loaded
    if found["missing_keys"] or found["unexpected_keys"]:
        missing, more = (", ".join(sorted(found[keys])[:2]) or "none" for keys in ("missing_keys", "unexpected_keys"))
        raise ValueError(f"its weights are of another network than config.json's (missing: {missing}; unknown: {more})")
    return network


def save_part(network: Any, folder: Path) -> None:
    """As diffusers writes it, without the path of this machine that it came from."""
    network.save_pretrained(folder)
    config = folder / CONFIG
    write_json(config, {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"})


def save_schedule(alpha_bar: np.ndarray, folder: Path) -> None:
    """As diffusers writes it."""
    from diffusers import DDIMScheduler

    betas = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    scheduler: Any = DDIMScheduler(num_train_timesteps=len(betas), trained_betas=betas.tolist())
    scheduler.save_pretrained(folder)


def check_weights(folder: Path, skeleton: Any) -> None:
    """By their headers alone: ValueError where there are none, some are cut off, or of another shape than the skeleton's."""
    where = part(folder, "unet")
    if not any((where / name).exists() for name in (*UNPICKLED, f"{WEIGHTS}.bin")):
        raise ValueError(f"it has no weights ({UNPICKLED[0]})")
    shapes = {name: list(value.shape) for name, value in skeleton.state_dict().items()}
    for file in (*where.glob(UNPICKLED[0]), *where.glob(f"{WEIGHTS}-*-of-*.safetensors")):
        try:
            with safe_open(file, "pt") as stored:
                found = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
        except Exception as error:
            raise ValueError(f"{file.name} is not readable ({reason(error)})") from error
        for name, shape in found.items():  # names may differ: diffusers knows older ones
            if shapes.get(name, shape) != shape:
                raise ValueError(f"its weights are of another shape than config.json's: {name} is {shape}, not {shapes[name]}")
