"""Networks of the sbi package: made from options or by the user's function, checked, and made again when loaded."""

import copy
import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from vbinfer._param import did_you_mean
from vbinfer.io import npz
from vbinfer.neural.sbi.inputs import Inputs
from vbinfer.neural.sbi.methods import METHODS, default_model, only_gaussian
from vbinfer.neural.sbi.quiet import quiet_torch, to_torch

_OURS = {"model", "discrete"}
_SET_HERE = {"z_score_theta", "z_score_x", "z_score_y", "compose_standardization", "log_transform_x"}
_INTERNAL = {"kwargs", "extra_kwargs", "net", "estimator_type", "time_embedding_dim", "num_categories_per_variable"}
_ROWS = 100


def complete(name: str, network: Mapping[str, Any], z_dim: int, inputs: Inputs) -> dict[str, Any]:
    """The options with the default network filled in, checked against what sbi knows.

    Raises:
        ValueError: an option that sbi does not have, or options beside a function that makes the network.
    """
    width = z_dim if METHODS[name].family in ("density", "field") else inputs.width
    spec = {"model": default_model(name, width), **{k: v for k, v in network.items() if k != "discrete"}}
    if only_gaussian(spec["model"], width):
        warnings.warn(
            f"{spec['model']} can give nothing but a Gaussian in one dimension; write network={{'model': 'nsf'}}",
            stacklevel=4,
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


def builder(name: str, spec: Mapping[str, Any], inputs: Inputs) -> Any:
    """`(batch_theta, batch_x) -> network`, as the trainers of sbi call it."""
    from sbi import neural_nets

    if _is_function(spec["model"]):
        return spec["model"]
    # modules among the options are trained: the user's own stay as they are
    options = {key: copy.deepcopy(value) if hasattr(value, "state_dict") else value for key, value in spec.items()}
    factory = getattr(neural_nets, METHODS[name].factory)
    # x is standardised already; z is narrower than the prior where the draws are of later rounds
    scaling = {"z_score_theta": "independent", "z_score_x": "none"}
    if name == "NPE_A":
        options = {**options, "model": "mdn_snpe_a"}
        options.pop("num_components", None)
    if name != "MNLE":
        return factory(**scaling, **options)
    return _mixed(factory, {**scaling, **options}, inputs)


def rebuild(name: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], inputs: Inputs, z_dim: int) -> Any:
    """The network of a file: made from its options, then filled with the stored numbers.

    Raises:
        ValueError: another structure, as another version of sbi may build.
    """
    import torch

    rows = np.random.default_rng(0).normal(size=(_ROWS, z_dim + inputs.width))
    rows[:, z_dim + len(inputs.continuous) :] = 0.0
    spec = header["network"]
    stored = {key.removeprefix("net/"): torch.as_tensor(arrays[key]) for key in arrays if key.startswith("net/")}
    with quiet_torch(None):
        make = builder(name, spec, inputs)
        extra = {"num_components": spec.get("num_components", 10)} if name == "NPE_A" else {}
        net = make(to_torch(rows[:, :z_dim]), to_torch(rows[:, z_dim:]), **extra)
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


def check_saveable(spec: Mapping[str, Any]) -> None:
    """Refuse a network that cannot be made again from names and numbers."""
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


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def _is_function(model: Any) -> bool:
    """A function that makes the network; a torch module is a part of one."""
    return callable(model) and not hasattr(model, "state_dict")


def _known_options(name: str) -> set[str]:
    """What the factory takes by name, and what it passes on to the builders behind it."""
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


def _mixed(factory: Any, options: Mapping[str, Any], inputs: Inputs) -> Any:
    """MNLE's network, told of every category: sbi would count those among the rows that it happens to train on."""
    import torch

    counts = [len(values) for values in inputs.categories]

    def build(batch_theta: Any, batch_x: Any) -> Any:
        size = max(counts)
        seen = batch_x[:1].repeat(size, 1)
        for column, count in enumerate(counts, start=len(inputs.continuous)):
            seen[:, column] = torch.arange(size) % count
        theta, x = torch.cat([batch_theta, batch_theta[:1].repeat(size, 1)]), torch.cat([batch_x, seen])
        return factory(num_categories_per_variable=torch.tensor(counts), **options)(theta, x)

    return build
