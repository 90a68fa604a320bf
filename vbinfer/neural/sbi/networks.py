"""Methods and networks of sbi."""

import copy
import dataclasses
import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vbinfer._param import did_you_mean
from vbinfer.io import npz
from vbinfer.neural.sbi.inputs import DiscreteZ, Inputs
from vbinfer.neural.sbi.quiet import quiet_torch
from vbinfer.neural.scaler import user_stacklevel
from vbinfer.priors._torch import to_torch

_FLOWS = ("maf", "nsf", "made", "maf_rqs", "mdn")
_ZUKO = ("nice", "maf", "nsf", "ncsf", "sospf", "naf", "unaf", "gf", "bpf")
_DENSITIES = (*_FLOWS, *(f"zuko_{name}" for name in _ZUKO))
_FIELDS = ("mlp", "ada_mlp", "transformer", "transformer_cross_attention")
_CLASSIFIERS = ("resnet", "mlp", "linear")
_AFFINE = ("maf", "zuko_maf", "zuko_nice")
"""Flows that can only shift and scale a single coordinate: Gaussian there."""
_SCORES = ("mcmc", "rejection", "importance", "vi")
_OURS = {"model", "discrete"}
_SET_HERE = {"z_score_theta", "z_score_x", "z_score_y", "compose_standardization", "log_transform_x"}
_INTERNAL = {"kwargs", "extra_kwargs", "net", "estimator_type", "time_embedding_dim", "num_categories_per_variable"}
_ROWS = 100


