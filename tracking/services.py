"""Weights & Biases, TensorBoard and MLflow: each is imported where it is asked for.

TensorBoard's files stay under `internal/`, so it gets every number. W&B and MLflow may be elsewhere: they get `internal` ones
only where the user says `tracker.internal=true`, and of places on this machine no more than last names (`tracking.settings`). The
names of internal numbers begin with `internal/`, in TensorBoard and in MLflow.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracking.settings import flat, without_places
from tracking.tracker import TrackerConfig

INTERNAL = "internal/"
LOCAL = "runs/mlflow"
# What W&B would gather by itself: program, arguments, folders, host, user, git remote, and the places of local packages.
QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "host": "",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_disable_stats": True,
}


class WandB:
    """A Weights & Biases run; `mode=offline` needs no account."""

    def __init__(self, settings: TrackerConfig, config: dict[str, Any], folder: Path):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers
        import wandb

        self._internal = settings.internal
        self._wandb = wandb
        self._run = wandb.init(
            project=settings.project,
            group=settings.group,
            mode=settings.mode,  # type: ignore[arg-type]
            dir=folder,
            id=_kept(folder / "wandb_id", lambda: secrets.token_hex(8)),
            resume="allow",
            reinit="finish_previous",
            config=without_places(config),
            settings=wandb.Settings(**QUIET),
        )

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        if self._internal or not internal:
            self._run.log(metrics if step is None else {**metrics, "step": step})

    def image(self, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Image(str(path))})

    def summary(self, facts: dict[str, Any]) -> None:
        self._run.summary.update(facts)

    def finish(self, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))


class TensorBoard:
    """Event files in `internal/tensorboard`: `tensorboard --logdir runs` reads those of all runs."""

    def __init__(self, settings: TrackerConfig, config: dict[str, Any], folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder / "tensorboard")
        self._writer.add_text("config", f"    {json.dumps(config, indent=2, default=str)}".replace("\n", "\n    "))

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(f"{INTERNAL * internal}{name}", value, step or 0)

    def image(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        self._writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), dataformats="HWC")

    def summary(self, facts: dict[str, Any]) -> None:
        for name, value in facts.items():
            self._writer.add_text(name, str(value))

    def finish(self, failed: bool = False) -> None:
        self._writer.close()


class MLflow:
    """A run of MLflow; without a server its files are in `runs/mlflow`."""

    def __init__(self, settings: TrackerConfig, config: dict[str, Any], folder: Path):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # to its makers
        if settings.uri is None and "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow asks for a database, and reads files all the same
            uri: str | None = Path(LOCAL).absolute().as_uri()
        else:
            uri = settings.uri
        from mlflow import MlflowClient

        self._internal, self._client = settings.internal, MlflowClient(tracking_uri=uri)
        self._run = _kept(folder / "mlflow_id", lambda: self._begun(settings, config))

    def _begun(self, settings: TrackerConfig, config: dict[str, Any]) -> str:
        found = self._client.get_experiment_by_name(settings.project)
        experiment = self._client.create_experiment(settings.project) if found is None else found.experiment_id
        run = self._client.create_run(experiment, tags={} if settings.group is None else {"group": settings.group})
        shared = {key: value for key, value in config.items() if key != "tracker"}
        for name, value in flat(without_places(shared)).items():
            self._client.log_param(run.info.run_id, name, str(value)[:500])
        return run.info.run_id

    def log(self, metrics: dict[str, float], *, step: int | None = None, internal: bool = False) -> None:
        if self._internal or not internal:
            for name, value in metrics.items():
                self._client.log_metric(self._run, _allowed(f"{INTERNAL * internal}{name}"), value, step=step or 0)

    def image(self, name: str, path: Path) -> None:
        self._client.log_artifact(self._run, str(path), _allowed(name))

    def summary(self, facts: dict[str, Any]) -> None:
        for name, value in facts.items():
            self._client.set_tag(self._run, _allowed(name), str(value))

    def finish(self, failed: bool = False) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def _allowed(name: str) -> str:
    """As MLflow takes names: a class may be called anything."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _kept(file: Path, begin: Callable[[], str]) -> str:
    """The id of a run elsewhere, which a resumed run goes on with."""
    if not file.exists():
        file.write_text(begin())
    return file.read_text()
