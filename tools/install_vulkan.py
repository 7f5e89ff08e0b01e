"""Make sure that wgpu finds an adapter: where there is none, install Mesa's software Vulkan.

Does nothing where an adapter is found. Otherwise it installs a package through apt, as root or
through a sudo that asks no password, and says so; where it may not, it says what to do instead.
Exits with 1 only with --required.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

DRIVER = "mesa-vulkan-drivers"
PACKAGES = (DRIVER, "libvulkan1")

# Dawn, which checks shaders as a browser would, refuses older software drivers; they are slower
# as well.
GOOD_MESA = 24

# A process of its own: one that has looked for adapters does not notice a new driver.
PROBE = """
import json, wgpu
infos = [dict(adapter.info) for adapter in wgpu.gpu.enumerate_adapters_sync()]
print(json.dumps([info for info in infos if info["backend_type"] in ("Vulkan", "Metal", "D3D12")]))
"""


def main() -> int:
    """Look, install if need be, look again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where no adapter can be had")
    parser.add_argument(
        "--recent", action="store_true", help=f"replace a software driver older than {GOOD_MESA}"
    )
    options = parser.parse_args()
    missing = lack(find_adapters(), options.recent)
    if missing is None:
        return 0
    way = apt_prefix()
    if way is None:
        say(f"{missing}. {advice()}")
    else:
        say(f"{missing}: installing Mesa's software Vulkan driver ({DRIVER}) through apt.")
        install(way)
        missing = lack(find_adapters(), options.recent)
        if missing:
            say(f"{missing}, even after the installation.")
    return 1 if missing and options.required else 0


def say(text: str) -> None:
    """Print one line at once, also where the output is a pipe."""
    print(text, flush=True)


def find_adapters() -> list[dict[str, str]]:
    """What wgpu says of every adapter that can run compute shaders."""
    environment = {"XDG_RUNTIME_DIR": tempfile.gettempdir()} | os.environ
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        return []
    adapters: list[dict[str, str]] = json.loads(done.stdout.strip().splitlines()[-1])
    return adapters


def lack(adapters: Sequence[Mapping[str, str]], recent: bool) -> str | None:
    """What is wrong with these adapters, or None."""
    if not adapters:
        return "No WebGPU adapter found"
    versions = [mesa_version(adapter) for adapter in adapters]
    if recent and all(version is not None and version < GOOD_MESA for version in versions):
        return f"The software Vulkan driver is older than Mesa {GOOD_MESA}"
    return None


def mesa_version(adapter: Mapping[str, str]) -> int | None:
    """The major version of Mesa's software driver; None for any other adapter."""
    found = re.search(r"Mesa (\d+)", adapter["description"])
    return int(found[1]) if found and "llvmpipe" in adapter["device"] else None


def apt_prefix() -> list[str] | None:
    """What to put before apt-get so that it may install, or None where it may not."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    allowed = (
        shutil.which("sudo")
        and not subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode
    )
    return ["sudo", "-n"] if allowed else None


def advice() -> str:
    """How a person gets the driver on this system."""
    if shutil.which("apt-get"):
        return f"To run on software Vulkan: sudo apt-get install {' '.join(PACKAGES)}"
    return "To run on software Vulkan, install Mesa's lavapipe driver (often `vulkan-swrast`)."


def install(prefix: Sequence[str]) -> None:
    """Install the newest driver to be had; complaints go to the error output."""
    run_apt(prefix, "update")
    if candidate_version() < GOOD_MESA and install_from_backports(prefix):
        return
    run_apt(prefix, "install", *PACKAGES)


def install_from_backports(prefix: Sequence[str]) -> bool:
    """Install from Debian's backports, leaving the machine's list of sources as it is."""
    line = backports_line()
    if line is None:
        return False
    with tempfile.TemporaryDirectory() as name:
        # The machine's own sources stay in sight: the driver's dependencies come from there.
        folder = Path(name)
        own = Path("/etc/apt/sources.list")
        for source in [own, *own.with_name("sources.list.d").glob("*")]:
            if source.is_file() and source.suffix in (".list", ".sources"):
                shutil.copy(source, folder / f"own-{source.name}")
        (folder / "backports.list").write_text(line + "\n")
        sources = ("-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={folder}")
        suite = line.split()[-2]
        return run_apt(prefix, *sources, "update") and run_apt(
            prefix, *sources, "--target-release", suite, "install", *PACKAGES
        )


def backports_line() -> str | None:
    """The backports as a line for sources.list, on the mirror that the machine uses."""
    system = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    codename = system.get("VERSION_CODENAME", "").strip('"')
    if system.get("ID") != "debian" or not codename:
        return None
    targets = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages", f"Release: {codename}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    stanza = dict(line.split(": ", 1) for line in targets.split("\n\n")[0].splitlines())
    if "Repo-URI" not in stanza:
        return None
    key = stanza.get("Signed-By")
    option = f"[signed-by={key}] " if key else ""
    return f"deb {option}{stanza['Repo-URI']} {codename}-backports main"


def candidate_version() -> int:
    """The major version that a plain installation would bring; 0 when there is none."""
    policy = subprocess.run(
        ["apt-cache", "policy", DRIVER], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"Candidate: (?:\d+:)?(\d+)", policy)
    return int(found[1]) if found else 0


def run_apt(prefix: Sequence[str], *arguments: str) -> bool:
    """Whether apt-get succeeded; when it did not, its last words go to the error output."""
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes"]
    done = subprocess.run(
        [*command, "--no-install-recommends", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print("\n".join(done.stderr.strip().splitlines()[-5:]), file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
