"""`vbinfer`: a study file's posterior and report from the shell.

Loads JAX only once there is something to compute.
"""

import argparse
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vbinfer.reporting.sections import Verdict
    from vbinfer.study.run import Say
    from vbinfer.study.study import Study

DEMO = Path(__file__).with_name("demo.toml")
FAILED = 3
DEMOS = {
    "fmri": "the global coupling of 80 regions, from a real fMRI recording",
    "vep": "a virtual epileptic patient: 85 parameters, from a simulated recording; no data, a minute",
    "damped-oscillator": "two parameters by a network and by NUTS, which have to agree; no data, a minute",
}


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="vbinfer", description="Simulation-based inference for virtual-brain models.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="a posterior with a report, from a real fMRI recording or without data")
    demo.add_argument("--task", choices=tuple(DEMOS), default="fmri", help="which demo (default: %(default)s)")
    demo.add_argument("--list", action="store_true", help="name the demos, and run none")
    demo.add_argument("--out", help="folder of the results (default: runs/demo, of another task runs/TASK)")
    demo.add_argument("--draws", type=_count, help="number of simulations, instead of the demo's own")
    demo.add_argument("--participant", type=int, help="HCP participant of fmri, 1 to 7 (default: 3)")
    _add_computing(demo)
    _add_study_commands(commands)
    again = commands.add_parser(
        "report",
        help="write the report of a finished run again; status 3 when its verdict is fail",
        description="Write report.html and report.json again from the files of a run; nothing is simulated. "
        "Status: 0 pass or warn, 3 the verdict is fail, 1 an error.",
    )
    again.add_argument("folder", help="the folder of a run")
    again.add_argument("--quiet", action="store_true", help="print nothing but errors")
    verify = commands.add_parser(
        "verify",
        help="make every number of a run again, and name what differs; status 1 when something does",
        description="Train, sample, check and report again from the store and the seed of a run, in a folder of their "
        "own, and compare every number. Status: 0 all agree, 1 something differs, which is named, or an error.",
    )
    verify.add_argument("folder", help="the folder of a run")
    verify.add_argument("--study", help="the study file, where it has moved")
    verify.add_argument("--tolerance", type=float, help="in sd (default: 1e-5 on the machine of the run, else 0.05)")
    _add_computing(verify)
    status = commands.add_parser("status", help="how far a run is, also while it runs")
    status.add_argument("folder", help="the folder of a run, of a store or of chains")
    merge = commands.add_parser(
        "merge",
        help="bring stores of the same study into one",
        description="Copy the shards of stores of the same study into one; each is checked. The others stay.",
    )
    merge.add_argument("store", help="the folder to fill, new or of the same study")
    merge.add_argument("others", nargs="+", help="the stores to take from")
    export = commands.add_parser("export", help="write draws for other software: .nc, .zarr, .parquet or .csv")
    export.add_argument("folder", help="the folder of a run or of a store")
    export.add_argument("target", help="the file, or folder, to write")
    export.add_argument("--overwrite", action="store_true", help="replace what is there")
    example = commands.add_parser("example", help="print the study file of the demo, to start one's own from")
    example.add_argument("--subjects", action="store_true", help="of all seven participants, as one cohort")
    return top


def _example(subjects: bool) -> str:
    """The study file of the demo, or of all participants."""
    text = DEMO.read_text(encoding="utf-8")
    if not subjects:
        return text
    # the same study, told about more recordings: simulations and training are shared
    text = text.replace("participant = 3\n", "").replace('dir = "runs/demo"', 'dir = "runs/participants"')
    rows = [f'\n[[subjects]]\nname = "participant-{i}"\nparticipant = {i}\n' for i in range(1, 8)]
    return text + "".join(rows)


