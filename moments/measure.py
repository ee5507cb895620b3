"""Private images become noisy moments, once; everything after is post-processing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from data.dataset import Dataset
from data.private import PrivateDataset
from data.queries import Ask, Query
from data.samples import SampleSet
from errors import reject_unless, require
from method import Run, apportion
from models.api import Denoiser
from models.public.settings import Model, PublicModel
from models.seeds import numpy_rng
from moments.basis import DCT, Basis, PrincipalComponents, PrincipalLatents, largest_norm, principal_components
from moments.estimate import Gaussians, empirical, estimate
from moments.mechanism import Weights, location, location_sums, no_sums, unweighted, weighted_sums
from privacy.mechanisms import Gaussian, Spend
from tracking import ranks

PURPOSE, LOCATION, CELLS_FIRST = "moments", "location", "cells"
PUBLIC_IMAGES = 20_000  # at most, of which basis, centres and public moments are made
LARGEST_SIDE = 64
COMPONENTS, LOW_FREQUENCIES = 64, 100  # of public images; without any: on printed digits 100 taught more than 64 and 144
CELLS = 8  # of a class, where the noise is small
LEAST_NORM = 1e-6  # of clipping: float64 stays far from its ends
MOST_CHANGE = 2.0  # of the clipping norm, from public images to first moments: MNIST's latents are 1.09 and 0.94 times as wide
NEAR = 1.35  # root mean squared distances from their mean: nine in ten photographs and printed digits are nearer
CLEAR = 1000  # N/(K σ) without public images: below it X-rays were speckled, and their classifiers far apart (docs/moments.md)
VISIBLE = 200  # N/(K σ) without public images: printed digits taught 62 % at it, 44 at half, 19 at a quarter, 80 at eight times
_BLOCK = 4096  # images at a time


class BasisName(Enum):
    pixels = "pixels"
    latents = "latents"  # of the public model's autoencoder, whose decoder draws the samples


class Prior(Enum):
    classes = "classes"  # public images of the same classes
    images = "images"  # public images, whatever they show
    none = "none"  # no image: low frequencies around one grey


@dataclass(kw_only=True)
class Moments:
    """What is measured of each class. All of it is public, and so is what is made of it before the private images are read."""

    components: int | None = None  # of the basis, in which an image is a vector; null: 64, or 100 with the prior `none`
    basis: BasisName = BasisName.pixels  # what an image is a vector of
    cells: int | None = None  # parts of a class with moments of their own, by the nearest of so many centres; null: by the noise
    prior: Prior | None = None  # null: the first of these that the dataset has
    grey: float = 0.5  # with the prior `none`: the level, of 0 to 1, that images are differences from
    location_share: float = 0.1  # with it: of the budget, of 1/σ², for where images lie and how far from there; 0: not asked
    cells_share: float = 0.0  # of the budget, of 1/σ², for first moments, by whose samples cells are cut; 0: by public images
    quantile: float = 0.9  # of public images are no longer than the clipping norm
    clip_norm: float | None = None  # of a vector, pixels being 0 … 1; null: from public images, or from their location
    square_weight: float | None = None  # c of `moments.mechanism`, for second moments; null: by the noise, see `weights`

    def check_moments(self, key: str, dataset: Dataset, model: Model, conditional: bool) -> None:
        height, width, _ = dataset.shape
        few = self.components is None or 1 <= self.components <= 1024
        require(few, f"{key}.components", self.components, "from 1 to 1024, or null")
        small = max(height, width) <= LARGEST_SIDE
        require(small, "dataset", dataset.name, f"one of images up to {LARGEST_SIDE}×{LARGEST_SIDE} for {key}")
        prior, found = self.prior, best_prior(dataset)
        allowed = (
            "none, as the dataset has no public images" if found is Prior.none else "images or none, as public classes differ"
        )
        order = list(Prior)
        require(prior is None or order.index(prior) >= order.index(found), f"{key}.prior", prior, allowed)
        used = prior or found
        if self.basis is BasisName.latents:
            allowed = f"a folder, as {key}.basis=latents needs a public autoencoder"
            require(model.pretrained is not None or not model.latents, "model.pretrained", None, allowed)
            require(model.latents, f"{key}.basis", self.basis, f"pixels, as model={model.name} has no autoencoder")
            same, sides = model.image_shape == dataset.shape, "×".join(map(str, model.image_shape))
            require(same, f"{key}.basis", self.basis, f"pixels, as model={model.name} encodes images of {sides}")
            require(used is not Prior.none, f"{key}.basis", self.basis, "pixels, as no image is public")
        require(self.cells is None or 1 <= self.cells <= 64, f"{key}.cells", self.cells, "from 1 to 64, or null")
        one = used is Prior.classes or self.cells in (None, 1)
        require(one, f"{key}.cells", self.cells, f"1 or null, as {key}.prior is {used.value}")
        require(0 <= self.grey <= 1, f"{key}.grey", self.grey, "from 0 to 1")
        require(0 <= self.location_share < 1, f"{key}.location_share", self.location_share, "from 0 to below 1")
        require(0 <= self.cells_share < 1, f"{key}.cells_share", self.cells_share, "from 0 to below 1")
        cut = used is not Prior.none or not self.cells_share
        require(cut, f"{key}.cells_share", self.cells_share, f"0, as {key}.prior=none has no cells")
        require(0 < self.quantile <= 1, f"{key}.quantile", self.quantile, "above 0 and at most 1")
        norm = self.clip_norm
        usable = norm is None or LEAST_NORM <= norm <= 1 / LEAST_NORM
        require(usable, f"{key}.clip_norm", norm, f"from {LEAST_NORM:g} to {1 / LEAST_NORM:g}, or null")
        grouped = isinstance(self.cells, int) and self.cells > 1
        require(conditional or not grouped, f"{key}.cells", self.cells, "1 or null without classes")
        c = self.square_weight
        require(c is None or 0 <= c < 1, f"{key}.square_weight", c, "0 (means alone) or more, and below 1, or null")
        alone = used is not Prior.none or c != 0
        require(alone, f"{key}.square_weight", c, f"above 0 or null, as {key}.prior=none knows no covariance")

    def prior_of(self, dataset: Dataset) -> Prior:
        return self.prior or best_prior(dataset)

    def moments_spends(self, dataset: Dataset, sigma: float) -> list[Spend]:
        nothing_public = self.prior_of(dataset) is Prior.none
        first, second = self.sigmas(sigma, nothing_public)
        before = [] if first is None else [Spend(LOCATION if nothing_public else CELLS_FIRST, Gaussian(first))]
        return [*before, Spend(PURPOSE, Gaussian(second))]

    def moments_hints(self, dataset: Dataset, sigma: float, conditional: bool) -> list[str]:
        """A sentence where N/(K σ) is below `CLEAR` or `VISIBLE`, and no image is public."""
        classes = len(dataset.classes) if conditional else 1
        nothing_public = self.prior_of(dataset) is Prior.none
        ratio = dataset.num_private / (classes * sigma)
        if not nothing_public or ratio >= CLEAR:
            return []
        better = "a larger epsilon, fewer classes, or public images of the same kind (dataset.public_path) make it better"
        expected = "mostly noise at this budget, and so will be what is drawn from them"
        if ratio >= VISIBLE:
            expected = "noisy at this budget: expect speckled images, and results that differ from run to run"
        return [f"Moments of {dataset.counted(classes)} are {expected} (N/(K·σ) = {ratio:.0f}, docs/choosing.md); {better}."]

    def sigmas(self, sigma: float, nothing_public: bool) -> tuple[float | None, float]:
        """Noise multipliers for what is asked first, if anything is, and for the moments: together the cost of `sigma`."""
        share = self.location_share if nothing_public else self.cells_share
        return (sigma / share**0.5 if share else None), sigma / (1 - share) ** 0.5

    def components_of(self, prior: Prior) -> int:
        return self.components or (LOW_FREQUENCIES if prior is Prior.none else COMPONENTS)

    def moments_memory(self, dataset: Dataset, num_samples: int) -> int:
        """Bytes: public images as vectors of float64, what is kept of every cell, and so many samples."""
        prior = self.prior_of(dataset)
        groups = len(dataset.classes) * (self.cells or (CELLS if prior is Prior.classes else 1))
        public = 3 * 8 * PUBLIC_IMAGES * math.prod(dataset.shape) if dataset.num_public else 0
        return public + 5 * 8 * groups * self.components_of(prior) ** 2 + 10 * num_samples * math.prod(dataset.shape)


def best_prior(dataset: Dataset) -> Prior:
    if dataset.num_public == 0:
        return Prior.none
    return Prior.classes if list(dataset.public_classes) == list(dataset.all_classes) else Prior.images


def weights(size: int, groups: int, sigma: float, knows_shape: bool, square: float | None = None) -> Weights:
    """How much of an image's contribution is count, mean and second moment, by public numbers alone.

    N/(G σ) is how far the mean of a group of N/G images stands above its noise. Below 150 a second moment costs the mean more
    than it brings, where a public covariance is known; it was found on printed digits of other faces (docs/moments.md).
    """
    if square is None:
        square = 0.7 if size / (groups * max(sigma, 1e-12)) >= 150 or not knows_shape else 0.0
    count = 0.1 if square else 0.2
    return Weights(count, (1 - count**2 - square**2) ** 0.5, square)


def cells(size: int, classes: int, sigma: float) -> int:
    """How many cells of a class: 8 where N/(K σ) is 4,000 or more, else 1, by public numbers alone.

    On printed digits of other faces 8 taught a classifier more at 11,000 and 4,600, and no more at 2,500 and 1,600
    (docs/moments.md).
    """
    return CELLS if size / (classes * max(sigma, 1e-12)) >= 4000 else 1


@dataclass(frozen=True)
class Space:
    """Where moments are taken: a basis, a centre for every cell, and what public images have there."""

    basis: Basis
    centres: np.ndarray  # float64 [K · cells, d], in the units of the basis
    cells: int
    clip_norm: float
    public: Gaussians | None  # of vectors, per cell

    @property
    def groups(self) -> int:
        return len(self.centres)

    def place(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors float64 [N, d] of norm at most 1, and the cells, int64 [N], whose centres they are differences from."""
        z = self.basis.to_vectors(images)
        groups = _nearest(z, labels, self.centres, self.cells)
        z = (z - self.centres[groups]) / self.clip_norm
        z[~np.isfinite(z).all(1)] = 0.0  # no noise hides what is not a number
        return z / np.maximum(1.0, np.linalg.norm(z, axis=1, keepdims=True)), groups

    def moved(self, mean: np.ndarray, radius: float, clip_norm: float | None) -> Space:
        """Around where images were found to lie, `mean` [d] and `radius` in units of the norm; `clip_norm` if it is given."""
        norm = clip_norm or self.clip_norm * max(min(1.0, NEAR * radius), LEAST_NORM)
        return replace(self, centres=self.centres + mean * self.clip_norm, clip_norm=max(norm, LEAST_NORM))


