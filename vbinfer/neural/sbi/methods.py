"""The methods of the sbi package that there are here: what each fits, with which networks, and how it is sampled."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vbinfer._param import did_you_mean

_FLOWS = ("maf", "nsf", "made", "maf_rqs", "mdn")
_ZUKO = ("nice", "maf", "nsf", "ncsf", "sospf", "naf", "unaf", "gf", "bpf")
_DENSITIES = (*_FLOWS, *(f"zuko_{name}" for name in _ZUKO))
_FIELDS = ("mlp", "ada_mlp", "transformer", "transformer_cross_attention")
_CLASSIFIERS = ("resnet", "mlp", "linear")
_AFFINE = ("maf", "zuko_maf", "zuko_nice")
"""Flows that can only shift and scale a single coordinate: Gaussian there."""
_SCORES = ("mcmc", "rejection", "importance", "vi")


@dataclasses.dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        trainer: its class in `sbi.inference`.
        factory: the function of `sbi.neural_nets` that makes its network.
        family: `"density"` of z given x, `"field"` that carries noise to z, `"likelihood"` of x given z, `"ratio"`.
        models: names of networks, the default first.
        kinds: sbi's posteriors that can be made of it, the default first.
        argument: the trainer's name for the network.
    """

    trainer: str
    factory: str
    family: str
    models: tuple[str, ...]
    kinds: tuple[str, ...]
    argument: str = "density_estimator"


METHODS = {
    "NPE": Method("NPE_C", "posterior_nn", "density", _DENSITIES, ("direct", *_SCORES)),
    "NPE_A": Method("NPE_A", "posterior_nn", "density", ("mdn",), ("direct", *_SCORES)),
    "NLE": Method("NLE_A", "likelihood_nn", "likelihood", _DENSITIES, _SCORES),
    "MNLE": Method("MNLE", "likelihood_nn", "likelihood", ("mnle",), _SCORES),
    "NRE": Method("NRE_B", "classifier_nn", "ratio", _CLASSIFIERS, _SCORES, "classifier"),
    "BNRE": Method("BNRE", "classifier_nn", "ratio", _CLASSIFIERS, _SCORES, "classifier"),
    "FMPE": Method("FMPE", "posterior_flow_nn", "field", _FIELDS, ("ode", "sde"), "vf_estimator"),
    "NPSE": Method("NPSE", "posterior_score_nn", "field", _FIELDS, ("ode", "sde"), "vf_estimator"),
}


def find_method(name: Any) -> Method:
    """The method of that name, or an error that lists them."""
    if name not in METHODS:
        raise ValueError(
            f"SbiEstimator was given the method {name!r}; this version has {', '.join(METHODS)}. "
            f"{did_you_mean(str(name), METHODS)}"
        )
    return METHODS[name]


def check_network(name: str, network: Any) -> None:
    """Refuse a network whose kind can be seen to be wrong before anything is trained."""
    if not isinstance(network, Mapping):
        raise TypeError(
            f"SbiEstimator(network={network!r}) was given; expected a dictionary, such as network={{'model': "
            f"{METHODS[name].models[0]!r}, 'hidden_features': 50}}"
        )
    if "discrete" in network and name != "MNLE":
        raise ValueError(
            f"{name} was given network={{'discrete': ...}}; only MNLE tells discrete features apart: "
            "write SbiEstimator('MNLE', network=...)"
        )
    model = network.get("model")
    if isinstance(model, str) and model not in METHODS[name].models:
        raise ValueError(
            f"{name} was given network={{'model': {model!r}}}; there are {', '.join(METHODS[name].models)}, "
            f"or a function (batch_theta, batch_x) -> network. {did_you_mean(model, METHODS[name].models)}"
        )
    if model is not None and not isinstance(model, str) and not callable(model):
        raise TypeError(
            f"{name} was given network={{'model': {model!r}}}; expected one of {', '.join(METHODS[name].models)}, "
            "or a function (batch_theta, batch_x) -> network"
        )


def check_training(training: Any) -> None:
    """Refuse training options that are no dictionary; their names are checked when sbi is there to say them."""
    if not isinstance(training, Mapping):
        raise TypeError(
            f"SbiEstimator(training={training!r}) was given; expected a dictionary, such as "
            "training={'max_num_epochs': 200}"
        )


def default_model(name: str, width: int) -> str:
    """The network of a method where none is asked for; `width` is the dimension of its density.

    An autoregressive affine flow of one coordinate is a Gaussian, so there the default is a spline.
    """
    return "nsf" if name in ("NPE", "NLE") and width == 1 else METHODS[name].models[0]


def only_gaussian(model: Any, width: int) -> bool:
    """Whether a network can give nothing but Gaussians in this dimension."""
    return width == 1 and model in _AFFINE
