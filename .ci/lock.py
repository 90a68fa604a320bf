"""Write requirements.lock: one version of everything, for every system and Python from 3.11 on.

    python .ci/lock.py && pip install -r requirements.lock && pip install --no-deps .

uv resolves; pip and `uv pip sync` read it. Torch is the version of the Makefile and what it brings for GPUs is left
out, so that a CPU build, installed first, satisfies the file.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = "# One version of everything, the tests' packages too, by `make lock`. Install a CPU build of torch first.\n"
RESOLVE = "uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --upgrade --quiet --no-header"

(torch,) = set(re.findall(r"torch==[\d.]+\d", (ROOT / "Makefile").read_text()))
with tempfile.NamedTemporaryFile("w+", suffix=".txt") as constraints:
    print(torch, file=constraints, flush=True)
    command = [sys.executable, "-m", *RESOLVE.split(), "--constraints", constraints.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
if done.returncode:
    raise SystemExit(done.stderr)
said = re.sub(r" +# +-c .*\n", "", done.stdout)  # the constraint's own line
entries = re.findall(r"^\S.*\n(?:[ ]+#.*\n)*", said, re.M)
kept = [entry for entry in entries if not re.match(r"(nvidia|cuda|triton)\b", entry)]
(ROOT / "requirements.lock").write_text(HEAD + "".join(kept))
print(f"{len(kept)} packages")
