"""Weaknesses and licences of every package in requirements.lock: `make audit`.

Weaknesses are looked up by pip-audit, which needs PyPI's or OSV's database; where neither can be reached this says so and goes on.
Licences come from the metadata of what is installed. Not allowed: GPL and AGPL (LGPL is), licences that forbid commercial use, and
packages that name no licence, unless NAMED says what it is.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
# Packages whose metadata say nothing, by what their licence file or home page says.
NAMED = {"zss": "BSD-3-Clause"}
_FORBIDDEN = re.compile(r"\bA?GPL|GNU (Affero )?General Public|non-?commercial|proprietary", re.IGNORECASE)
_LESSER = re.compile(r"LGPL|Lesser General Public", re.IGNORECASE)
_CHOICE = re.compile(r"\b(MIT|BSD|Apache|MPL)\b.* or | or .*\b(MIT|BSD|Apache|MPL)\b", re.IGNORECASE)


def main() -> int:
    weak = _weaknesses()
    licences = _licences()
    by_licence = defaultdict(list)
    for package, licence in licences.items():
        by_licence[licence].append(package)
    for licence in sorted(by_licence):
        print(f"{licence}: {', '.join(by_licence[licence])}")
    forbidden = [package for package, licence in licences.items() if not allowed(licence)]
    for package in forbidden:
        print(f"error: {package}: licence '{licences[package]}' is not allowed", file=sys.stderr)
    print(f"{len(licences)} packages, {len(forbidden)} with a licence that is not allowed")
    return 1 if weak or forbidden else 0


def allowed(licence: str) -> bool:
    """Whether code under this licence may be installed beside ours."""
    if not licence:
        return False
    return bool(_CHOICE.search(licence)) or not _FORBIDDEN.search(_LESSER.sub("", licence))


def _weaknesses() -> bool:
    """Whether pip-audit found any."""
    for service in ("pypi", "osv"):
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        command += ["--format", "json", "-s", service, "-r", str(LOCK)]
        done = subprocess.run(command, capture_output=True, text=True)
        # A mirror of PyPI may answer, and know of no weakness, for it holds no database of them.
        packages = json.loads(done.stdout)["dependencies"] if done.stdout.startswith("{") else []
        looked_up = [package for package in packages if "skip_reason" not in package]
        if not looked_up:
            print(f"{service}: the database of weaknesses cannot be reached from here")
            continue
        weak = [(package, each) for package in looked_up for each in package["vulns"]]
        for package, each in weak:
            print(f"error: {package['name']} {package['version']}: {each['id']}, mended in {each['fix_versions']}")
        print(f"{service}: {len(looked_up)} of {len(packages)} packages looked up, {len(weak)} weaknesses")
        return bool(weak)
    print("weaknesses were NOT looked up; run this where https://pypi.org or https://api.osv.dev can be reached")
    return False


def _licences() -> dict[str, str]:
    names = [line.partition("==")[0] for line in LOCK.read_text().splitlines() if "==" in line]
    return {name: NAMED.get(name) or licence_of(importlib.metadata.metadata(name)) for name in names}


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """The licence as one line: the SPDX expression, else the classifiers, else the first line of the old field."""
    expression = metadata.get("License-Expression")
    if expression:
        return expression
    prefix = "License :: "
    classifiers = [each.split(" :: ")[-1] for each in metadata.get_all("Classifier") or [] if each.startswith(prefix)]
    specific = [each for each in classifiers if each != "OSI Approved"]
    if specific:
        return " or ".join(specific)
    lines = (metadata.get("License") or "").strip().splitlines()
    return lines[0].strip() if lines else ""


if __name__ == "__main__":
    raise SystemExit(main())
