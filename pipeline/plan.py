"""What a run will cost, in privacy and in compute, worked out before any private image is opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from data.dataset import Dataset
from errors import reject_unless, require
from method import Method
from models.public.settings import Model
from pipeline.config import Config
from privacy.accounting import calibrate, compose_epsilon
from privacy.config import Privacy, caution
from privacy.gaussian import gaussian_noise_multiplier
from privacy.inherited import Inherited
from privacy.mechanisms import Selection, Spend, Unit
from privacy.risk import format_epsilon, risk

LEAST = 1e-3  # of the target epsilon: what must be left for a method's own noise, which less would make too large to look for
FEW = (
    50  # N/(K σ) of one Gaussian mechanism: without public images a fifth of printed digits was recognised, four fifths at 1,600
)
SELECTION = "selection"  # of a classifier, on private images: the purpose of its spend


@dataclass
class Plan:
    spends: list[Spend]
    noise_multiplier: float | None  # None: the method adds no noise
    epsilon: float  # of all spends together; at most the target
    delta: float
    inherited: Inherited = field(default_factory=Inherited)  # of these, what the public inputs have spent already

    @classmethod
    def of(cls, config: Config) -> Plan:
        inherited = Inherited.of(
            config.public_inputs(), config.model.base_is_other_data, config.dataset.name, config.privacy.unit
        )
        return cls.make(config.method, config.dataset, config.privacy, inherited)

    @classmethod
    def make(
        cls,
        method: Method,
        dataset: Dataset,
        privacy: Privacy,
        inherited: Inherited | None = None,
        become: Callable[[list[Spend]], list[Spend]] = list,
    ) -> Plan:
        """Noise multiplier from the target epsilon, or epsilon from the fixed noise multiplier.

        `inherited`: what the public inputs have spent already, which is part of both. `become`: what the spends of the run itself
        are part of.
        """
        if dataset.unit is not privacy.unit:
            raise ValueError(f"the dataset counts {dataset.unit.plural}, and privacy.unit is {privacy.unit.value}")
        known = privacy.unit is Unit.image or vars(type(method)).get("protects_users", False)  # not what a method inherits
        require(known, "privacy.unit", privacy.unit, f"image, as method={method.name} bounds what single images change")
        delta, inherited = privacy.delta_for(dataset.num_private), inherited or Inherited()

        def own(noise_multiplier: float) -> list[Spend]:
            share = privacy.selection_epsilon
            selection = [] if share is None else [Spend(SELECTION, Selection(share))]
            return [*method.spends(noise_multiplier, dataset, privacy), *selection]

        def every(noise_multiplier: float) -> list[Spend]:
            return [*inherited.spends, *become(own(noise_multiplier))]

        others = own(2.0)
        fixed = [spend for spend in own(1.0) if not method.needs_noise or spend in others]
        fixed = [*inherited.spends, *become(fixed)]
        spent = compose_epsilon(fixed, delta, privacy.accountant)
        if privacy.epsilon is not None and math.isfinite(spent):
            enough = spent <= privacy.epsilon * (1 - LEAST if method.needs_noise else 1)
            allowed = f"above the {format_epsilon(spent)} that {', '.join(spend.purpose for spend in fixed)} cost already"
            if inherited.told:
                other = "model.base_is_other_data=true, if those images were other people's"
                allowed = f"{allowed} ({inherited.told}; or {other})"
            require(enough, "privacy.epsilon", privacy.epsilon, allowed)
        if not method.needs_noise:
            return cls(fixed, None, spent, delta, inherited)
        sigma = privacy.noise_multiplier
        if sigma is None:
            assert privacy.epsilon is not None
            sigma = calibrate(every, privacy.epsilon, delta, privacy.accountant)
        spends = every(sigma)
        epsilon = compose_epsilon(spends, delta, privacy.accountant)
        problem = f"epsilon is infinite at privacy.noise_multiplier={sigma:g}; a larger delta or more noise is needed"
        reject_unless(math.isfinite(epsilon), "privacy.delta", delta, problem)
        return cls(spends, sigma, epsilon, delta, inherited)

    def describe(self, method: Method, dataset: Dataset, privacy: Privacy) -> dict[str, Any]:
        """`method`, `dataset` and `privacy` of a plan's document: ε, the mechanisms that spend it, and the risk."""
        warning = caution(self.delta, dataset.num_private, privacy.unit)
        return {
            "method": method.name,
            "dataset": dataset.facts(),
            "privacy": {
                "epsilon": self.epsilon if math.isfinite(self.epsilon) else "inf",
                "delta": self.delta,
                **({"caution": warning} if warning else {}),
                "noise_multiplier": self.noise_multiplier,
                "accountant": privacy.accountant.value,
                "unit": privacy.unit.value,
                "neighbouring": privacy.unit.neighbouring,
                "events": [spend.to_dict() for spend in self.spends],
                "risk": risk(self.spends, self.delta),
            },
        }

    def hints(self, method: Method, dataset: Dataset, model: Model, privacy: Privacy) -> list[str]:
        """What public numbers alone say of how good the release will be: of any method on so few units, and of this method."""
        found = method.hints(dataset, model, privacy, self.noise_multiplier)
        if not 0 < self.epsilon < math.inf:
            return found
        classes = len(dataset.classes) if method.conditional else 1
        enough = dataset.num_private / (classes * gaussian_noise_multiplier(self.epsilon, self.delta)) >= FEW
        useless = "samples that are of no use, unless the public model makes nearly such images already"
        if method.released_classifier:
            useless = "a classifier that is of no use"
        few = (
            f"{dataset.counted(classes)} are too few for "
            f"epsilon={format_epsilon(self.epsilon)} to leave much of them: expect {useless} "
            "(docs/moments.md has what was measured)."
        )
        return found if enough else [few, *found]


def network_work(method: Method, dataset: Dataset, model: Model) -> dict[str, Any]:
    """`model` and `work` of a plan's document: parameters, steps, passes and FLOPs; None where nobody knows one."""
    facts, work, training = model.facts(), method.work(dataset, model), method.training_facts(dataset, model)
    forward, calls = facts["flops"], work["network_calls"]
    backward = (work.get("backward_calls") or 0) * training["backward_flops"]
    flops = None if calls is None or (forward is None and calls) else calls * (forward or 0) + backward
    return {
        "model": {
            "name": model.name,
            "parameters": facts["parameters"],
            "trainable_parameters": training["trainable_parameters"],
        },
        "work": {**work, "flops": flops},
    }
