"""One round of training by sbi's own trainers, and what their curves say."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vbinfer._param import did_you_mean
from vbinfer.neural.fit_info import has_converged
from vbinfer.neural.sbi.inputs import Inputs
from vbinfer.neural.sbi.methods import METHODS
from vbinfer.neural.sbi.network import builder
from vbinfer.neural.sbi.quiet import NullTracker, to_torch

DEFAULTS = {"training_batch_size": 200, "learning_rate": 1e-3, "max_num_epochs": 500}
_SET_HERE = {"resume_training", "force_first_round_loss", "discard_prior_samples", "retrain_from_scratch",
             "show_train_summary", "calibration_kernel", "use_combined_loss", "loss_kwargs"}  # fmt: skip


class Fit(NamedTuple):
    """A trained network and the record of it."""

    net: Any
    train: np.ndarray
    val: np.ndarray
    held: np.ndarray
    converged: bool


def fit_network(
    name: str, spec: Mapping[str, Any], training: Mapping[str, Any], pairs: tuple[np.ndarray, np.ndarray],
    inputs: Inputs, progress: bool,
) -> Fit:  # fmt: skip
    """Train on pairs `(z [n, D], h [n, H])`, all rows alike whatever their round.

    Raises:
        ValueError: an option that sbi's `train` does not have.
    """
    import torch
    from sbi import inference

    method, dim = METHODS[name], pairs[0].shape[1]
    trainer_class = getattr(inference, method.trainer)
    options = {**DEFAULTS, **training}
    _check_options(name, trainer_class, training)
    # only its dimension counts here: a first round trains by maximum likelihood
    prior = torch.distributions.MultivariateNormal(torch.zeros(dim), torch.eye(dim))
    extra = {"num_components": spec.get("num_components", 10)} if name == "NPE_A" else {}
    network = {method.argument: builder(name, spec, inputs)}
    trainer = trainer_class(prior=prior, tracker=NullTracker(), show_progress_bars=progress, **network, **extra)
    trainer.append_simulations(*(to_torch(rows) for rows in pairs))
    net = trainer.train(**options)
    net.eval()
    train, val = (np.asarray(trainer.summary[which], float) for which in ("training_loss", "validation_loss"))
    if method.family == "field":  # summed over the times at which the held-out loss is taken
        times = options.get("validation_times", 10)
        val = val / (times if isinstance(times, int) else len(times))
    cap = int(options["max_num_epochs"]) + 1  # sbi runs one epoch more than its cap
    return Fit(net, train, val, np.asarray(trainer.val_indices), has_converged(train, val, cap))


def _check_options(name: str, trainer_class: Any, training: Mapping[str, Any]) -> None:
    known = set(inspect.signature(trainer_class.train).parameters) - {"self", *_SET_HERE}
    for option in training:
        if option not in known:
            raise ValueError(
                f"{name} was given training={{{option!r}: ...}}; the training options of sbi that can be set here are "
                f"{', '.join(sorted(known))}. {did_you_mean(option, known)}"
            )
