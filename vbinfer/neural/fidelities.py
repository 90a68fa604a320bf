"""Fewer expensive simulations: cheap ones first, and a stop rule."""

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from scipy.stats import norm

from vbinfer import _check
from vbinfer._names import PRNGKey, SimulatorLike
from vbinfer.draws.draws import Draws
from vbinfer.draws.request import DrawRequest, batch_width_of
from vbinfer.draws.sample import simulate_draws
from vbinfer.execute.batches import key_ints
from vbinfer.io.folder import Kind, check_head, described, read_head, write_head
from vbinfer.neural.npe import NPE, AmortizedPosterior
from vbinfer.priors.prior import Prior

CHEAP = 0.3
"""Share of the budget that all cheap simulators together may spend."""
WORTH = 0.02
"""Nats below which the next round of a simulator is not run."""
FINER = 0.3
"""Step size of training that begins with another simulator's network, in that of the estimator: measured."""
_HELD = 256
"""Draws of each simulator held out at most, as the yardstick of its rounds."""
_NOISE = 0.02
"""Nats by which two trainings on the same draws differ, added to the standard error of a gain."""
_POWERS = np.linspace(0.3, 1.5, 25)
_KIND = Kind(head="plan.npz", holds="a plan", parts="simulator-*", label="plan")


class Round(NamedTuple):
    """One round of simulations, and its fit."""

    fidelity: int
    """Position of the simulator in the list."""
    draws: int
    """Draws of this round."""
    seconds: float
    """CPU seconds of these draws, at the cost per draw that was measured."""
    log_q: float
    """Mean log q(theta | x) over the held-out draws of this simulator."""
    gain: float
    """Nats of log q over the round before; NaN of a simulator's first."""
    gain_se: float
    """Its standard error, of the paired differences over the held-out draws and of training."""
    predicted: float
    """The gain as foretold before the round was run; NaN of a simulator's first two."""
    predicted_se: float
    """Its standard error, that of the measured gain included."""
    start: int | None
    """The simulator whose network training began with; None for none."""


class NextGain(float):
    """Nats that another round of draws is predicted to buy.

    Attributes:
        draws: full-cost draws of that round.
        se: standard error of the prediction, that of the comparison which would check it included.
    """

    draws: int
    se: float

    @classmethod
    def of(cls, nats: float, se: float, draws: int) -> "NextGain":
        """A prediction with what it is about."""
        value = cls(nats)
        value.se, value.draws = se, draws
        return value

    @property
    def sentence(self) -> str:
        """The prediction in words."""
        return f"Another {self.draws:,} draws would buy {float(self):.2f} nats (standard error {self.se:.2f})."

    def __str__(self) -> str:
        return self.sentence


@dataclasses.dataclass(frozen=True)
class PlannedFit:
    """What `vb.plan` simulated, trained and foretells.

    Attributes:
        draws: the draws of the full simulator.
        history: a `Round` for every round, in the order they were run.
        next_gain: nats that doubling the full draws would buy: a number with `.draws`, `.se` and `.sentence`.
        amortized: the posterior network of the last round, trained on all full draws but the held-out ones.
        costs: CPU seconds per draw of each simulator.
    """

    draws: Draws
    history: tuple[Round, ...]
    next_gain: NextGain
    amortized: AmortizedPosterior
    costs: tuple[float, ...]


