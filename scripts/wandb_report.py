"""A W&B report that compares a project's runs: accuracy and distance against ε, a table, the grids of each method.

    python -m scripts.wandb_report project=dp-image-synthesis entity=…          # saves it, and prints where
    python -m scripts.wandb_report project=… dry_run=true                       # its specification as JSON; no network
    python -m scripts.wandb_report project=… 'methods=[pe,dp_loda]' distance=fid/test

Needs `pip install wandb-workspaces`, and runs made with `tracker=wandb`. Accuracy and distance are measured on real data: W&B has
them, and the plots are filled, only where runs were made with `tracker.internal=true`. Grids are those of releases.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf

from conf.help import run_script
from errors import InputError, require, unusable

METHODS = ["pe", "dp_diffusion", "dp_loda", "public_only", "real_data"]
COLUMNS = ["method", "dataset", "privacy/epsilon", "privacy/delta"]  # what `Tracker.summary` is given


@dataclass
class Settings:
    project: str = MISSING
    entity: str | None = None  # default: that of the account
    title: str = "Differentially private image synthesis"
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    accuracy: str = "wrn40_4/accuracy"  # names of metrics
    distance: str = "frechet/public_features_train"
    dry_run: bool = False


def main(arguments: list[str]) -> None:
    settings = _settings(arguments)
    made = report(settings)
    if settings.dry_run:
        print(json.dumps(specification(made), indent=2))
        return
    try:
        made.save()
    except Exception as error:  # wandb-workspaces raises plain ones: no login, no such project, no network
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise unusable("project", settings.project, f"W&B did not take the report ({reason})") from error
    print(made.url)


def report(settings: Settings) -> Any:
    """A `wandb_workspaces` report; not saved."""
    reports = _library()

    def runs(method: str) -> Any:
        columns = [f"summary:{name}" for name in [*COLUMNS, settings.accuracy, settings.distance]]
        return reports.Runset(name=method, filters=f"Summary('method') = '{method}'", pinned_columns=columns)

    def against_epsilon(title: str, metric: str) -> Any:
        x, y = reports.SummaryMetric("privacy/epsilon"), reports.SummaryMetric(metric)
        return reports.ScatterPlot(title=f"{title} against ε: {metric}", x=x, y=y, log_x=True)

    plots = [against_epsilon("Accuracy", settings.accuracy), against_epsilon("Distance", settings.distance)]
    blocks = [
        reports.P("Accuracy and distance are measured on real data: this report must not be shared as a release may."),
        reports.H2("Accuracy and distance against ε"),
        reports.PanelGrid(runsets=[runs(method) for method in settings.methods], panels=plots),
        reports.H2("Samples"),
    ]
    for method in settings.methods:
        grids = reports.MediaBrowser(title=method, media_keys=["grid"], num_columns=3)
        blocks += [reports.H3(method), reports.PanelGrid(runsets=[runs(method)], panels=[grids], hide_run_sets=True)]
    entity = {"entity": settings.entity or ""} if settings.entity or settings.dry_run else {}
    return reports.Report(project=settings.project, title=settings.title, blocks=blocks, **entity)


def specification(made: Any) -> dict[str, Any]:
    """What would be sent."""
    return made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def _library() -> Any:
    try:
        import wandb_workspaces.reports.v2 as reports
    except ImportError:
        raise InputError("wandb_workspaces is not installed: pip install wandb-workspaces") from None
    return reports


def _settings(arguments: list[str]) -> Settings:
    merged = OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_cli(arguments))
    require(not OmegaConf.is_missing(merged, "project"), "project", None, "the name of a W&B project")
    settings: Any = OmegaConf.to_object(merged)
    assert isinstance(settings, Settings)
    require(len(settings.methods) > 0, "methods", settings.methods, f"some of {', '.join(METHODS)}")
    for method in settings.methods:
        require(method in METHODS, "methods", method, f"some of {', '.join(METHODS)}")
    return settings


if __name__ == "__main__":
    run_script(main, __doc__)