def _add_study_commands(commands: Any) -> None:
    """The commands that take a study file."""
    simulate = commands.add_parser(
        "simulate",
        help="run the simulations of a study file, or a part of them",
        description="Run the simulations of a study file into the store of its folder, and nothing else; `vbinfer fit` "
        "or `vbinfer run` goes on from there. Several of these may run at the same time, on one computer or on many "
        "that share the folder: with --shard each has its own part, without it each takes what no other works on.",
    )
    simulate.add_argument(
        "--shard", metavar="I/N", default=(1, 1), type=_part, help="part I of N, I from 1 to N (an array job's)"
    )
    calibrate = commands.add_parser(
        "calibrate",
        help="run a study file and test its method on held-out simulations; status 3 when it fails",
        description="Run a study file, then simulate held-out data with a key of their own, ask the method about "
        "each, and test whether its posteriors are right on average over the prior. Writes calibration.npz and the "
        "report; interrupted, the same command goes on. Status: 0 pass or warn, 3 the calibration failed, 1 an error.",
    )
    calibrate.add_argument("--draws", type=int, help="held-out simulations, instead of [calibration] draws (300)")
    for command in (
        commands.add_parser("run", help="run a study file: simulate, fit, infer"),
        simulate,
        commands.add_parser("fit", help="train the estimator of a study file; simulates what is missing"),
        commands.add_parser("infer", help="posterior and report of a study file, from its fitted estimator"),
        calibrate,
        commands.add_parser("sweep", help="simulate the grid of [sweep] in a study file; writes sweep.nc"),
    ):
        command.add_argument("study", help="a TOML file; `vbinfer example` prints one")
        command.add_argument("--out", help="folder of the results, instead of the one in the file")
        command.add_argument(
            "--dry-run", action="store_true", help="check the file and estimate the time; simulate nothing"
        )
        command.add_argument(
            "--allow-scheduler", action="store_true", help="connect to the [execution] scheduler of the study file"
        )
        _add_computing(command)