def plan(
    prior: Prior,
    simulators: Sequence[SimulatorLike],
    *,
    budget: float,
    key: Array,
    estimator: NPE | None = None,
    store: str | Path | None = None,
) -> PlannedFit:
    """Spend a budget over simulators of rising cost.

    A cheap simulator (a larger dt, fewer regions, a shorter run) teaches a network most of what the full one would;
    the full one corrects it. For each simulator in turn, the cheap ones within 30 % of the budget in equal parts and
    the full one with the rest:

    1. Simulate a round; a part of it, up to 256 draws, is held out as the yardstick of all rounds.
    2. Train on all draws so far, beginning with the network of the simulator before, and once without it: what has the
       greater held-out log q is used from then on, so that a misleading cheap simulator costs its seconds and no more.
       Steps are 0.3 as large as the estimator says where training begins with a network.
    3. Foretell what doubling the draws would gain: held-out log q = c - a n^-b of n training draws, b uniform on
       [0.3, 1.5], a >= 0, given the gains of the rounds so far and their standard errors.
    4. Stop where that is below 0.02 nats, or nothing more can be paid; else double the draws and go on with 2.

    The cost of a draw is measured in its second batch, after compilation, unless the simulator has an attribute `cost`
    (CPU seconds per draw), as one that computes elsewhere must. The budget pays for simulations; training is not
    counted. Held-out log q is a mean over the prior predictive: for one observation alone `vb.neural.fit_rounds` needs
    fewer draws still.

    Args:
        prior: over the parameters of all simulators.
        simulators: from the cheapest to the full one, `(theta, key) -> x [F]` with the same features; one alone is
            planned too.
        budget: CPU seconds of simulation.
        key: a JAX key; part p of simulator k is simulated by `fold_in(fold_in(key, k), p)`.
        estimator: `vb.NPE(...)`; by default two networks of splines.
        store: a folder for draws and costs. The same call again simulates only what is missing and gives the same
            numbers, one with a larger budget goes on from there.

    Returns:
        `PlannedFit(draws, history, next_gain, amortized, costs)`.

    Raises:
        ValueError: no simulators, other features of two of them, a budget that is not positive or does not pay for
            the first draws of each simulator, a store of another plan.
        TypeError: an estimator that is no `vb.NPE`.

    Krouglova, Johnson, Confavreux, Deistler & Goncalves 2025, doi:10.48550/arXiv.2502.08416 (transfer between
    fidelities); Viering & Loog 2023, IEEE TPAMI 45, doi:10.1109/TPAMI.2022.3220744 (power laws of learning curves).

    Example:
        fit = vb.plan(prior, [coarse, fine], budget=600.0, key=jax.random.key(0))
        posterior = fit.amortized.sample(x_o, n=4_000, key=jax.random.key(1))
        print(fit.next_gain)
    """
    chosen: NPE = _check.of_kind(NPE() if estimator is None else estimator, "estimator", NPE, "estimator=vb.NPE(...)")
    if chosen.ensemble is None:  # training goes on in a network of the same size, whatever the number of draws
        chosen = dataclasses.replace(chosen, ensemble=2)
    key, budget = _check.key(key), _check.positive(budget, "budget", 600.0, "CPU seconds")
    _check.of_kind(prior, "prior", Prior, "vb.Prior({path: distribution})")
    study = _Study(prior, _listed(simulators), chosen, key, None if store is None else Path(store))
    costs = study.costs(budget)
    needs = study.needs(costs)
    history: list[Round] = []
    stage: _Stage | None = None
    for k, cost in enumerate(costs):
        # what later simulators need at least is never spent on this one
        left = budget - sum(row.seconds for row in history) - sum(needs[k + 1 :])
        paid = left if k == len(costs) - 1 else min(max(CHEAP * budget / (len(costs) - 1), needs[k]), left)
        stage = _Stage(study, k, cost, study.sizes(k, paid / cost), stage)
        history += stage.run()
    assert stage is not None
    return PlannedFit(stage.draws, tuple(history), stage.foretell(2 * len(stage.draws)), stage.fitted, costs)


def _listed(simulators: Any) -> tuple[Any, ...]:
    if isinstance(simulators, Sequence) and simulators:
        return tuple(simulators)
    given = "an empty list" if isinstance(simulators, Sequence) else f"a {type(simulators).__name__}"
    raise ValueError(f"simulators was given {given}; expected a list from the cheapest to the full one: [coarse, fine]")


class _Sizes(NamedTuple):
    """Draws of a simulator: held out, first, most."""

    held: int
    first: int
    most: int


