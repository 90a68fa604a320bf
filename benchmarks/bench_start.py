"""How long `import vbinfer` and `vbinfer --help` take, and which heavy packages they load.

Torch, sbi, dask and matplotlib must not be loaded by any of these: the exit status is 1 if one is.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

from _timing import finish, header, host, interleaved, median, options, seconds, spread, table

HEAVY = ("jax", "equinox", "scipy", "numpyro", "flowjax", "optax", "xarray", "pandas", "sklearn", "arviz", "blackjax")
BANNED = ("torch", "sbi", "dask", "matplotlib")
NAMES = "import vbinfer as vb; vb.Simulator; vb.NPE; vb.Prior"
SHOW = f"import sys; print(*[m for m in {(*HEAVY, *BANNED)} if m in sys.modules])"
# the same command inside one Python, so that its modules can be counted when it exits
HELP = "import atexit, sys; atexit.register(lambda: exec(MODULES)); sys.argv = ['vbinfer', '--help']; "


def run(command: list[str]) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    args = options(__doc__, repeats=7)
    where, python = host(), sys.executable
    header(f"wall seconds from start to exit, median of {args.repeats} interleaved", where)
    script = str(Path(python).with_name("vbinfer"))
    help_ = f"MODULES = {SHOW!r}; {HELP}from vbinfer.cli.main import main; main()"
    commands = {
        "python -c pass": ([python, "-c", "pass"], [python, "-c", SHOW]),
        "import vbinfer": ([python, "-c", "import vbinfer"], [python, "-c", f"import vbinfer; {SHOW}"]),
        NAMES.removeprefix("import vbinfer as "): ([python, "-c", NAMES], [python, "-c", f"{NAMES}; {SHOW}"]),
        "vbinfer --help": ([script, "--help"], [python, "-c", help_]),
    }
    loaded = {name: run(show).splitlines()[-1].split() for name, (_, show) in commands.items()}  # and warms the disk
    took = interleaved({name: partial(seconds, partial(run, c)) for name, (c, _) in commands.items()}, args.repeats)
    rows = [(name, f"{median(s):.2f}", spread(s), " ".join(loaded[name]) or "-") for name, s in took.items()]
    table(("", "s", "range", "heavy modules"), rows)
    bad = sorted({module for modules in loaded.values() for module in modules} & set(BANNED))
    print(f"loaded and should not be: {', '.join(bad)}" if bad else f"absent, as they must be: {', '.join(BANNED)}")
    finish(args.json, where, {"seconds": took, "modules": loaded})
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