@dataclasses.dataclass(frozen=True)
class Method:
    """One method of sbi.

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
    "NPE_B": Method("NPE_B", "posterior_nn", "density", _DENSITIES, ("direct", *_SCORES)),
    "NPE_PFN": Method("NPE_PFN", "posterior_nn", "density", ("tabpfn",), ("direct",)),
    "MNPE": Method("MNPE", "posterior_nn", "density", ("mnpe",), ()),
    "NLE": Method("NLE_A", "likelihood_nn", "likelihood", _DENSITIES, _SCORES),
    "MNLE": Method("MNLE", "likelihood_nn", "likelihood", ("mnle",), _SCORES),
    "NRE": Method("NRE_B", "classifier_nn", "ratio", _CLASSIFIERS, _SCORES, "classifier"),
    "NRE_C": Method("NRE_C", "classifier_nn", "ratio", _CLASSIFIERS, _SCORES, "classifier"),
    "BNRE": Method("BNRE", "classifier_nn", "ratio", _CLASSIFIERS, _SCORES, "classifier"),
    "FMPE": Method("FMPE", "posterior_flow_nn", "field", _FIELDS, ("ode", "sde"), "vf_estimator"),
    "NPSE": Method("NPSE", "posterior_score_nn", "field", _FIELDS, ("ode", "sde"), "vf_estimator"),
}


def find_method(name: Any) -> Method:
    """The method of that name, or an error listing them."""
    if name not in METHODS:
        raise ValueError(
            f"SbiEstimator was given the method {name!r}; this version has {', '.join(METHODS)}. "
            f"{did_you_mean(str(name), METHODS)}"
        )
    return METHODS[name]


def check_network(name: str, network: Any) -> None:
    """Refuse options that can be seen to be wrong."""
    models = METHODS[name].models
    if not isinstance(network, Mapping):
        raise TypeError(
            f"SbiEstimator(network={network!r}) was given; expected a dictionary, such as network={{'model': "
            f"{models[0]!r}, 'hidden_features': 50}}"
        )
    if "discrete" in network and name not in ("MNLE", "MNPE"):
        raise ValueError(
            f"{name} was given network={{'discrete': ...}}; only MNLE tells discrete features apart, and MNPE discrete "
            "parameters: write SbiEstimator('MNLE', network=...)"
        )
    model = network.get("model")
    if isinstance(model, str) and model not in models:
        raise ValueError(
            f"{name} was given network={{'model': {model!r}}}; there are {', '.join(models)}, "
            f"or a function (batch_theta, batch_x) -> network. {did_you_mean(model, models)}"
        )
    if model is not None and not isinstance(model, str) and not callable(model):
        raise TypeError(
            f"{name} was given network={{'model': {model!r}}}; expected one of {', '.join(models)}, "
            "or a function (batch_theta, batch_x) -> network"
        )


def complete(name: str, network: Mapping[str, Any], z_dim: int, inputs: Inputs) -> dict[str, Any]:
    """Fill in the default network, and check the options.

    An autoregressive affine flow of one coordinate is a Gaussian, so there the default is a spline.

    Raises:
        ValueError: an option that sbi does not have, or options beside a function that makes the network.
    """
    method = METHODS[name]
    one = (z_dim if method.family in ("density", "field") else inputs.width) == 1
    default = "nsf" if one and method.models == _DENSITIES else method.models[0]
    spec = {"model": default, **{k: v for k, v in network.items() if k != "discrete"}}
    if one and spec["model"] in _AFFINE:
        warnings.warn(
            f"{spec['model']} can give nothing but a Gaussian in one dimension; write network={{'model': 'nsf'}}",
            stacklevel=user_stacklevel(),
        )
    if _is_function(spec["model"]):
        if len(spec) > 1:
            raise ValueError(
                f"network has a function as 'model' and also {', '.join(sorted(set(spec) - {'model'}))}; "
                "give these options inside the function"
            )
        return spec
    known = _known_options(name)
    for option in spec:
        if option in _SET_HERE:
            raise ValueError(
                f"network={{{option!r}: ...}} was given; x and z are standardised here already, leave it out"
            )
        if option not in known | _OURS:
            raise ValueError(
                f"{name} was given network={{{option!r}: ...}}, which sbi does not have. {did_you_mean(option, known)}"
            )
    return spec


def builder(name: str, spec: Mapping[str, Any], inputs: Inputs, discrete: DiscreteZ) -> Any:
    """`(batch_theta, batch_x) -> network`, as sbi calls it."""
    from sbi import neural_nets

    if _is_function(spec["model"]):
        return spec["model"]
    # modules among the options are trained: the user's own stay as they are
    options = {key: copy.deepcopy(value) if hasattr(value, "state_dict") else value for key, value in spec.items()}
    factory = getattr(neural_nets, METHODS[name].factory)
    # x is standardised already; z is narrower than the prior where the draws are of later rounds
    scaling = {"z_score_theta": "none" if name == "NPE_PFN" else "independent", "z_score_x": "none"}
    if name == "NPE_A":
        options = {**options, "model": "mdn_snpe_a"}
        options.pop("num_components", None)
    if name == "MNLE":
        return _mixed(factory, {**scaling, **options}, [len(values) for values in inputs.categories], "x")
    if name == "MNPE":
        return _mixed(factory, {**scaling, **options}, [len(edges) + 1 for _, edges in discrete.edges], "theta")
    return factory(**scaling, **options)


def components(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What NPE_A takes beside its network."""
    return {"num_components": spec.get("num_components", 10)} if name == "NPE_A" else {}


def rebuild(name: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray],
            seen: tuple[Inputs, DiscreteZ], z_dim: int) -> Any:  # fmt: skip
    """Rebuild a saved network from options and numbers.

    Raises:
        ValueError: another structure, as another version of sbi may build.
    """
    import torch

    (inputs, discrete), spec = seen, header["network"]
    rng = np.random.default_rng(0)
    # any rows of the right widths: sbi's builders only look at shapes and scales, and numbers follow from the file
    rows = rng.normal(size=(_ROWS, z_dim + inputs.width))
    rows[:, z_dim + len(inputs.continuous) :] = 0.0
    z, h = discrete.encode(rows[:, :z_dim]), rows[:, z_dim:]
    stored = {key.removeprefix("net/"): torch.as_tensor(arrays[key]) for key in arrays if key.startswith("net/")}
    with quiet_torch(None):
        net = builder(name, spec, inputs, discrete)(to_torch(z), to_torch(h), **components(name, spec))
        try:
            net.load_state_dict(stored)
        except RuntimeError as error:
            made = header["versions"].get("sbi", "unknown")
            raise ValueError(
                f"the file's network does not fit sbi {npz.versions('sbi')['sbi']}; it was written with sbi {made}. "
                "Load it with that version, or train again"
            ) from error
    net.eval()
    return net