@dataclasses.dataclass
class _Study:
    """A plan's request, and draws of each simulator.

    simulator k   | part 0: two batches, timed | part 1: rest of the first round | part 2: as many again | ...
    """

    prior: Prior
    simulators: tuple[Any, ...]
    estimator: NPE
    key: PRNGKey
    store: Path | None
    timed: dict[int, Draws] = dataclasses.field(default_factory=dict)

    def part(self, k: int, number: int, n: int, executor: Any = None) -> Draws:
        """Draws of one part, read from the store if there."""
        if number == 0 and k in self.timed:
            return self.timed[k]
        return simulate_draws(self._request(k, number, n, self.store), executor, progress=False)

    def _request(self, k: int, number: int, n: int, store: Path | None) -> DrawRequest:
        key = jax.random.fold_in(jax.random.fold_in(self.key, k), number)
        where = None if store is None else store / f"simulator-{k}" / f"part-{number}"
        return DrawRequest.of(self.prior, self.simulators[k], n, key=key, store=where)

    def width(self, k: int) -> int:
        """Draws that run together."""
        return batch_width_of(self.simulators[k])

    def least(self, k: int) -> int:
        """Draws of the smallest first round."""
        # a quarter is held out, and half of the rest is trained on alone
        return max(2, math.ceil(self.needed * 8 / 3 / self.width(k))) * self.width(k)

    @property
    def needed(self) -> int:
        """Draws that can be trained on, as `training_pairs` counts."""
        return max(20, self.prior.z_dim + 1)

    def sizes(self, k: int, paid: float) -> _Sizes:
        """Sizes for so many draws as are paid for."""
        width, least = self.width(k), self.least(k)
        most = max(int(paid) // width * width, least)  # at least: rounding
        held = min(max(most // 8, least // 4), _HELD)
        first = math.ceil(max(2 * held, held + 2 * self.needed) / width) * width
        return _Sizes(held, max(least, first), most)

    def needs(self, costs: Sequence[float]) -> list[float]:
        """CPU seconds of the smallest first rounds."""
        return [cost * self.least(k) for k, cost in enumerate(costs)]

    def costs(self, budget: float) -> tuple[float, ...]:
        """CPU seconds per draw: said, measured or read.

        Raises:
            ValueError: a budget that does not pay for the first rounds, other features of two simulators.
        """
        known = [self._said(k) for k in range(len(self.simulators))]
        said_all = [cost for cost in known if cost is not None]
        if len(said_all) == len(known):  # nothing need be run to tell
            self._check(budget, said_all)
        spec = {"estimator": self.estimator.to_spec(), "training": self.estimator.training.to_spec()}
        study = described({**spec, "key": key_ints(self.key), "simulators": len(self.simulators)})
        path = None if self.store is None else self.store / _KIND.head
        if path is not None and path.exists():
            head = read_head(path, _KIND)
            check_head(head, study, f"the store {str(self.store)!r}", _KIND)
            measured = head.arrays["costs"].tolist()
        else:
            measured = [self._measured(k) for k in range(len(self.simulators))]
            if path is not None:
                write_head(path, _KIND, study, {"costs": np.array(measured)})
        costs = tuple(was if cost is None else cost for was, cost in zip(measured, known, strict=True))
        self._check(budget, costs)
        return costs

    def _said(self, k: int) -> float | None:
        cost = getattr(self.simulators[k], "cost", None)
        return None if cost is None else _check.positive(cost, f"simulators[{k}].cost", 0.5, "CPU seconds per draw")

    def _check(self, budget: float, costs: Sequence[float]) -> None:
        needed = sum(self.needs(costs))
        if budget < needed:
            raise ValueError(
                f"budget={budget:g} pays {int(budget / costs[-1])} draws of the full simulator, at {costs[-1]:.3g} CPU "
                f"seconds each; the smallest first rounds of all {len(costs)} simulators take {needed:.3g}: write "
                f"budget={math.ceil(needed)} or more, or make the simulators cheaper"
            )

    def _measured(self, k: int) -> float:
        n, watch = 2 * self.width(k), _Stopwatch([])
        self.timed[k] = draws = self.part(k, 0, n, watch)
        if draws.names != self.timed[0].names:
            raise ValueError(
                f"simulator {k} makes the {len(draws.names)} features {_short(draws.names)}, simulator 0 the "
                f"{len(self.timed[0].names)} features {_short(self.timed[0].names)}; give all of them one Summary"
            )
        if not watch.seconds:  # all were read from the store of a run that ended before it had written its costs
            self._request(k, 0, n, None).run(watch, False)
        return max(min(watch.seconds), 1e-9) / self.width(k)


@dataclasses.dataclass(frozen=True)
class _Stopwatch:
    """Runs batches one by one and takes their CPU seconds."""

    seconds: list[float]

    def as_completed(
        self, fn: Callable[[Any, Any], Any], items: Iterable[Any]
    ) -> Generator[tuple[Any, Any], None, None]:
        """Yield `(item, result)` in order."""
        for item in items:
            began = time.process_time()
            result = fn(item, jax.local_devices()[0])
            self.seconds.append(time.process_time() - began)
            yield item, result


class _Stage:
    """The rounds of one simulator.

    Attributes:
        draws: all of its draws; the first are held out.
        fitted: the network of the last round.
    """

    draws: Draws
    fitted: AmortizedPosterior

    def __init__(self, study: _Study, k: int, cost: float, sizes: _Sizes, before: "_Stage | None") -> None:
        self._study, self._k, self._cost, self._sizes, self._start = study, k, cost, sizes, before
        self._scores: list[np.ndarray] = []
        self._trained: list[int] = []

    def run(self) -> list[Round]:
        """Simulate, train and foretell until it is not worth more."""
        first, timed = self._sizes.first, 2 * self._study.width(self._k)
        self._take(0, timed)
        if first > timed:
            self._take(1, first - timed)
        # with the other network and without: the better one on the held-out draws is where training begins from now on
        bare = self._fit(first, None)
        if self._start is not None:
            led = self._fit(first, self._start.fitted)
            if np.mean(led[1]) > np.mean(bare[1]):
                bare = led
            else:
                self._start = None
        half = (first + self._sizes.held) // 2
        # the first gain: of the second half of the first round
        rows = [self._record(self._fit(half, self._start and self._start.fitted), first // 2, None)]
        rows.append(self._record(bare, first - first // 2, None))
        while (more := min(len(self.draws), self._sizes.most - len(self.draws))) > 0:
            foretold = self.foretell(len(self.draws) + more)
            if foretold < WORTH:
                break
            self._take(len(rows), more)
            now = self._fit(len(self.draws), self._start and self._start.fitted)
            rows.append(self._record(now, more, foretold))
        return rows

    def _take(self, number: int, n: int) -> None:
        part = self._study.part(self._k, number, n)
        self.draws = part if number == 0 else self.draws + part

    def _fit(self, n: int, start: AmortizedPosterior | None) -> tuple[AmortizedPosterior, np.ndarray, int]:
        """Train on the first n draws: network, scores, rows."""
        study, held = self._study, self._sizes.held
        key = jax.random.fold_in(jax.random.fold_in(study.key, len(study.simulators) + self._k), n)
        rows = _rows(self.draws, slice(held, n))
        estimator, options = study.estimator, study.estimator.training
        if start is not None and options.optimizer is None:
            finer = dataclasses.replace(options, learning_rate=FINER * options.learning_rate)
            estimator = dataclasses.replace(estimator, training=finer)
        fitted, info = estimator.fit(rows, study.prior, key=key, start=start)
        theta, x = _rows(self.draws, slice(0, held)).usable()
        return fitted, np.asarray(fitted.log_prob(theta, x), float), info.num_train + info.num_val

    def _record(self, fit: tuple[Any, np.ndarray, int], n: int, foretold: "NextGain | None") -> Round:
        self.fitted, scores, trained = fit
        self._scores.append(scores)
        self._trained.append(trained)
        gain, se = self._gains()[-1] if len(self._scores) > 1 else (math.nan, math.nan)
        predicted = (math.nan, math.nan) if foretold is None else (float(foretold), foretold.se)
        start = None if self._start is None else self._start._k
        return Round(self._k, n, n * self._cost, float(scores.mean()), gain, se, *predicted, start)

    def _gains(self) -> list[tuple[float, float]]:
        """Gain of each round, with its error."""
        steps = np.diff(np.array(self._scores), axis=0)
        errors = np.hypot(steps.std(axis=1, ddof=1) / math.sqrt(steps.shape[1]), _NOISE)
        return list(zip(steps.mean(axis=1).tolist(), errors.tolist(), strict=True))

    def foretell(self, target: int) -> NextGain:
        """Gain of going on to so many draws in all."""
        n = np.array(self._trained, float)
        share = (target - self._sizes.held) / (len(self.draws) - self._sizes.held)
        mean, se = extrapolate(n, np.array(self._gains()), n[-1] * share)
        return NextGain.of(mean, se, target - len(self.draws))


def extrapolate(n: np.ndarray, gains: np.ndarray, target: float) -> tuple[float, float]:
    """Next gain of a learning curve, with its error.

    The curve is c - a n^-b.

    b is uniform on [0.3, 1.5] and the next gain G >= 0: given b, every gain is a known multiple of G, so that G is a
    normal cut at 0, and b is weighted by its evidence.

    Args:
        n: training draws of each round `[R + 1]`.
        gains: gain of each round over the one before and its standard error `[R, 2]`.
        target: training draws of the next round.

    Returns:
        Mean of G, and the standard deviation of the gain that will be measured, with the error of the last one.
    """
    g, s = gains.T
    power = n[:, None] ** -_POWERS  # [R + 1, b]
    multiple = (power[:-1] - power[1:]) / (power[-1] - target**-_POWERS)
    weight = multiple / s[:, None] ** 2
    sd = np.sum(weight * multiple, axis=0) ** -0.5
    best = np.sum(weight * g[:, None], axis=0) * sd**2
    misfit = np.sum(((g[:, None] - multiple * best) / s[:, None]) ** 2, axis=0)
    log_evidence = np.log(sd) - 0.5 * misfit + norm.logcdf(best / sd)
    share = np.exp(log_evidence - log_evidence.max())
    share /= share.sum()
    # moments of N(best, sd^2) cut at 0, by the inverse Mills ratio
    ratio = np.exp(norm.logpdf(best / sd) - norm.logcdf(best / sd))
    mean = best + sd * ratio
    square = best * mean + sd**2
    found = float(np.sum(share * mean))
    return found, math.sqrt(float(np.sum(share * square)) - found**2 + s[-1] ** 2)


def _rows(draws: Draws, part: slice) -> Draws:
    theta = {name: value[part] for name, value in draws.theta.items()}
    return Draws.from_arrays(theta, draws.x[part], draws.names, draws.valid[part])


def _short(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")
