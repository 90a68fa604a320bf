"""A prior from 100 connectomes of 84 regions, 8 factors, on one core, against the CrossCoder of vbjax 0.0.19.

Simulated cohorts: log1p of the weights is that of `Connectome.synthetic`, plus 12 patterns of falling size, plus noise;
50 more subjects are held out. vbjax trains with its defaults (2,000 steps, variational) where it is installed beside
vbinfer in the Python that runs this. It has no density of its own: its decoder is given the covariance of its encodings
and the variance of residual noise that suits the held-out subjects best, which flatters it. CPU seconds, in turn.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from _timing import cpu_seconds, finish, header, host, interleaved, median, options, pin, spread, table

NODES, TRAIN, TEST, K, TRUE = 84, 100, 50, 8, 12


def cohorts() -> tuple[Any, Any]:
    """Weights of the subjects to learn from and of those held out, `[S, N, N]`."""
    import jax
    import numpy as np

    import vbinfer as vb

    rows, columns = np.triu_indices(NODES, 1)
    base = np.log1p(1e3 * np.asarray(vb.Connectome.synthetic(NODES, key=jax.random.key(0)).weights, float))
    rng = np.random.default_rng(0)
    size = 0.5 * 0.8 ** np.arange(TRUE)
    patterns = size[:, None] * rng.normal(size=(TRUE, len(rows)))
    logs = rng.normal(size=(TRAIN + TEST, TRUE)) @ patterns + 0.5 * rng.normal(size=(TRAIN + TEST, len(rows)))
    weights = np.zeros((TRAIN + TEST, NODES, NODES))
    weights[:, rows, columns] = np.expm1(np.maximum(base[rows, columns] + logs, 0.0))
    weights += weights.swapaxes(1, 2)
    return weights[:TRAIN], weights[TRAIN:]


def crosscoder(train: Any, test: Any) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """Training of vbjax's CrossCoder, and the held-out score of what it returns."""
    import numpy as np
    import vbjax

    from vbinfer.priors.factors import Factors, latent

    rows, columns = np.triu_indices(NODES, 1)
    logs = np.log1p(np.concatenate([train, test])[:, rows, columns])

    def run() -> Any:
        model = vbjax.CrossCoder()
        model.add_view(logs, "weights")
        model.train(K, tts=TRAIN)
        return model

    def score(model: Any) -> float:
        loadings, offset = (np.asarray(a, float) for a in model.archs[0].wbs[0][1])
        codes = np.asarray(model.encode(K, "weights"), float)[:TRAIN]
        factor = np.linalg.cholesky(np.cov(codes.T) + 1e-12 * np.eye(K))
        mean = np.asarray(model.means[0]) + model.stds[0] * (offset + codes.mean(axis=0) @ loadings)
        wide = model.stds[0] * (factor.T @ loadings).T
        held, view = logs[TRAIN:], np.zeros(len(mean), int)
        each = [
            latent(Factors(mean, wide, np.full(len(mean), s**2), view), held)[2].sum() / held.size
            for s in np.geomspace(0.1, 3.0, 60)
        ]
        return float(max(each))

    return run, score


def main() -> None:
    args = options(__doc__, repeats=3)
    pinned = pin(args.core)
    import vbinfer as vb

    train, test = cohorts()
    where = host()
    header(f"a prior from {TRAIN} connectomes of {NODES} regions, k = {K}, {pinned}", where)
    scores: dict[str, float] = {}

    def ours(method: str) -> Callable[[], float]:
        def run() -> float:
            def fit() -> None:
                scores[method] = vb.ConnectomePrior.fit(train, K, method=method).score(test)

            return cpu_seconds(fit)

        return run

    cases: dict[str, Callable[[], float]] = {"ppca": ours("ppca"), "fa": ours("fa")}
    if find_spec("vbjax"):
        train_it, score = crosscoder(train, test)

        def theirs() -> float:
            made: list[Any] = []
            took = cpu_seconds(lambda: made.append(train_it()))
            scores["vbjax CrossCoder"] = score(made[0])
            return took

        cases["vbjax CrossCoder"] = theirs
    for case in ("ppca", "fa"):
        cases[case]()  # NumPy's and SciPy's first call
    took = interleaved(cases, args.repeats)
    mean_alone = vb.ConnectomePrior.fit(train, 0).score(test)
    table(
        ("", "CPU s", "range", "held-out nats per edge"),
        [
            *((name, f"{median(t):.3f}", spread(t), f"{scores[name]:.4f}") for name, t in took.items()),
            ("the mean alone", "", "", f"{mean_alone:.4f}"),
        ],
    )
    if "vbjax CrossCoder" in took:
        ratios = [b / a for a, b in zip(took["ppca"], took["vbjax CrossCoder"], strict=True)]
        print(f"vbjax / ppca {median(ratios):.0f} ({spread(ratios)}); wanted 50")
    finish(args.json, where, {"cpu_seconds": took, "scores": {**scores, "mean": mean_alone}})


if __name__ == "__main__":
    main()
