"""`--help`, and errors of composition as one line."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from conf.schema import EXTENSIONS, added
from errors import InputError, unusable
from tracking import ranks

_USAGE = """\
python run.py [group=option …] [key=value …]      one run
python run.py -m key=value1,value2 …              a sweep: every combination
python run.py -m … +selection=private              the best of its settings alone is released, and its choice is paid for
python run.py +experiment=NAME +scale=smoke       a paper's experiment on the embedded digits, in seconds
python run.py … plan_only=true                    what it would cost, as JSON; opens no private image
python run.py … --cfg job                         the composed configuration
python run.py … hydra.run.dir=DIR                 the run directory; an unfinished run there is resumed

Groups and their options (the default is marked *):
"""
_DEFAULTS = {
    "dataset": "digits",
    "method": "pe",
    "model": "digits_unet",
    "privacy": "default",
    "eval": "default",
    "tracker": "jsonl",
    "tuned": "digits/digits_unet/pe",  # DATASET/MODEL/METHOD, where there is one
}
_KEYS = """
Main keys (every group's keys: --cfg job):
  privacy.epsilon | privacy.noise_multiplier    exactly one: e.g. privacy.epsilon=1, or
                                                privacy.epsilon=null privacy.noise_multiplier=2.0
  privacy.delta, privacy.accountant             accountant: pld, prv, rdp
  privacy.signing_key                           a file with an Ed25519 key of yours, which signs the certificate
  method.num_samples                            size of the synthetic set (pe: of the population)
  method.iterations, method.variation_degrees   pe: rounds, and the degree of variation of each (1: nearly the same image)
  method.lookahead, method.threshold            pe: k and H
  method.steps, method.batch_size, method.augmult, method.learning_rate    of DP-SGD (dp_diffusion, …): K = augmult views an image
  method.warm_up.epsilon                        ε of class moments first; the digits have one, and tuned=none turns it off
  method.adapter, method.rank, method.guidance  dp_loda: loda, lora, attention, norm_bias, full; r; classifier-free guidance
  dataset.path, dataset.fraction                folder: your images; a fixed part of the private images
  eval.downstream.seeds                         classifiers trained, for a spread
  eval.downstream.classifier, .ensemble, .sizes, .pretrain_steps, .choose_from    which, their joint vote, on fewer samples, …
  eval.features                                 of whose public_features: a folder; null: the dataset's, or else the model's
  eval.frechet.embedding, .reference            and of kernel, manifold, inception_score: one or a list; train, test or private
  seed, device, tracker.project
"""
_KINDS = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}  # as OmegaConf calls them


def print_help(config_dir: str) -> None:
    """Groups and options as the configuration folder has them, each with the first comment of its file; then those of
    extensions, each with the first line of what its component says of itself."""
    print(_USAGE)
    for group in (*_DEFAULTS, "adapter", "experiment", "scale", "selection"):
        print(f"  {group if group in _DEFAULTS else '+' + group}")
        for path in sorted(Path(config_dir, group).rglob("*.yaml")):
            option = path.relative_to(Path(config_dir, group)).with_suffix("").as_posix()
            comments = [
                line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line
            ]
            mark = "*" if _DEFAULTS.get(group) == option else " "
            print(f"   {mark} {option:<16} {comments[0] if comments else ''}")
        for option, component in added(group).items():
            told = component.__doc__ or ""
            told = "" if told.startswith(f"{component.__name__}(") else told.strip()  # which dataclasses write
            print(f"     {option:<16} {told.splitlines()[0] if told else f'from {component.__module__}'}")
    print(_KEYS)


def goes_on_with(program: str, overrides: Sequence[str]) -> str:
    """The command for a shell, with the extensions that it needs."""
    extensions = f"{EXTENSIONS}={shlex.quote(os.environ[EXTENSIONS])} " if os.environ.get(EXTENSIONS) else ""
    return f"{extensions}python {program} {shlex.join(overrides)}"


def run_script(main: Callable[[list[str]], None], usage: str | None = None) -> None:
    """`main(arguments)`, or `usage` where help is asked for; a user's mistake is one line, and exit status 2."""
    if usage and {"--help", "-h"} & set(sys.argv[1:]):
        print(usage)
        return
    try:
        main(sys.argv[1:])
    except Exception as error:
        if (line := one_line(error)) is None or shows_tracebacks():
            raise
        if ranks.local_rank() == 0:
            print(line, file=sys.stderr)
        sys.exit(2)


def shows_tracebacks() -> bool:
    """Whether the environment asks for the traceback of a user's mistake, too."""
    return bool(os.environ.get("DP_SYNTHESIS_TRACEBACK"))


def launch_failure(error: BaseException) -> str | None:
    """The line for a run directory that Hydra could not make, before any code of ours ran."""
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        return f"error: {unusable('hydra.run.dir', error.filename, 'it is a file; give a directory')}"
    if isinstance(error, PermissionError) and error.filename:
        return f"error: {unusable('hydra.run.dir', error.filename, 'permission is denied')}"
    return None


def one_line(error: BaseException) -> str | None:
    """The line for a user's mistake; None for an error that is not one."""
    if isinstance(error, InputError):
        return f"error: {error}"
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, MissingMandatoryValue):
        return f"error: {cause.full_key} must be given: {cause.full_key}=…"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        known = ""
        if cause.object_type and dataclasses.is_dataclass(cause.object_type) and "not in" in str(cause.msg or cause):
            known = f"; allowed: {', '.join(sorted(f.name for f in dataclasses.fields(cause.object_type)))}"
        first = str(cause.msg or cause).splitlines()[0]
        if wrong := re.fullmatch(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", first):
            return f"error: {cause.full_key} must be {_KINDS.get(wrong[2], wrong[2])}, not {wrong[1]}."
        return f"error: {cause.full_key}: {first}{known}"
    text = re.sub(r"\s*\n\s*", " ", str(error).split("Config search path:")[0]).strip()
    if re.search(r"no viable alternative at|mismatched input|extraneous input|token recognition error", text):
        quotes = "a value with brackets, commas or spaces needs quotes around it within those of the shell: \"key='value'\""
        text = f"{text.split(' See https')[0]} ({quotes})"
    return f"error: {text}"
