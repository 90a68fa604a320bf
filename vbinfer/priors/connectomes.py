"""Priors over connectomes, learned from those of a cohort."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.io import npz
from vbinfer.priors.cohort import FORWARD, check_subjects, upper_edges
from vbinfer.priors.factors import Factors, fit, held_out, latent

_ALONE, _STRUCTURE = "weights", "sc"


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One kind of matrix, such as structure: edges and factors.

    Args:
        edges: which of the N(N-1)/2 pairs, upper triangle by rows, are modelled: those that are not 0 in every subject.
        diagonal: `[N]`, that which all subjects share (1 of correlations), else 0.
        mean: `[E]`, of the transformed edges.
        loadings: `[E, k]`.
        noise: variance `[E]` that the factors leave.
    """

    edges: np.ndarray
    diagonal: np.ndarray
    mean: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray

    def __post_init__(self) -> None:
        n, count = len(self.diagonal), int(np.sum(self.edges))
        shapes = [len(self.edges), *map(len, (self.mean, self.loadings, self.noise))]
        if shapes != [n * (n - 1) // 2, count, count, count]:
            raise ValueError(f"{count} edges of {n} nodes do not fit mean, loadings and noise of {shapes[1:]}")
        if not all(np.isfinite(a).all() for a in (self.diagonal, self.mean, self.loadings, self.noise)):
            raise ValueError("a connectome prior holds NaN or infinite numbers")
        if np.any(self.noise <= 0.0):
            raise ValueError("the noise of a connectome prior must be positive")

    @property
    def place(self) -> np.ndarray:
        """Number of the edge at `[i, j]`, or E."""
        n = len(self.diagonal)
        number = np.full(len(self.edges), len(self.mean))
        number[self.edges] = np.arange(len(self.mean))
        place = np.full((n, n), len(self.mean))
        place[np.triu_indices(n, 1)] = number
        return np.minimum(place, place.T)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ConnectomePrior:
    """Connectomes of a cohort, as a mean and k factors.

        g(weights_ij) = mean_ij + sum_k loadings_ijk z_k + e_ij,   z ~ N(0, I_k)           i < j, weights symmetric

    g is the transform. With `method="ppca"` e has one variance (probabilistic PCA, Tipping & Bishop 1999), with "fa"
    one per edge (factor analysis); several views, such as structure and function, share z and have a variance, or
    variances, each. z is standard normal: a parameter like any other, for samplers as it is.

    Made by `fit`. Arrays in, arrays out: weights are `[N, N]` or `[subject, N, N]`, several views a mapping of these.

    Attributes:
        views: name to `View`.
        k: number of factors.
        transform, method: as of `fit`.
        held_out: with k="cv", nats per edge on subjects left out, by k.

    >>> import jax, numpy as np, vbinfer as vb
    >>> rng = np.random.default_rng(0)
    >>> cohort = np.exp(rng.normal(size=(30, 1, 1)) + rng.normal(size=(30, 6, 6)) / 4)
    >>> cohort = (cohort + cohort.swapaxes(1, 2)) * (1 - np.eye(6))
    >>> lat = vb.ConnectomePrior.fit(cohort, k=2)
    >>> prior = vb.Prior(lat.parts("connectome.z"))
    >>> theta = prior.sample(key=jax.random.key(0))
    >>> lat.to_paths("connectome.z")(theta)["connectome.weights"].shape
    (6, 6)

    doi:10.1111/1467-9868.00196
    """

    views: Mapping[str, View]
    transform: str | None
    method: str
    held_out: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        views = self.views.values()
        if len({len(view.diagonal) for view in views}) != 1 or len({view.loadings.shape[1] for view in views}) != 1:
            raise ValueError("the views of a connectome prior differ in nodes or factors")

    def __repr__(self) -> str:
        views = ", ".join(f"{name} ({len(view.mean)} edges)" for name, view in self.views.items())
        return f"ConnectomePrior({self.n_nodes} nodes, k={self.k}, {self.method}, {self.transform}: {views})"

    @classmethod
    def fit(
        cls,
        weights: Any,
        k: int | str = 8,
        *,
        method: str = "ppca",
        transform: str | None = "log1p",
    ) -> "ConnectomePrior":
        """Fit to a cohort, by maximum likelihood.

        Args:
            weights: `[S, N, N]`, symmetric; or a mapping of views, `{"sc": ..., "fc": ...}`, with NaN throughout where
                a subject lacks a view.
            k: number of factors, at most S - 1; or "cv", the number with the highest score on subjects left out
                (five folds).
            method: "ppca" or "fa".
            transform: "log1p", "sqrt" or None, of the view that becomes the connectome: "sc", else the first. Other
                views are taken as they are.

        Raises:
            ValueError: too few subjects for k; weights that are not symmetric, hold NaN outside a mapping or in part of
                a view, or are negative with a transform; views of different subjects or nodes; a subject without any
                view; subjects who are all alike; an unknown method or transform.
        """
        method = _check.one_of(method, "method", ("ppca", "fa"))
        transform = _check.one_of(transform, "transform", FORWARD)
        given = weights if isinstance(weights, Mapping) else {_ALONE: weights}
        main = _main(given)
        read = {
            str(name): upper_edges(w, name, transform if name == main else None, isinstance(weights, Mapping))
            for name, w in given.items()
        }
        counts = {name: (len(upper), len(diagonal)) for name, (upper, diagonal) in read.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {s} of {n} nodes" for name, (s, n) in counts.items())
            raise ValueError(f"views are of the same subjects and nodes, with NaN for those who lack one; {told}")
        edges = {name: (np.nan_to_num(upper) != 0.0).any(axis=0) for name, (upper, _) in read.items()}
        for name, there in edges.items():
            if not there.any():
                raise ValueError(f"{name} has no edge in any subject: every one is 0 or NaN; leave that view out")
        x = np.concatenate([read[name][0][:, edges[name]] for name in read], axis=1)
        view = np.repeat(np.arange(len(read)), [edges[name].sum() for name in read])
        check_subjects(x)
        scores: dict[int, float] = {}
        if k == "cv":
            scores = held_out(x, view, method == "fa")
            k = max(scores, key=scores.__getitem__)
        most = min(len(x), x.shape[1]) - 1
        if isinstance(k, str) or _check.count(k, "k", 8, least=0) > most:
            raise ValueError(
                f'k={k!r} was given with {len(x)} subjects and {x.shape[1]} edges; give k of at most {most}, or k="cv"'
            )
        model = fit(x, view, k, method == "fa")
        parts = {
            name: View(edges[name], diagonal, model.mean[view == v], model.loadings[view == v], model.noise[view == v])
            for v, (name, (_, diagonal)) in enumerate(read.items())
        }
        return cls(parts, transform, method, scores)

    @property
    def k(self) -> int:
        """Number of factors, the elements of z."""
        return self._connectome.loadings.shape[1]

    @property
    def n_nodes(self) -> int:
        """Number of nodes, N."""
        return len(self._connectome.diagonal)

    @property
    def _connectome(self) -> View:
        return self.views[_main(self.views)]

    @property
    def _model(self) -> Factors:
        views = self.views.values()
        mean, loadings, noise = (np.concatenate([getattr(v, a) for v in views]) for a in ("mean", "loadings", "noise"))
        return Factors(mean, loadings, noise, np.repeat(np.arange(len(views)), [len(v.mean) for v in views]))

    # ---- in a prior and a simulator

    def parts(self, z: str) -> dict[str, dist.Distribution]:
        """The prior of z under its name: `vb.Prior({**lat.parts("connectome.z"), ...})`."""
        _check.count(self.k, "k", 8)
        return {z: dist.Normal(0.0, 1.0).expand([self.k])}

    def to_paths(self, z: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Function for `to_paths=`: the connectome in place of z.

        It gives "connectome.weights" `[N, N]`, without the noise that the factors leave. Other names of theta pass
        through.
        """
        return functools.partial(_put, self, z)

    def decode(self, z: Any) -> Any:
        """Weights `[..., N, N]` of z `[..., k]`.

        Edges below 0 are 0 before the transform is undone. By NumPy of its arrays, by JAX of its own.
        """
        if np.shape(z)[-1:] != (self.k,):
            raise ValueError(f"z has shape {list(np.shape(z))}; expected [..., {self.k}]")
        return self._matrices(_main(self.views), z if isinstance(z, np.ndarray) else jnp.asarray(z))

    def sample(self, *, key: PRNGKey, n: int | None = None) -> Any:
        """Draw new subjects.

        `[n, N, N]`, or `[N, N]` for n=None, with what the factors leave unexplained: without it they would vary too
        little. Of several views a mapping.
        """
        shape = () if n is None else (_check.count(n, "n"),)
        k_z, k_noise = jax.random.split(_check.key(key))
        z = jax.random.normal(k_z, (*shape, self.k))
        drawn = {}
        for i, (name, view) in enumerate(self.views.items()):
            noise = jax.random.normal(jax.random.fold_in(k_noise, i), (*shape, len(view.mean)))
            drawn[name] = self._matrices(name, z, noise)
        return drawn if len(drawn) > 1 else drawn[_main(drawn)]

    # ---- of subjects

    def encode(self, w: Any) -> tuple[np.ndarray, np.ndarray]:
        """Posterior of z given weights: mean `[k]`, covariance `[k, k]`.

            cov = (I + L' N^-1 L)^-1,   mean = cov L' N^-1 (g(w) - mean)                L loadings, N noise

        With a leading axis for several subjects. An array is the view that becomes the connectome; a mapping may have
        any of the views.
        """
        x, alone = self._rows(w)
        mean, cov, _ = latent(self._model, x)
        return (mean[0], cov[0]) if alone else (mean, cov)

    def condition(self, **views: Any) -> dist.MultivariateNormal:
        """The Gaussian over z given one subject's views.

        A prior for that subject: `vb.Prior({"connectome.z": lat.condition(fc=fc)})`.
        """
        if not views:
            raise ValueError(f"condition() was given no view; write condition({next(iter(self.views))}=matrix)")
        mean, cov = self.encode(views)
        return dist.MultivariateNormal(jnp.asarray(mean), scale_tril=jnp.asarray(np.linalg.cholesky(cov)))

    def score(self, test: Any) -> float:
        """Log-density of subjects, nats per edge.

        Of the transformed edges, exact. Compare priors by subjects that neither was fitted to.
        """
        x, _ = self._rows(test)
        return float(latent(self._model, x)[2].sum() / (~np.isnan(x)).sum())

    def reconstruct(self, w: Any) -> Any:
        """Weights by the posterior mean of z.

        In the shape of w. Of a mapping all views: those that it lacks are predicted from the others.
        """
        x, alone = self._rows(w)
        z = latent(self._model, x)[0]
        made = {name: self._matrices(name, z[0] if alone else z) for name in self.views}
        return made if isinstance(w, Mapping) else made[_main(made)]

    def confusion(self, test: Any) -> float:
        """Share of subjects whose reconstruction resembles another more.

        It is nearer to the weights of another, by the mean squared difference of the transformed edges, in units of the
        noise; 0 if the factors tell all subjects apart.
        """
        x, _ = self._rows(test)
        if len(x) < 2:
            raise ValueError(f"confusion needs two subjects or more to tell apart; {len(x)} was given")
        model, there = self._model, ~np.isnan(x)
        scale = np.sqrt(model.noise)
        made = latent(model, x)[0] @ model.loadings.T / scale
        own = np.where(there, (x - model.mean) / scale, 0.0)
        # |made_s - own_t|^2 over what t has, by products: no [S, S, edge]
        squares = (made**2) @ there.T - 2.0 * made @ own.T + (own**2).sum(axis=1)
        return float(np.mean((squares / there.sum(axis=1)).argmin(axis=1) != np.arange(len(x))))

    def save(self, path: str | Path) -> None:
        """Write to one `.npz`.

        Arrays and JSON; `vb.load(path)` reads it.
        """
        header = {
            "views": list(self.views),
            "transform": self.transform,
            "method": self.method,
            "held_out": list(self.held_out.items()),
        }
        arrays = {f"{name}/{part}": a for name, view in self.views.items() for part, a in vars(view).items()}
        npz.write(path, "connectome_prior", header, arrays)

    @classmethod
    def from_saved(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "ConnectomePrior":
        """Rebuild from what `save` wrote; called by `vb.load`."""
        names = [field.name for field in dataclasses.fields(View)]
        views = {name: View(**{part: arrays[f"{name}/{part}"] for part in names}) for name in header["views"]}
        scores = {int(k): float(score) for k, score in header["held_out"]}
        return cls(views, _check.one_of(header["transform"], "transform", FORWARD), header["method"], scores)

    # ---- between edges and matrices

    def _rows(self, given: Any) -> tuple[np.ndarray, bool]:
        """Transformed edges `[S, columns]`; whether it was one subject.

        NaN for views that are not given.
        """
        main = _main(self.views)
        views = given if isinstance(given, Mapping) else {main: given}
        for name in views:
            if name not in self.views:
                raise ValueError(f"this prior has no view {name!r}. {did_you_mean(str(name), self.views)}")
        dims = {np.ndim(w) for w in views.values()}
        if not views or len(dims) > 1 or not dims <= {2, 3}:
            raise ValueError(f"expected weights [N, N] or [subject, N, N], or a mapping of {', '.join(self.views)}")
        upper = {}
        for name, w in views.items():
            stacked = np.asarray(w)[None] if dims == {2} else w
            upper[name], diagonal = upper_edges(
                stacked, name, self.transform if name == main else None, isinstance(given, Mapping)
            )
            if len(diagonal) != self.n_nodes:
                raise ValueError(f"{name} has {len(diagonal)} nodes; this prior has {self.n_nodes}")
        subjects = {len(u) for u in upper.values()}
        if len(subjects) > 1:
            raise ValueError(f"views have {sorted(subjects)} subjects; give them for the same ones, NaN where missing")
        nothing = np.full((subjects.pop(), self.n_nodes * (self.n_nodes - 1) // 2), np.nan)
        return np.concatenate([upper.get(n, nothing)[:, v.edges] for n, v in self.views.items()], axis=1), dims == {2}

    def _matrices(self, name: str, z: Any, noise: Any = None) -> Any:
        """Matrices `[..., N, N]` of z `[..., k]`.

        `noise` `[..., E]`, standard normals, is for what z leaves.
        """
        xp: Any = np if isinstance(z, np.ndarray) else jnp
        view, lead = self.views[name], z.shape[:-1]
        edges = z @ view.loadings.T + xp.broadcast_to(view.mean, (*lead, len(view.mean)))
        if noise is not None:
            edges += xp.broadcast_to(np.sqrt(view.noise), noise.shape) * noise
        if name == _main(self.views):
            edges = xp.maximum(edges, 0.0)
            edges = {"log1p": xp.expm1, "sqrt": xp.square}.get(str(self.transform), lambda e: e)(edges)
        padded = xp.concatenate([edges, xp.zeros((*lead, 1), edges.dtype)], axis=-1)
        whole = (*lead, self.n_nodes, self.n_nodes)
        return padded[..., view.place] + xp.broadcast_to(xp.asarray(np.diag(view.diagonal), edges.dtype), whole)


def _put(prior: ConnectomePrior, z: str, theta: Mapping[str, Any]) -> dict[str, Any]:
    """theta with the connectome in the place of z."""
    if z not in theta:
        raise ValueError(f"theta lacks {z!r}, the factors of the connectome; it has {', '.join(theta)}")
    rest = {name: value for name, value in theta.items() if name != z}
    return rest | {"connectome.weights": prior.decode(jnp.asarray(theta[z]))}


def _main(views: Mapping[str, Any]) -> str:
    """The view that becomes the connectome."""
    if not views:
        raise ValueError('no view was given; write {"sc": weights, "fc": correlations}')
    return _STRUCTURE if _STRUCTURE in views else next(iter(views))
