"""A virtual environment that holds the peer and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import venv
from pathlib import Path

#: The version that figures are quoted for.
PEER = "concrete-ml==1.9.0"

#: Written last, so that an environment without it is known to be incomplete.
RECORD = "installed.json"


def default_torch() -> str:
    """The version of torch that this process uses.

    The peer asks for torch 2.3.1, of which the package index has only a build with gigabytes of
    CUDA libraries. The peer computes in NumPy, so its figures do not depend on torch's version;
    and whoever installed this one can install it once more.
    """
    return f"torch=={importlib.metadata.version('torch')}"


def peer_python(folder: Path, torch: str) -> Path:
    """The interpreter of the environment in ``folder``, which is made if it is not there.

    Parameters
    ----------
    folder : pathlib.Path
    torch : str
        Requirement that takes the place of the peer's own.

    Raises
    ------
    SystemExit
        If pip cannot install the peer.
    """
    record = folder / RECORD
    wanted = {"peer": PEER, "torch": torch}
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if record.exists() and json.loads(record.read_text()) == wanted:
        return python
    print(f"installing {PEER} with {torch} in {folder} (some 2 GB, some minutes)", flush=True)
    # An old pip cannot report what a package requires.
    venv.create(folder, clear=True, with_pip=True, upgrade_deps=True)
    _pip(python, *_requirements(python, torch))
    # The peer last and alone: pip would refuse the other torch, or complain about it.
    _pip(python, "--no-deps", PEER)
    record.write_text(json.dumps(wanted))
    return python


def _requirements(python: Path, torch: str) -> list[str]:
    """What the peer requires, with another torch and the setuptools that goes with it."""
    report = json.loads(_pip(python, "--no-deps", "--dry-run", "--report", "-", PEER))
    (package,) = report["install"]
    replaced = {"torch": torch, "setuptools": "setuptools<81"}  # 82 is without pkg_resources
    requires = package["metadata"]["requires_dist"]
    kept = [line for line in requires if re.split(r"[^\w.-]", line)[0] not in replaced]
    return [*(line for line in kept if "extra ==" not in line), *replaced.values()]


def _pip(python: Path, *arguments: str) -> str:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout
