"""Judge any release, or any npz of images and labels, against real images.

    python -m scripts.evaluate release=runs/…/release                       # as the run itself would, on its own images
    python -m scripts.evaluate release=samples.npz dataset=cifar10 model=dpd_32 eval.frechet.embedding=pixels
    python -m scripts.evaluate release=… eval.frechet.reference=test out=judged
    python -m scripts.evaluate release=runs/…/more_samples eval.frechet.enabled=false    # what scripts.sample wrote

Of a release that is a classifier (method=dp_classifier) only its accuracy is measured.

Numbers are measured on real data: they must not be shared as the release may. They are written to `out`/metrics.json, by default
`internal/judged/` of its run (`internal/NAME_judged/` for a folder NAME of shards). Classifiers read shards one by one, so
that there may be more than memory holds; distances read all of them. A killed evaluation goes on with the same command. It is
the work of one process: under torchrun the others leave it to the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.compose import OWN_IMAGES, compose_script, from_stored
from conf.help import run_script
from data.dataset import Dataset
from data.shards import is_sharded
from disk import private_folder, write_json
from errors import require, unusable
from eval.config import Evaluation
from eval.evaluator import EvaluationContext
from eval.run import failure, run_evaluators
from models.classifiers.released import ReleasedClassifier
from models.public.settings import Model
from pipeline.config import check_device, refuse_added_keys, torch_device
from pipeline.contents import open_contents
from store.run_dir import run_of
from tracking import ranks


@dataclass(kw_only=True)
class Judging:
    release: str = MISSING  # a release/ folder, an npz, or a folder of shards
    dataset: Dataset = MISSING
    model: Model = MISSING  # whose features distances may use
    eval: Evaluation = MISSING
    out: str | None = None
    seed: int = 0
    device: str = "auto"


def main(overrides: list[str]) -> None:
    # Setup
    settings = _settings(overrides)
    if ranks.rank() > 0:
        return
    release = Path(settings.release)
    made = open_contents(release, settings.dataset)
    evaluation = settings.eval.of_classifiers() if isinstance(made, ReleasedClassifier) else settings.eval
    settings.dataset.prepare()
    for name, evaluator in evaluation.evaluators.items() if isinstance(made, ReleasedClassifier) else ():
        evaluator.check_classifier(f"eval.{name}")
    evaluation.prepare(settings.dataset)
    spaces = evaluation.spaces(settings.dataset, settings.model)
    spaces.prepare(evaluation.embeddings())
    settings.model.prepare()
    device = torch_device(settings.device)
    beside = f"{release.name}_judged" if is_sharded(release) else "judged"
    out = Path(settings.out) if settings.out else run_of(release).internal / beside
    require("release" not in out.resolve().parts, "out", out, "outside release/ folders, which may be shared")
    private_folder(run_of(release).internal if settings.out is None else out)
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    context = EvaluationContext(
        made,
        settings.dataset,
        spaces.on(device),
        device,
        settings.seed,
        figures=figures,
        private_figures=settings.eval.private_figures,
        checkpoints=run_of(release).checkpoints,
        model=settings.model,
        spaces=spaces,
        cache=settings.eval.cache_folder,
    )

    # Run
    numbers, errors = run_evaluators(evaluation.evaluators, context, out / "evaluators", log=lambda numbers: None)

    # Report
    for name, value in numbers.items():
        print(f"{name:<44} {value:.6g}")
    print(f"measured on real data, not to be shared: {out}")
    if errors:
        raise SystemExit(f"{len(errors)} evaluator(s) failed: {failure(errors)}")
    write_json(out / "metrics.json", numbers)


def _settings(overrides: list[str]) -> Judging:
    composed = compose_script("evaluate", Judging, overrides)
    allowed = "a release/ folder, a folder of shards, or an npz of images and labels"
    require(not OmegaConf.is_missing(composed, "release"), "release", None, allowed)
    settings: Any = OmegaConf.to_object(composed)
    assert isinstance(settings, Judging)
    refuse_added_keys(settings)
    _as_the_run(settings, overrides)
    check_device(settings.device)
    settings.dataset.check()
    settings.model.check(settings.dataset)
    settings.eval.check(settings.dataset, settings.model)
    return settings


def _as_the_run(settings: Judging, overrides: list[str]) -> None:
    """Where neither is named: images, model and seed of the run whose release it is, and what judges it, if anything did.

    Single keys of `eval` change what the run had. Where statistics are kept stays this command's own setting.
    """
    run, named = run_of(Path(settings.release)), {override.partition("=")[0].lstrip("+") for override in overrides}
    if {key.split(".")[0] for key in named} & {"dataset", "model"} or not (run.config.is_file() and run.internal.is_dir()):
        return
    problem = f"{run.config} beside it cannot be read by this version; name dataset=… and model=…"
    try:
        config = from_stored(yaml.safe_load(run.config.read_text()))
    except (ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise unusable("release", settings.release, problem) from error
    settings.dataset, settings.model = config.dataset, config.model
    settings.seed = settings.seed if "seed" in named else config.seed
    print(f"judged as {run.config} says, on the images of dataset={config.dataset.name}")
    if "eval" in named:
        return
    stored = config.eval
    if not stored.evaluators:  # eval=none
        usual = OWN_IMAGES["eval"] if config.dataset.name == "folder" else "default"
        other: Any = OmegaConf.to_object(compose_script("evaluate", Judging, [f"eval={usual}", "release=any"]))
        stored = other.eval
    changes = OmegaConf.from_dotlist([override for override in overrides if override.startswith("eval.")])
    had = {"eval": OmegaConf.structured(replace(stored, cache=settings.eval.cache))}
    changed: Any = OmegaConf.to_object(OmegaConf.merge(had, changes))
    settings.eval = changed["eval"]


if __name__ == "__main__":
    run_script(main, __doc__)
