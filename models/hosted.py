"""Public models that others trained and host: what `python -m scripts.fetch NAME` downloads, and where a run looks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

HUB = "https://huggingface.co"
CHECKPOINTS = Path("checkpoints")  # below the working directory, as in conf/model/


@dataclass(frozen=True)
class Hosted:
    name: str
    what: str
    takes_it: str  # the setting that looks for it at `place`
    size: str
    licence: str
    url: str  # of the folder that its files are in, at a revision that does not change
    sha256: Mapping[str, str | None]  # of each file; None: no published one is known. The last is the one that a run looks for
    folder: Path | None = None  # that its files go to; None: where torch.hub keeps weights

    @property
    def paths(self) -> dict[str, Path]:
        """Where each file goes."""
        folder = self.folder or Path(torch.hub.get_dir(), "checkpoints")
        return {file: folder / file for file in self.sha256}

    @property
    def place(self) -> Path:
        """The file, or the folder of several."""
        paths = list(self.paths.values())
        return paths[0] if len(paths) == 1 or self.folder is None else self.folder

    @property
    def command(self) -> str:
        return f"python -m scripts.fetch {self.name}"


# The digests of the hub are those of its LFS pointers and of the same files elsewhere; for small ones its git names agree.
STABLE_DIFFUSION = Hosted(
    name="stable-diffusion-v1-5",
    what="Stable Diffusion 1.5, from the hub's copy of a repository that is gone",
    takes_it="model=stable_diffusion",
    size="4.3 GB",
    licence="CreativeML OpenRAIL-M",
    url=f"{HUB}/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    folder=CHECKPOINTS / "stable_diffusion",
    sha256={
        "feature_extractor/preprocessor_config.json": "2a1da83b5e1032aaeef397552ddb408dca0d8cd1dc58f61bf6abf38d6f33a0a2",
        "scheduler/scheduler_config.json": "699cce92eb7c122e2eb7dfdea78e6187fda76a5ed4a8e42319b85610e620e091",
        "text_encoder/config.json": "845df614cb9327ae7bbea027316246fae917827407da6df13572e41b5f93b4cc",
        "text_encoder/model.safetensors": "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
        "tokenizer/merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
        "tokenizer/special_tokens_map.json": "c4864a9376a8401918425bed71fc14fc0e81f9b59ec45c1cf96cccb2df508eac",
        "tokenizer/tokenizer_config.json": "00439066fcba73de57644cf41e4e3b9f2dbb09d7f3fc2005898ba52399045882",
        "tokenizer/vocab.json": "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
        "unet/config.json": "78f474de6bab3d893868f37be97b636ae65c0df3073ed3256ca458ff599b5f96",
        "unet/diffusion_pytorch_model.safetensors": "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        "vae/config.json": "786a7d21647ddea6a04b9675c03d3cb45e90a2f3c6da5fbda2c54ade040036de",
        "vae/diffusion_pytorch_model.safetensors": "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
        "model_index.json": "e2f6f22e274374010aec30c79eb2d6e53fff4a36ac0225523a92cb2d41a83347",
    },
)

IMPROVED_DIFFUSION = "https://openaipublic.blob.core.windows.net/diffusion/march-2021"
IMAGENET64_COND = Hosted(
    name="improved-diffusion-imagenet64-cond",
    what="ImageNet 64×64 of improved-diffusion, 1,000 classes",
    takes_it="model=improved_diffusion_imagenet64_cond",
    size="about 1.1 GB",
    licence="MIT",
    url=IMPROVED_DIFFUSION,
    folder=CHECKPOINTS,
    sha256={"imagenet64_cond_270M_250K.pt": None},
)
IMAGENET64_UNCOND = Hosted(
    name="improved-diffusion-imagenet64-uncond",
    what="ImageNet 64×64 of improved-diffusion, no labels",
    takes_it="model=improved_diffusion_imagenet64_uncond",
    size="about 0.5 GB",
    licence="MIT",
    url=IMPROVED_DIFFUSION,
    folder=CHECKPOINTS,
    sha256={"imagenet64_uncond_100M_1500K.pt": None},
)

INCEPTION = Hosted(
    name="inception-fid",
    what="the Inception network of FID, as pytorch-fid has it",
    takes_it="method.embedding=inception, eval.frechet.embedding=inception",
    size="96 MB",
    licence="Apache 2.0",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
    sha256={"pt_inception-2015-12-05-6726825d.pth": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"},
)

CLIP = Hosted(
    name="clip",
    what="CLIP ViT-B/32 of OpenAI",
    takes_it="method.embedding=clip, eval.frechet.embedding=clip",
    size="605 MB",
    licence="MIT",
    url=f"{HUB}/openai/clip-vit-base-patch32/resolve/3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    folder=CHECKPOINTS / "clip-vit-base-patch32",
    sha256={
        "pytorch_model.bin": "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        "config.json": "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770",
    },
)

HOSTED = {model.name: model for model in (STABLE_DIFFUSION, IMAGENET64_COND, IMAGENET64_UNCOND, INCEPTION, CLIP)}