def _add_computing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cores", type=_count, help="cores to use (default: all this process may use)")
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit status.

    0 when it ended, 1 when it could not, 130 when it was interrupted, 143 when a batch system stopped it; 3 of
    `calibrate` and `report` where the calibration, or the verdict, is `fail`, so that a script can stop there.
    """
    args = parser().parse_args(argv)
    if args.command == "example":
        print(_example(args.subjects), end="")
        return 0
    if args.command == "demo" and args.list:
        width = max(map(len, DEMOS))
        print("\n".join(f"{name:{width}}  {words}" for name, words in DEMOS.items()))
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # this process is ours; two BLAS or torch threads only wait here
    from vbinfer.cli import errors  # here, since it loads NumPy, and now: later there may be no free file handle

    try:
        with errors.stopping():
            return _compute(args)
    except KeyboardInterrupt as error:
        errors.say("\ninterrupted; what was simulated is kept, and the same command goes on from there")
        return 143 if isinstance(error, errors.Stopped) else 130
    except errors.EXPECTED as error:
        if os.environ.get("VBINFER_DEBUG"):
            raise
        errors.say(f"vbinfer: {errors.said(error)}")
        errors.let_go_of_stdout(error)
        return 1


def _compute(args: argparse.Namespace) -> int:
    import warnings

    from vbinfer.cli import errors

    # one line on stderr instead of Python's three
    warnings.showwarning = lambda message, *_, **__: errors.say(f"note: {message}")
    if args.command in NOTHING_RUNS:
        return NOTHING_RUNS[args.command](args)
    from vbinfer.execute.compile_cache import use_cache
    from vbinfer.execute.executor import use_cores

    # before JAX makes its devices, which it does once
    use_cores(args.cores or _workers(args) or _cores())
    from vbinfer.study import run

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        use_cache()  # the next run of a model starts at once
    say = None if args.quiet else errors.tell
    if (code := _apart(args, say)) is not None:
        return code
    study = _study(args)
    if args.command != "demo" and args.dry_run:
        print(_estimate(study, study.calibration.draws if args.command == "calibrate" else 0))
        return 0
    if args.command == "simulate":
        if say is not None:
            say(_estimate(study))
        for one in study.simulators:
            found = run.simulate_study(one, args.shard, say=say)
            if say is not None:
                say(str(found))
        return 0
    if args.command == "fit":
        run.fit_study(study, say=say)
        return 0
    calibration = None
    if args.command == "calibrate":
        verdict, calibration = run.calibrate_study(study, say=say)
    else:
        verdict = (run.infer_study if args.command == "infer" else run.run_study)(study, say=say)
    _say_verdict(verdict, study.out, args.quiet)
    return FAILED if calibration is not None and calibration.verdict == "fail" else 0


def _apart(args: argparse.Namespace, say: "Say | None") -> int | None:
    """Commands that are no stages of a study, else None."""
    from vbinfer.cli import errors

    if args.command == "verify":
        from vbinfer.study.verify import verify_study

        found = verify_study(args.folder, study=args.study, tolerance=args.tolerance, say=say)
        errors.tell(str(found))
        return 0 if found.passed else 1
    if args.command == "sweep":
        from vbinfer.study.sweep import sweep_study

        sweep_study(args.study, out=args.out, dry_run=args.dry_run, say=say)
        return 0
    return _demo(args, say) if args.command == "demo" and args.task != "fmri" else None


def _demo(args: argparse.Namespace, say: "Say | None") -> int:
    """A demo without data."""
    from vbinfer.cli.demos import run_demo

    if args.participant is not None:
        raise ValueError(f"--participant goes with --task fmri; {args.task} is simulated")
    out = Path(args.out or f"runs/{args.task}")
    _say_verdict(run_demo(args.task, out, args.draws, say=say), out, args.quiet)
    return 0


def _study(args: argparse.Namespace) -> "Study":
    """The study of a command, with what its options change."""
    import dataclasses

    from vbinfer.study.study import Study

    if args.command == "demo":
        chosen = {} if args.participant is None else {"participant": args.participant}
        study = Study.from_toml(DEMO, out=args.out or "runs/demo", data=chosen)
        return study if args.draws is None else dataclasses.replace(study, draws=args.draws)
    study = Study.from_toml(args.study, out=args.out)
    if study.scheduler is not None and not args.allow_scheduler:
        raise ValueError(
            f"the study file names a Dask scheduler, {study.scheduler}, and whoever runs that can run anything as "
            "you; if it is yours, add --allow-scheduler"
        )
    if args.command != "calibrate" or args.draws is None:
        return study
    from vbinfer.diagnostics.thresholds import FEWEST_DATA_SETS as FEWEST

    if args.draws < FEWEST:
        raise ValueError(f"--draws {args.draws} was given; at least {FEWEST} are needed, 300 or more are wanted")
    return dataclasses.replace(study, calibration=dataclasses.replace(study.calibration, draws=args.draws))


def _say_verdict(verdict: "Verdict", out: Path, quiet: bool) -> None:
    """The verdict, its sentences and where the page is."""
    from vbinfer.cli import errors

    if not quiet:
        findings = "".join(f"\n  - {finding}" for finding in verdict.findings)
        errors.tell(f"\nverdict: {verdict.verdict}{findings}\nreport: {out / 'report.html'}")


def _report(args: argparse.Namespace) -> int:
    from vbinfer.study.folder import rebuild

    verdict = rebuild(args.folder)
    _say_verdict(verdict, Path(args.folder), args.quiet)
    return FAILED if verdict.verdict == "fail" else 0


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} was given; expected a whole number above 0, such as 2")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    i, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= i <= of:
        raise argparse.ArgumentTypeError(f"{text!r} was given; expected I/N with I from 1 to N, such as 3/8")
    return i, of


def _status(args: argparse.Namespace) -> int:
    from vbinfer.cli import errors
    from vbinfer.cli.status import status

    errors.tell(status(args.folder))
    return 0


def _merge(args: argparse.Namespace) -> int:
    from vbinfer.draws.manage import merge_stores

    print(merge_stores(args.store, *args.others))
    return 0


def _export(args: argparse.Namespace) -> int:
    from vbinfer.draws.export import export

    folder = Path(args.folder)
    export(folder / "store" if (folder / "store").is_dir() else folder, args.target, overwrite=args.overwrite)
    return 0


NOTHING_RUNS = {"report": _report, "status": _status, "merge": _merge, "export": _export}


def _workers(args: argparse.Namespace) -> int | None:
    """`[execution] workers`, read before anything else loads."""
    try:
        workers = tomllib.loads(Path(args.study).read_text(encoding="utf-8"))["execution"]["workers"]
    except (AttributeError, KeyError, TypeError, ValueError, OSError, RecursionError):
        return None  # no study file, or a mistake in it, which Study.from_toml names
    return workers if isinstance(workers, int) and workers > 0 else None


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _estimate(study: "Study", held_out: int = 0) -> str:
    """What a study will take, in three lines."""
    import jax

    simulators = len(study.simulators)
    draws, cores = simulators * study.draws + held_out, len(jax.devices())
    cost = study.forward.estimate(max(draws, 1))
    more = f" and {held_out:,} held-out ones" if held_out else ""
    what = f"{study.draws:,} draws{more}" if study.draws else f"likelihood{more}"
    if study.subjects:
        what = f"{len(study.subjects)} subjects, {simulators} x {what}"
    return (
        f"{study.path}: the study file is sound\n"
        f"{what} of {', '.join(study.prior.names)} -> {len(study.forward.names)} features\n"
        f"{cost['network_steps']:,.0f} network steps, about {cost['seconds'] / cores:,.0f} s of simulation "
        f"on {cores} cores, {cost['bytes'] / 1e6:,.1f} MB of features"
    )
