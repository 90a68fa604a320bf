"""Pin every requirement of the package to the oldest version that pyproject.toml allows, torch apart.

    python .ci/floors.py > floors.txt && pip install -e . -c floors.txt

Builds of torch are chosen by the machine, not by version: `make setup` installs one first.
"""

import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

for line in PROJECT["dependencies"]:
    name, _, floor = line.partition(">=")
    if name != "torch":
        print(f"{name}=={floor}")
