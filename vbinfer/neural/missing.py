"""Features that an observation may lack.

In training some features of each draw are hidden, others in every step; the network is given 0, the mean, in their
place and is told which they are:

    x [F], NaN where missing -> c = [h, 0 where missing | 1 where there, else 0] [2 F] -> [c, g(mask) * (A c + b)]
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vbinfer import _check
from vbinfer._names import PRNGKey
from vbinfer._param import did_you_mean
from vbinfer.neural.scaler import listed, user_stacklevel
from vbinfer.neural.training import Pairs

Missing = float | Mapping[str, Sequence[str]]
"""Share of features hidden in training, or features that are hidden together, by name of the group."""

_OF_GROUPS, _WIDTH, _PRODUCTS = 0.5, 64, 32
LONGER = 1.6
"""Passes over draws with hidden features, over those without: no two passes hide the same."""


def check_missing(value: Any) -> float | dict[str, tuple[str, ...]]:
    """The option `missing` of an estimator, checked.

    Raises:
        ValueError: no share in [0, 1), no group, or a group without features.
    """
    example = 'missing=0.3, or missing={"electrode 17": ("psd.17", "fc.17")}'
    if not isinstance(value, Mapping):
        share = _check.number(value, "missing", "0.3", "a share of the features in [0, 1), or groups of features")
        if 0.0 <= share < 1.0:
            return share
        raise ValueError(f"missing={value!r} was given; expected a share of the features in [0, 1): {example}")
    groups = {str(name): (members,) if isinstance(members, str) else tuple(members) for name, members in value.items()}
    if not groups or not all(groups.values()):
        empty = [name for name, members in groups.items() if not members]
        what = f"missing has no feature in {', '.join(map(repr, empty))}" if empty else "missing={} was given"
        raise ValueError(f"{what}; expected names of features by group: {example}")
    return groups


def member_table(missing: Any, names: Sequence[str]) -> np.ndarray | None:
    """Features of each group `[G, F]`; None for a share.

    Raises:
        ValueError: a name that is no feature.
    """
    if not isinstance(missing, Mapping):
        return None
    for group, members in missing.items():
        for name in members:
            if name not in names:
                raise ValueError(
                    f"missing names {name!r} in {group!r}; the draws have no such feature. {did_you_mean(name, names)}"
                )
    return np.array([np.isin(names, members) for members in missing.values()])


@dataclasses.dataclass(frozen=True)
class HidingLoss:
    """A loss of draws some of whose features are hidden.

    Each row hides every feature (or group) with a chance of its own, r = u^(1 / share - 1) with u uniform: `share` on
    average, and every number of missing features, none and all of them too, is trained on.
    """

    loss: Callable[[Any, Pairs, PRNGKey], Array]
    share: float
    groups: tuple[tuple[bool, ...], ...] | None

    def __call__(self, network: Any, batch: Pairs, key: PRNGKey) -> Array:
        """Loss of a batch with features hidden at random."""
        y, c = batch
        k_rate, k_hide = jax.random.split(key)
        count = c.shape[1] if self.groups is None else len(self.groups)
        rate = jax.random.uniform(k_rate, (len(c), 1)) ** (1.0 / self.share - 1.0)
        hidden = jax.random.uniform(k_hide, (len(c), count)) < rate
        if self.groups is not None:  # a feature of several groups is gone with any of them
            hidden = hidden.astype(c.dtype) @ np.array(self.groups, np.float32) > 0.0
        return self.loss(network, (y, jnp.where(hidden, jnp.nan, c)), jax.random.fold_in(key, 2))


def hiding(loss: Callable[..., Array], missing: Any, names: Sequence[str]) -> Callable[..., Array]:
    """The loss of an estimator, with features hidden."""
    table = member_table(missing, names)
    if table is None:
        return HidingLoss(loss, missing, None) if missing else loss
    return HidingLoss(loss, _OF_GROUPS, tuple(map(tuple, table.tolist())))


class Products(eqx.Module):
    """Products of values and gates, g(mask) (A c + b).

    What a feature says depends on which others are there: of a linear Gaussian problem the posterior mean is K(mask) h,
    a sum of such products.
    """

    gates: eqx.nn.MLP
    values: eqx.nn.Linear

    def __call__(self, mask: Array, c: Array) -> Array:
        return self.gates(mask) * self.values(c)


class MaskedContext(eqx.Module):
    """Context of a summary with gaps.

    The embedding is given 0 in their place; which they are is told to the density beside it.
    """

    embedding: Callable[[Array], Array] | None
    products: Products | None
    whole: int = eqx.field(static=True)
    """Features before those by region, which follow in maps: each kind is followed by its own mask."""

    def __call__(self, c: Array) -> Array:
        there = ~jnp.isnan(c)
        h, mask = jnp.where(there, c, 0.0), there.astype(c.dtype)
        seen, k = h if self.embedding is None else self.embedding(h), self.whole
        context = jnp.concatenate([seen[:k], mask[:k], seen[k:], mask[k:]])
        return context if self.products is None else jnp.concatenate([context, self.products(mask, context)])


def masked(
    embedding: Callable[[Array], Array] | None, sizes: tuple[int, int], nodes: int | None, key: PRNGKey
) -> tuple[MaskedContext, int]:
    """The context of summaries with gaps, and its length.

    Args:
        embedding: from `[F]` to `[out]`, or None.
        sizes: F and out.
        nodes: regions of a density that reads the context as maps over them; None for others.
        key: of the initial weights.
    """
    width, out = sizes
    length = width + out
    if nodes is not None and embedding is None:
        return MaskedContext(None, None, width % nodes), length
    k_gates, k_values = jax.random.split(key)
    gates = eqx.filter_jit(eqx.nn.MLP)(width, _PRODUCTS, _WIDTH, 2, key=k_gates)
    products = Products(gates, eqx.filter_jit(eqx.nn.Linear)(length, _PRODUCTS, key=k_values))
    return MaskedContext(embedding, products, out), length + _PRODUCTS


def warn_of_gaps(missing: Any, names: Sequence[str], gone: np.ndarray) -> None:
    """Warn of no features, or an untrained pattern."""
    if gone.all():
        warnings.warn(
            "every feature of the observation is missing: this is the prior. Look at the recording and its Summary",
            stacklevel=user_stacklevel(),
        )
    elif (table := member_table(missing, names)) is not None:
        # what groups explain: those that are gone as a whole
        whole = table[(table <= gone).all(axis=1)].any(axis=0)
        if (odd := gone & ~whole).any():
            culprits = [name for name, flag in zip(names, odd.tolist(), strict=True) if flag]
            warnings.warn(
                f"{listed(culprits)} are missing without the rest of a group; the network was trained on missing "
                f"{listed(tuple(missing))} only, and guesses here. Leave out the whole group, or train with this one",
                stacklevel=user_stacklevel(),
            )
