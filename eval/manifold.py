"""How samples and real images cover each other: every image is the centre of a ball that reaches to its k-th neighbour."""

from __future__ import annotations

import numpy as np

from models.neighbours import distance_blocks, k_nearest


def coverage_of_balls(real: np.ndarray, samples: np.ndarray, k: int) -> dict[str, float]:
    """Of float32 features [N, D] and [M, D], N, M > k; open balls, as the `prdc` package has them.

    precision   share of samples inside a real image's ball (Kynkäänniemi et al. 2019, eq. 1-2)
    recall      share of real images inside a sample's ball
    density     real images' balls that a sample is in, over k; not bounded by 1 (Naeem et al. 2020)
    coverage    share of real images whose ball has a sample in it (the same)
    """
    radius, radius_of_samples = (k_nearest(z, z, k + 1)[0][:, k] for z in (real, samples))  # the nearest is itself
    balls_around = np.zeros(len(samples), np.int64)
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, columns, squared in distance_blocks(samples, real):
        distance = squared.sqrt().float().numpy()  # rounded as the radii are: of a copy, both are the same
        inside = distance < radius[columns]
        balls_around[rows] += inside.sum(1)
        covered[columns] |= inside.any(0)
        recalled[columns] |= (distance < radius_of_samples[rows, None]).any(0)
    return {
        "precision": float((balls_around > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(balls_around.mean() / k),
        "coverage": float(covered.mean()),
    }
