"""A numpyro model of the user's own, with our prior and simulator inside it, gives the same posterior as ours."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC
from numpyro.infer import NUTS as NumpyroNUTS

import vbinfer as vb

WEIGHTS = jnp.array([[0.0, 0.6, 0.1], [0.2, 0.0, 0.8], [0.5, 0.3, 0.0]])
SIM = vb.Simulator(
    vb.models.Linear(gamma=-1.0),
    vb.Connectome(WEIGHTS, jnp.zeros((3, 3))),
    coupling=vb.coupling.Linear(G=0.3),
    integrator=vb.Heun(dt=0.1),
    monitors={"x": vb.monitors.Subsample(period=0.5)},
)
START = {"x": jnp.array([1.0, -0.5, 2.0])}
PRIOR = vb.Prior({"coupling.G": dist.LogNormal(-1.0, 0.5), "model.gamma": dist.Uniform(-2.0, -0.6)})
SD = 0.1


def mean_of(theta):
    return vb.simulate(vb.bind(SIM, theta), t1=5.0, key=None, init=START).ys["x"]["x"]


def test_prior_numpyro_and_simulate_inside_a_numpyro_model():
    truth = mean_of({"coupling.G": 0.5, "model.gamma": -1.2})
    y = truth + SD * jax.random.normal(jax.random.key(0), truth.shape)

    def model(data):
        theta = PRIOR.numpyro()
        numpyro.sample("y", dist.Normal(mean_of(theta), SD).to_event(truth.ndim), obs=data)

    def log_likelihood(theta, data):
        return dist.Normal(mean_of(theta), SD).log_prob(data).sum()

    chains = MCMC(NumpyroNUTS(model), num_warmup=200, num_samples=300, num_chains=2, chain_method="vectorized",
                  progress_bar=False)  # fmt: skip
    chains.run(jax.random.key(1), y)
    theirs = vb.Posterior({name: np.asarray(value) for name, value in chains.get_samples(group_by_chain=True).items()})
    ours = vb.sample_mcmc(PRIOR, log_likelihood, y, num_warmup=200, num_samples=300, num_chains=2,
                          key=jax.random.key(2))  # fmt: skip
    for kind, moment in (("mean", np.mean), ("sd", np.std)):
        one, two = vb.diagnostics.mcse(theirs, kind=kind), vb.diagnostics.mcse(ours, kind=kind)
        for name in PRIOR.shapes:
            gap = moment(theirs.theta[name]) - moment(ours.theta[name])
            assert abs(gap) < 4 * np.hypot(one[name], two[name]), (name, kind)
    for name, value in {"coupling.G": 0.5, "model.gamma": -1.2}.items():
        assert abs(ours.theta[name].mean() - value) < 4 * ours.theta[name].std()
        assert ours.theta[name].std() < 0.7 * np.sqrt(PRIOR.variance()[name])
