"""`vbinfer simulate`: the draws of a study, or a part of them, apart from what is inferred from them."""

from vbinfer.cli.config import Study
from vbinfer.cli.folder import write_plan
from vbinfer.cli.run import executor_of, stage_keys
from vbinfer.draws.manage import StoreStatus, simulate_store


def simulate(study: Study, part: tuple[int, int], *, quiet: bool = False) -> StoreStatus:
    """The draws of a study, or one part of them, into `store/`; `vbinfer run` then goes on from there."""
    write_plan(study.out, draws=study.draws)
    return simulate_store(
        study.prior,
        study.forward,
        study.draws,
        key=stage_keys(study)["draws"],
        store=study.out / "store",
        part=part,
        executor=executor_of(study),
        progress=not quiet,
    )
