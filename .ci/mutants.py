"""Would the tests notice? Small faults, one at a time, in the core files, each against its file's tests.

    python .ci/mutants.py [--per-file 10] [--seed 0] [--only coupling] [--list]

A mutant flips a sign, drops a term or a factor, or swaps an index. It is killed when its tests fail (or hang), and
survives when they pass. `.ci/mutants_explained.txt` holds survivors that change no number a user can see, a line each:
`file | the line with the fault | why`. Exit status 1 when a survivor is not explained.
"""

import argparse
import ast
import concurrent.futures
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
EXPLAINED = Path(__file__).with_name("mutants_explained.txt")
SECONDS = 240  # a test run that takes longer hangs: the fault was noticed
CORE = {  # file: its tests, the quick and telling ones first
    "integrators.py": ["test_integrators.py"],
    "noise.py": ["test_noise.py"],
    "_random.py": ["test_noise_generator.py"],
    "network/coupling.py": ["test_coupling.py"],
    "network/delays.py": ["test_delays.py"],
    "models/montbrio.py": ["test_models.py", "-k", "MontbrioPazoRoxin or cv_"],
    "monitors/bold.py": ["test_monitors.py"],
    "features/connectivity.py": ["test_features_registry.py", "test_features.py", "test_features_theorems.py"],
    "priors/transforms.py": ["test_prior.py"],
    "likelihoods/gaussian.py": ["test_likelihoods.py"],
    "neural/densities/flows.py": ["test_densities.py"],
    "diagnostics/calibration/band.py": ["test_calibration_band.py", "test_calibration_ranks.py"],
}
SWAPPED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}


class Mutant(NamedTuple):
    """One fault: what stands at `[start, stop)` of the file's text, and what is written instead."""

    file: str
    line: int
    start: int
    stop: int
    new: str
    kind: str

    def text(self, source: str) -> str:
        return source[: self.start] + self.new + source[self.stop :]

    def faulty_line(self, source: str) -> str:
        return self.text(source).splitlines()[self.line - 1].strip()


def mutants(file: str, source: str) -> list[Mutant]:
    """Every fault of a file. Annotations, docstrings and messages are left alone: they compute nothing."""
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))

    def place(line: int, column: int) -> int:  # ast counts columns in bytes
        return offsets[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def span(node: ast.AST) -> tuple[int, int]:
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    found: list[Mutant] = []

    def add(node: ast.AST, new: str, kind: str, at: tuple[int, int] | None = None) -> None:
        start, stop = at or span(node)
        found.append(Mutant(file, node.lineno, start, stop, new, kind))

    for node in computing(ast.parse(source)):
        if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
            left, right = span(node.left), span(node.right)
            between = source[left[1] : right[0]]
            sign = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}[type(node.op)]
            at = left[1] + between.index(sign)
            add(node, SWAPPED[type(node.op)], "sign or division flipped", (at, at + 1))
            add(node, source[slice(*left)], "term or factor dropped")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            add(node, f"({source[slice(*span(node.operand))]})", "minus dropped")
        elif isinstance(node, ast.Subscript):
            inside = node.slice
            if isinstance(inside, ast.Constant) and inside.value in (0, 1):
                add(inside, str(1 - inside.value), "index swapped")
            elif isinstance(inside, ast.Tuple) and len(inside.elts) == 2:
                one, two = (source[slice(*span(part))] for part in inside.elts)
                if one != two:
                    add(inside, f"{two}, {one}", "indices swapped", (span(inside.elts[0])[0], span(inside.elts[1])[1]))
        elif isinstance(node, ast.keyword) and node.arg == "axis" and getattr(node.value, "value", None) in (0, 1):
            add(node.value, str(1 - node.value.value), "axis swapped")
    return found


def computing(tree: ast.AST):
    """The nodes that compute: not annotations, strings, raises, decorators or classes' declarations."""
    children = tree.body if isinstance(tree, ast.FunctionDef) else ast.iter_child_nodes(tree)
    for child in children:
        if isinstance(child, ast.Raise | ast.JoinedStr | ast.arg | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield child.value
                yield from computing(child.value)
            continue
        if not isinstance(child, ast.FunctionDef):
            yield child
        yield from computing(child)


def sample(per_file: int, seed: int, only: str) -> list[Mutant]:
    chosen = []
    for file in CORE:
        if only in file:
            every = mutants(file, (ROOT / "vbinfer" / file).read_text())
            chosen += random.Random(f"{seed} {file}").sample(every, min(per_file, len(every)))
    return chosen


def tried(mutant: Mutant, house: Path) -> tuple[str, float]:
    """`killed`, `hung` or `survived`, and seconds, in a copy of the repository."""
    path = house / "vbinfer" / mutant.file
    sound = (ROOT / "vbinfer" / mutant.file).read_text()
    path.write_text(mutant.text(sound))
    tests = [f"tests/{word}" if word.endswith(".py") else word for word in CORE[mutant.file]]
    began = time.time()
    environment = {
        "VBINFER_TEST_CACHE": str(ROOT / ".programs"),  # what a fault leaves alone need not be compiled again
        **os.environ,
        "PYTHONPATH": str(house),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
            cwd=house,
            env=environment,
            capture_output=True,
            timeout=SECONDS,
        )
        answer = "survived" if done.returncode == 0 else "killed"
        if done.returncode not in (0, 1, 2):  # 2: the fault keeps a file from being collected
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout.decode()[-2000:]}")
    except subprocess.TimeoutExpired:
        answer = "hung"
    finally:
        path.write_text(sound)
    return answer, time.time() - began


def house(place: Path) -> Path:
    """A copy of what tests need, so that the repository itself is never changed."""
    skip = shutil.ignore_patterns(".git", ".venv*", ".programs", ".durations", "runs", "__pycache__")
    shutil.copytree(ROOT, place, ignore=skip)
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-file", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="show the sample, run nothing")
    asked = parser.parse_args()
    chosen = sample(asked.per_file, asked.seed, asked.only)
    sources = {file: (ROOT / "vbinfer" / file).read_text() for file in CORE}
    if asked.list:
        for mutant in chosen:
            print(f"{mutant.file}:{mutant.line} {mutant.kind}: {mutant.faulty_line(sources[mutant.file])}")
        return 0
    explained = {tuple(part.strip() for part in line.split("|")[:2]) for line in EXPLAINED.read_text().splitlines()}
    began, counts, left = time.time(), {"killed": 0, "hung": 0, "survived": 0, "explained": 0}, []
    with tempfile.TemporaryDirectory() as tmp, concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        houses = [house(Path(tmp) / str(number)) for number in range(asked.jobs)]

        def work(mutant: Mutant) -> tuple[Mutant, str, float]:
            mine = houses.pop()
            try:
                return mutant, *tried(mutant, mine)
            finally:
                houses.append(mine)

        for mutant, answer, seconds in pool.map(work, chosen):
            line = mutant.faulty_line(sources[mutant.file])
            if answer == "survived" and (mutant.file, line) in explained:
                answer = "explained"
            counts[answer] += 1
            print(f"{answer:9} {seconds:4.0f} s  {mutant.file}:{mutant.line} {mutant.kind}: {line}", flush=True)
            if answer == "survived":
                left.append(mutant)
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    print(f"{len(chosen)} mutants in {(time.time() - began) / 60:.0f} minutes: {told}")
    for mutant in left:
        print(f"survivor: {mutant.file}:{mutant.line} {mutant.kind}: {mutant.faulty_line(sources[mutant.file])}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
