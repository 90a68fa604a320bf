"""`vbinfer`: from a study file to a posterior and its report. Loads JAX only once there is something to compute."""

import argparse
import os
import sys
import tomllib
from pathlib import Path

DEMO = Path(__file__).with_name("demo.toml")
FAILED = 3


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="vbinfer", description="Simulation-based inference for virtual-brain models.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="a posterior from a real fMRI recording, with a report")
    demo.add_argument("--out", default="runs/demo", help="folder of the results (default: %(default)s)")
    demo.add_argument("--draws", type=int, help="number of simulations (default: 1024)")
    demo.add_argument("--participant", type=int, help="HCP participant, 1 to 7 (default: 3)")
    run = commands.add_parser("run", help="run a study file")
    calibrate = commands.add_parser(
        "calibrate",
        help="run a study file and test its estimator on held-out simulations; status 3 when it fails",
        description="Run a study file, then simulate held-out data with a key of their own, ask the estimator about "
        "each, and test whether its posteriors are right on average over the prior. Writes calibration.npz and the "
        "report; interrupted, the same command goes on. Status: 0 pass or warn, 3 the calibration failed, 1 an error.",
    )
    for command in (run, calibrate):
        command.add_argument("study", help="a TOML file; `vbinfer example` prints one")
        command.add_argument("--out", help="folder of the results, instead of the one in the file")
    calibrate.add_argument("--draws", type=int, help="held-out simulations, instead of [calibration] draws (300)")
    for command in (run, calibrate):
        command.add_argument(
            "--dry-run", action="store_true", help="check the file and estimate the time; simulate nothing"
        )
    again = commands.add_parser(
        "report",
        help="write the report of a finished run again; status 3 when its verdict is fail",
        description="Write report.html and report.json again from the files of a run; nothing is simulated. "
        "Status: 0 pass or warn, 3 the verdict is fail, 1 an error.",
    )
    again.add_argument("folder", help="the folder of a run")
    again.add_argument("--quiet", action="store_true", help="print nothing but errors")
    for command in (demo, run, calibrate):
        command.add_argument("--cores", type=int, help="cores to use (default: all this process may use)")
        command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    commands.add_parser("example", help="print the study file of the demo, to start one's own from")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit status: 0 when it ended, 1 when it could not, 130 when it was interrupted.

    `calibrate` and `report` give 3 where the calibration, or the verdict, is `fail`, so that a script can stop there.
    """
    args = parser().parse_args(argv)
    if args.command == "example":
        print(DEMO.read_text(encoding="utf-8"), end="")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # this process is ours; two BLAS or torch threads only wait here
    try:
        return _compute(args)
    except KeyboardInterrupt:
        print("\ninterrupted; what was simulated is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if os.environ.get("VBINFER_DEBUG"):
            raise
        print(f"vbinfer: {error}", file=sys.stderr)
        return 1


def _compute(args: argparse.Namespace) -> int:
    import dataclasses
    import warnings

    import vbinfer as vb

    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)

    if args.command == "report":  # nothing is simulated
        return _report(args)
    vb.use_cores(args.cores or _workers(args) or _cores())
    from vbinfer.cli.config import load_study
    from vbinfer.cli.run import calibrate_study, run_study

    if args.command == "demo":
        chosen = {} if args.participant is None else {"participant": args.participant}
        study = load_study(DEMO, out=args.out, data=chosen)
        study = study if args.draws is None else dataclasses.replace(study, draws=args.draws)
    else:
        study = load_study(args.study, out=args.out)
        extra = 0
        if args.command == "calibrate":
            study = _held_out(study, args.draws)
            extra = study.calibration.draws
        if args.dry_run:
            print(_estimate(study, extra))
            return 0
    if args.command == "calibrate":
        return FAILED if calibrate_study(study, quiet=args.quiet)[1].verdict == "fail" else 0
    run_study(study, quiet=args.quiet)
    return 0


def _held_out(study, draws: int | None):  # type: ignore[no-untyped-def]  # a Study, whose module loads JAX
    """The study with another number of held-out simulations."""
    import dataclasses

    from vbinfer.cli.config import FEWEST_HELD_OUT

    if draws is None:
        return study
    if draws < FEWEST_HELD_OUT:
        raise ValueError(f"--draws {draws} was given; at least {FEWEST_HELD_OUT} are needed, 300 or more are wanted")
    return dataclasses.replace(study, calibration=dataclasses.replace(study.calibration, draws=draws))


def _report(args: argparse.Namespace) -> int:
    from vbinfer.cli.folder import rebuild
    from vbinfer.cli.run import Clock, say_verdict

    verdict = rebuild(args.folder)
    say_verdict(Clock(quiet=args.quiet), verdict, Path(args.folder))
    return FAILED if verdict.verdict == "fail" else 0


def _workers(args: argparse.Namespace) -> int | None:
    """`[execution] workers` of the study file, read ahead since devices are set before anything else loads."""
    try:
        workers = tomllib.loads(Path(args.study).read_text(encoding="utf-8"))["execution"]["workers"]
    except (AttributeError, KeyError, TypeError, ValueError, OSError):
        return None  # no study file, or a mistake in it, which load_study names
    return workers if isinstance(workers, int) and workers > 0 else None


def _cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _estimate(study, held_out: int = 0) -> str:  # type: ignore[no-untyped-def]  # a Study, whose module loads JAX
    import jax

    cost, cores = study.forward.estimate(study.draws + held_out), len(jax.devices())
    more = f" and {held_out:,} held-out ones" if held_out else ""
    return (
        f"{study.path}: the study file is sound\n"
        f"{study.draws:,} draws{more} of {', '.join(study.prior.names)} -> {len(study.forward.names)} features\n"
        f"{cost['network_steps']:,.0f} network steps, about {cost['seconds'] / cores:,.0f} s of simulation "
        f"on {cores} cores, {cost['bytes'] / 1e6:,.1f} MB of features"
    )