def check_saveable(name: str, spec: Mapping[str, Any]) -> None:
    """Refuse a network that names and numbers cannot make again."""
    if name == "NPE_PFN":
        raise TypeError("NPE_PFN trains nothing: save the draws, draws.save(path), and fit again")
    if not isinstance(spec["model"], str):
        raise TypeError(
            f"a network made by {spec['model']!r} cannot be saved without pickle; train with one that has a name, "
            "network={'model': 'maf'}, or keep its state_dict yourself: torch.save(fitted.net.state_dict(), path)"
        )
    modules = [key for key, value in spec.items() if not _is_plain(value)]
    if modules:
        raise TypeError(
            f"a network with {', '.join(modules)} of your own cannot be saved without pickle; train without it, "
            "or keep its state_dict yourself: torch.save(fitted.net.state_dict(), path)"
        )


def require_tabpfn(spec: Mapping[str, Any]) -> None:
    """Refuse NPE_PFN without tabpfn or its weights.

    Nothing is downloaded here.

    Raises:
        ImportError: tabpfn is missing.
        FileNotFoundError: its weights are.
    """
    if importlib.util.find_spec("tabpfn") is None:
        raise ImportError(
            "NPE_PFN needs the package tabpfn; write pip install 'sbi[tabpfn]', or use SbiEstimator('NPE')"
        )
    from sbi.neural_nets.estimators.tabpfn_flow import TabPFNFlow

    options = spec.get("regressor_init_kwargs") or {}
    path = TabPFNFlow._resolve_model_path(options.get("model_path", "v2"))
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"NPE_PFN needs the weights of tabpfn at {path}; fetch them once (tabpfn does when its own TabPFNRegressor "
            "is fitted, under its licence), or name a file: network={'regressor_init_kwargs': {'model_path': ...}}"
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def _is_function(model: Any) -> bool:
    """Whether it makes a network; a torch module does not."""
    return callable(model) and not hasattr(model, "state_dict")


def _known_options(name: str) -> set[str]:
    """Options that the factory takes or passes on."""
    from sbi import neural_nets
    from sbi.neural_nets.net_builders import estimator_configs, vector_field_nets

    configs = {
        "ratio": estimator_configs.ClassifierConfig,
        "field": vector_field_nets.ScoreEstimatorConfig if name == "NPSE" else vector_field_nets.FlowEstimatorConfig,
    }
    method = METHODS[name]
    config = configs.get(method.family, estimator_configs.ConditionalFlowConfig)
    passed_on = {field.name for field in dataclasses.fields(config)}
    taken = set(inspect.signature(getattr(neural_nets, method.factory)).parameters)
    return (taken | passed_on) - _SET_HERE - _INTERNAL


def _mixed(factory: Any, options: Mapping[str, Any], counts: list[int], of: str) -> Any:
    """A mixed network, told of every category.

    sbi would count those among the rows that it happens to train on.
    """
    import torch

    def build(batch_theta: Any, batch_x: Any) -> Any:
        size = max(counts)
        rows = {"theta": batch_theta, "x": batch_x}
        more = {which: batch[:1].repeat(size, 1) for which, batch in rows.items()}
        for column, count in enumerate(counts, start=rows[of].shape[1] - len(counts)):
            more[of][:, column] = torch.arange(size) % count
        theta, x = (torch.cat([batch, more[which]]) for which, batch in rows.items())
        return factory(num_categories_per_variable=torch.tensor(counts), **options)(theta, x)

    return build
