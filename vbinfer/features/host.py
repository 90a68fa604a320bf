"""The catch22 characteristics, computed on the host by pycatch22."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import NodeFeature, chosen, option, pick
from .numeric import keep_nan, time_centre

CATCH22 = (
    "DN_HistogramMode_5",
    "DN_HistogramMode_10",
    "CO_f1ecac",
    "CO_FirstMin_ac",
    "CO_HistogramAMI_even_2_5",
    "CO_trev_1_num",
    "MD_hrv_classic_pnn40",
    "SB_BinaryStats_mean_longstretch1",
    "SB_TransitionMatrix_3ac_sumdiagcov",
    "PD_PeriodicityWang_th0_01",
    "CO_Embed2_Dist_tau_d_expfit_meandiff",
    "IN_AutoMutualInfoStats_40_gaussian_fmmi",
    "FC_LocalSimple_mean1_tauresrat",
    "DN_OutlierInclude_p_001_mdrmd",
    "DN_OutlierInclude_n_001_mdrmd",
    "SP_Summaries_welch_rect_area_5_1",
    "SB_BinaryStats_diff_longstretch0",
    "SB_MotifThree_quantile_hh",
    "SC_FluctAnal_2_rsrangefit_50_1_logi_prop_r1",
    "SC_FluctAnal_2_dfa_50_1_2_logi_prop_r1",
    "SP_Summaries_welch_rect_centroid",
    "FC_LocalSimple_mean3_stderr",
)

RENAMED = {  # names of the paper and of pycatch22 before 1.0: names since then
    "CO_f1ecac": "CO_FirstCrossing_acf_1e_pointOfCrossing",
    "CO_HistogramAMI_even_2_5": "CO_HistogramAMI_even_5bin_ami2",
    "MD_hrv_classic_pnn40": "MD_pNN_pnn40",
    "SB_TransitionMatrix_3ac_sumdiagcov": "SB_TransitionMatrix_quantile_3_ac_sumdiagcov",
    "FC_LocalSimple_mean1_tauresrat": "FC_LocalSimple_mean1_taurat",
    "SP_Summaries_welch_rect_area_5_1": "SP_Summaries_fft_area_5_1",
    "SP_Summaries_welch_rect_centroid": "SP_Summaries_fft_wq_50",
    "FC_LocalSimple_mean3_stderr": "FC_LocalSimple_mean3_stde",
}


class catch22(NodeFeature):
    """The catch22 characteristics of each node.

    An optional extra: the numbers come from the package pycatch22, which is not a dependency, is under the GPL (install
    it yourself: `pip install pycatch22`) and runs on the host, one node after the other, also inside `jit` and `vmap`.
    The signal is standardised by the package. Gradient 0: for training estimators, not for NUTS. A constant node, and a
    number that the package cannot compute, count as 0.

    Args:
        only: names of the numbers to keep, in this order; all twenty-two without.
        pool: `"mean"` over nodes, `"spread"` (mean and standard deviation), `"quantiles"`, or each of the `"nodes"`.

    Raises:
        ImportError: pycatch22 is not installed, or gives other names.

    Lubba et al. 2019, doi:10.1007/s10618-019-00647-x.
    """

    only: tuple[str, ...] = option(default=None, converter=chosen("catch22", *CATCH22))

    def __check_init__(self) -> None:
        try:
            package = importlib.import_module("pycatch22")
        except ImportError as error:
            raise ImportError(
                "catch22 needs the package pycatch22 (GPL), which vbinfer does not install; "
                "write pip install pycatch22, or use vb.features.statistics, timescales and spectrum"
            ) from error
        known = _by_name(package, np.sin(np.arange(60.0) ** 1.5))  # once, so that a name it lacks is found here
        missing = [name for name in CATCH22 if name not in known]
        if missing:
            raise ImportError(
                f"the installed pycatch22 does not give {', '.join(missing)}; pip install pycatch22==1.0.2"
            )

    def per_node(self, y: Array, period: float) -> Array:
        y = jax.lax.stop_gradient(y)
        shape = jax.ShapeDtypeStruct((len(CATCH22), y.shape[1]), y.dtype)
        numbers = jax.pure_callback(_on_host, shape, y, vmap_method="sequential")
        numbers = jnp.where(time_centre(y)[2][None] | ~jnp.isfinite(numbers), 0.0, numbers)
        return keep_nan(pick(dict(zip(CATCH22, numbers, strict=True)), self.only), y)

    def labels(self) -> tuple[str, ...]:
        return self.only


def _on_host(y: Array) -> np.ndarray:
    """`[22, N]`, in the order of `CATCH22`."""
    package = importlib.import_module("pycatch22")
    numbers = np.zeros((len(CATCH22), y.shape[1]), dtype=y.dtype)
    for node, signal in enumerate(np.asarray(y, dtype=float).T):
        if np.isfinite(signal).all() and np.ptp(signal) > 0.0:
            by_name = _by_name(package, signal)
            numbers[:, node] = [by_name[name] for name in CATCH22]
    return numbers


def _by_name(package: Any, signal: np.ndarray) -> dict[str, float]:
    """Numbers of one signal, by the names of the paper."""
    found = package.catch22_all(signal.tolist())
    former = {new: old for old, new in RENAMED.items()}
    named = zip(map(str, found["names"]), found["values"], strict=True)
    return {former.get(name, name): float(value) for name, value in named}
