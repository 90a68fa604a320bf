"""What the suite's tests took: the last record in `.durations/`, and unmarked tests over 5 CPU-seconds."""

import json
import sys
from pathlib import Path

LIMIT = 5.0
records = sorted((Path(__file__).parent.parent / ".durations").glob("*.json"))
if not records:
    sys.exit("no run is recorded in .durations/; make test records one")
record = json.loads(records[-1].read_text())
tests = record["tests"]
print(
    f"{records[-1].name}: {record['items']} items, {record['wall']:.0f} s of wall time, {record['cpu']:.0f} CPU-seconds"
)
by_file: dict[str, float] = {}
for name, one in tests.items():
    file = name.split("::")[0]
    by_file[file] = by_file.get(file, 0.0) + one["cpu"]
for file, cpu in sorted(by_file.items(), key=lambda pair: -pair[1])[:12]:
    print(f"{cpu:8.1f}  {file}")
apart = {"slow", "faults", "parity", "browser", "documents"}
dear = {name: one["cpu"] for name, one in tests.items() if one["cpu"] > LIMIT and not apart & set(one["marks"])}
print(f"{len(dear)} unmarked tests over {LIMIT:.0f} CPU-seconds (the first of a file pays for its compilation)")
for name, cpu in dear.items():
    print(f"{cpu:8.1f}  {name}")
