"""`make audit`: known vulnerabilities of what is installed here, by pip-audit. Status 1 where there are any.

pip-audit also says "No known vulnerabilities found" where nobody answered it. So a package that is known to be
vulnerable is asked about first: where that is not found the service cannot be reached, which is said and fails nothing.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CANARY = "jinja2==3.1.2"  # CVE-2024-22195 and others
ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that do not concern this package: identifier to reason."""
_PATIENCE = 300.0


def ask(*arguments: str, patience: float = _PATIENCE) -> tuple[list[dict[str, Any]], int]:
    """The packages that pip-audit was answered about, each with its `vulns`, and the number of the others.

    Raises:
        RuntimeError: pip-audit itself failed.
    """
    command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--timeout=10", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer within {patience:g} s") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1]) from error
    asked = [one for one in found if "skip_reason" not in one]
    return asked, len(found) - len(asked)


def service_answers() -> bool:
    """Whether a vulnerability that is known is found."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "canary.txt")
        file.write_text(CANARY + "\n", encoding="utf-8")
        asked, _ = ask("--no-deps", "--disable-pip", "-r", str(file), patience=30.0)
        return any(one["vulns"] for one in asked)


def main() -> int:
    """Print what was found; 1 where a vulnerability is not among the accepted ones."""
    try:
        if not service_answers():
            print(f"audit: not done, the service knows nothing of {CANARY}; run it where pypi.org answers")
            return 0
        asked, skipped = ask("--local", "--skip-editable")
    except RuntimeError as error:
        print(f"audit: not done, pip-audit says: {error}")
        return 0
    bad = [(one, v) for one in asked for v in one["vulns"] if not ACCEPTED.keys() & {v["id"], *v.get("aliases", [])}]
    for one, v in bad:
        remedy = f"upgrade to {' or '.join(v['fix_versions'])}" if v.get("fix_versions") else "no version mends it yet"
        print(f"{one['name']} {one['version']}: {v['id']} ({', '.join(v.get('aliases', []))}); {remedy}")
    print(f"audit: {len(asked)} packages, {len(bad)} vulnerabilities; {skipped} packages are not known there")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