@dataclass(frozen=True)
class Moment:
    """Noisy moments as something to draw images from."""

    space: Space
    gaussians: Gaussians

    @property
    def class_counts(self) -> np.ndarray:
        """float64 [K]"""
        return self.gaussians.counts.reshape(-1, self.space.cells).sum(1)

    def vectors(self, label: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """float64 [size, d], of a class, cell by cell."""
        space = self.space
        cells = slice(label * space.cells, (label + 1) * space.cells)
        drawn = [
            self.gaussians.draw(group, count, rng) * space.clip_norm + space.centres[group]
            for group, count in enumerate(apportion_or_none(self.gaussians.counts[cells], size), start=cells.start)
        ]
        return np.concatenate(drawn)

    def draw(self, sizes: np.ndarray, rng: np.random.Generator) -> SampleSet:
        """So many images of each class, int64 [K]."""
        images = [self.space.basis.to_images(self.vectors(label, size, rng)) for label, size in enumerate(sizes)]
        return SampleSet(np.concatenate(images), np.repeat(np.arange(len(sizes)), sizes), len(sizes))


def apportion_or_none(counts: np.ndarray, size: int) -> np.ndarray:
    """Of `size` samples each cell's share; with fewer samples than cells the largest cells get one each."""
    if size >= len(counts):
        return apportion(counts, int(size))
    shares = np.zeros(len(counts), np.int64)
    shares[np.argsort(-counts, kind="stable")[:size]] = 1
    return shares


def measure(
    settings: Moments, private: PrivateDataset, model: PublicModel, run: Run, sigma: float, conditional: bool = True
) -> Moment:
    """At the cost of one Gaussian mechanism of noise multiplier `sigma` on the private images: see `moments.mechanism`."""
    classes = private.num_classes if conditional else 1
    measured = measurement(settings, run.dataset, model, classes, private.size, sigma, run.seed, conditional)
    return measured(run.asking(private))


def measurement(
    settings: Moments,
    dataset: Dataset,
    model: PublicModel,
    classes: int,
    size: int,
    sigma: float,
    seed: int,
    conditional: bool,
) -> Callable[[Ask], Moment]:
    """The same of whatever answers; what is public is made before it is asked."""
    denoiser = model.denoiser if settings.basis is BasisName.latents else None
    space = space_of(settings, dataset, denoiser, classes, conditional, seed, cells(size, classes, sigma))
    return functools.partial(measure_in, space, settings, size, sigma, conditional, seed)


def measure_in(space: Space, settings: Moments, size: int, sigma: float, conditional: bool, seed: int, ask: Ask) -> Moment:
    """Of `size` images, from the space that public images and constants give."""
    first, second = settings.sigmas(sigma, space.public is None)
    if first is not None and space.public is None:
        query = Query(LOCATION, lambda samples: exact_location(space, samples))
        mean, radius = location(ask(query, first), size, first)
        space = space.moved(mean, radius, settings.clip_norm)
    elif first is not None:
        coarse = _moment(CELLS_FIRST, space, settings, size, first, conditional, ask)
        space = recut(coarse, settings, numpy_rng(seed, "moments/cells"))
    return _moment(PURPOSE, space, settings, size, second, conditional, ask)


def _moment(purpose: str, space: Space, settings: Moments, size: int, sigma: float, conditional: bool, ask: Ask) -> Moment:
    parts = weights(size, space.groups, sigma, space.public is not None, settings.square_weight)
    noisy = ask(Query(purpose, lambda samples: exact_sums(space, parts, samples, conditional)), sigma)
    return Moment(space, estimate(unweighted(noisy, space.basis.size, parts, sigma), size, space.public))


def exact_location(space: Space, samples: SampleSet) -> np.ndarray:
    """float64 [d + 1]; classes do not matter."""
    sums, shares = location_sums(np.zeros((0, space.basis.size))), samples.shares()
    for start in range(0, len(samples), _BLOCK):
        rows = slice(start, start + _BLOCK)
        images = samples.images[rows]
        sums += location_sums(space.place(images, np.zeros(len(images), np.int64))[0], shares[rows])
    return sums


def exact_sums(space: Space, parts: Weights, samples: SampleSet, conditional: bool = True) -> np.ndarray:
    """float64 [G, 1 + d + d (d + 1) / 2]"""
    labels = samples.labels if conditional else np.zeros_like(samples.labels)
    sums, shares = no_sums(space.groups, space.basis.size), samples.shares()
    for start in range(0, len(samples), _BLOCK):
        rows = slice(start, start + _BLOCK)
        sums += weighted_sums(*space.place(samples.images[rows], labels[rows]), space.groups, parts, shares[rows])
    return sums


def space_of(
    settings: Moments,
    dataset: Dataset,
    denoiser: Denoiser | None,
    classes: int,
    conditional: bool,
    seed: int,
    usual_cells: int = 1,
) -> Space:
    """Of public images and constants alone; `usual_cells` where the settings leave them open, `denoiser` for latents."""
    prior = settings.prior_of(dataset)
    if prior is Prior.none:
        basis: Basis = DCT(np.full(dataset.shape, settings.grey), min(settings.components_of(prior), math.prod(dataset.shape)))
        return Space(basis, np.zeros((classes, basis.size)), 1, settings.clip_norm or largest_norm(dataset.shape), None)
    public = dataset.some_public()
    rows = numpy_rng(seed, "moments/public").permutation(len(public))[:PUBLIC_IMAGES]
    images, labels = public.images[np.sort(rows)], public.labels[np.sort(rows)]
    count = settings.components_of(prior)
    if denoiser is None:
        basis = PrincipalComponents(images.mean(0) / 255.0, principal_components(images, count))
    else:
        basis = PrincipalLatents.of(denoiser, images, count)
    z = basis.to_vectors(images)
    if prior is Prior.images or not conditional:
        labels, parts = np.zeros_like(labels), 1
        centres = np.zeros((1, basis.size))
    else:
        label_of = np.full(public.num_classes, -1, np.int64)
        label_of[dataset.class_numbers] = np.arange(classes)
        kept = label_of[labels] >= 0
        z, labels, parts = z[kept], label_of[labels[kept]], settings.cells or usual_cells
        centres = _cell_centres(z, labels, classes, parts)
    groups, norm = _measured(z, labels, centres, parts, settings)
    reject_unless(norm >= LEAST_NORM, "dataset", dataset.name, "its public images are all alike; moments need some that differ")
    known = empirical((z - centres[groups]) / norm, groups, len(centres))
    if len(centres) < classes:  # the same for every class
        known = Gaussians(*(np.repeat(part, classes, 0) for part in (known.counts, known.means, known.covariances)))
        centres = np.repeat(centres, classes, 0)
    return Space(basis, centres, parts, norm, known)


def recut(coarse: Moment, settings: Moments, rng: np.random.Generator) -> Space:
    """As many cells, cut by what is drawn from first moments as they were by public images: where the private ones lie."""
    space, classes = coarse.space, len(coarse.class_counts)
    sizes = apportion(np.ones(classes), max(PUBLIC_IMAGES, classes))
    z = np.concatenate([rng.permutation(coarse.vectors(label, size, rng)) for label, size in enumerate(sizes)])
    labels = np.repeat(np.arange(classes), sizes)
    centres = _cell_centres(z, labels, classes, space.cells)
    groups, norm = _measured(z, labels, centres, space.cells, settings)
    norm = float(np.clip(norm, space.clip_norm / MOST_CHANGE, space.clip_norm * MOST_CHANGE))  # they may be all noise
    known = empirical((z - centres[groups]) / norm, groups, len(centres))
    centres, norm, known = ranks.broadcast((centres, norm, known))  # processes may round differently
    return Space(space.basis, centres, space.cells, norm, known)


def _measured(z: np.ndarray, labels: np.ndarray, centres: np.ndarray, cells: int, settings: Moments) -> tuple[np.ndarray, float]:
    """The cells of vectors, int64 [N], and a clipping norm for their differences from the centres."""
    groups = _nearest(z, labels, centres, cells)
    return groups, settings.clip_norm or float(np.quantile(np.linalg.norm(z - centres[groups], axis=1), settings.quantile))


def _nearest(z: np.ndarray, labels: np.ndarray, centres: np.ndarray, cells: int) -> np.ndarray:
    """int64 [N]: of the cells of its class, the one whose centre is nearest to each vector [N, d]; `centres` [K · cells, d]."""
    groups = labels * cells
    if cells > 1:
        mine = centres.reshape(-1, cells, z.shape[1])
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            groups[rows] += ((z[rows, None] - mine[label][None]) ** 2).sum(2).argmin(1)
    return groups


def _cell_centres(z: np.ndarray, labels: np.ndarray, classes: int, cells: int) -> np.ndarray:
    """float64 [K · cells, d]: of each class its mean, or the centres of k-means."""
    from sklearn.cluster import KMeans

    found = []
    for label in range(classes):
        mine = z[labels == label]
        mine = mine if len(mine) else z  # a class that no public image shows
        if cells == 1 or len(mine) <= cells:
            found.append(np.repeat(mine.mean(0, keepdims=True), cells, 0))
        else:
            found.append(KMeans(cells, n_init=1, random_state=0).fit(mine[:2000]).cluster_centers_)
    return np.concatenate(found)
