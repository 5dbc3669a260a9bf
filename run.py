"""Everything in one command, on a machine that has only Python.

    python3 run.py demo "a red circle left of a blue square"    draw it without and with DPT
    python3 run.py test [pytest arguments]                      run the tests in a real ComfyUI
    python3 run.py COMMAND [arguments]                          any other command of `dpt`

The first call makes `.venv` beside this file and installs what the command needs into it; nothing
else on the machine changes, except that `test` installs Debian's chromium where it may. A call that
was interrupted goes on where it stopped, and later calls find everything in place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 10)
TORCH = "2.9.1"
SIZES = {
    ("Linux", "x86_64"): "a CUDA build, about 4 GB to download and 7 GB on disk; it computes on "
    "the CPU too. Where your pip is set up with an index that has torch's CPU builds, that one is "
    "taken instead",
    ("Linux", "aarch64"): "a CPU build, about 100 MB to download",
    ("Darwin", "arm64"): "a build for CPU and Apple GPU, about 75 MB to download",
    ("Windows", "AMD64"): "a CPU build, about 110 MB to download",
}
"""What the package index has of this torch, by system and processor."""
REASONS = {
    r"No space left on device": "The disk is full. Make room and call again; it goes on from here.",
    r"name resolution|NewConnectionError|ConnectTimeout|ReadTimeout|Max retries|SSLError": (
        "The package index could not be reached. Check the network (or pip's proxy and index "
        "settings) and call again; it goes on from here."
    ),
    r"No matching distribution found for ([^\s,]+)": (
        f"The package index has no build of {{0}} for Python {platform.python_version()} on "
        f"{platform.system()} {platform.machine()}. torch {TORCH} exists for Python 3.10 to 3.14 "
        "on Linux, Windows and Macs with Apple's processors: call this file with such a Python, "
        "for example `python3.12 run.py …`."
    ),
    r"Permission denied": "pip may not write there: see who owns the checkout and its .venv.",
}
"""What pip's log says, and what to tell the user. The first that is found counts."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

log = logging.getLogger("run.py")


class SetupError(Exception):
    """Something the user can mend; its text says how."""


@dataclass(frozen=True)
class Stage:
    """One call of pip.

    Attributes:
        name: of the stage in the marker file.
        requirements: pip's arguments after `install`.
        files: those whose change asks for another call.
    """

    name: str
    requirements: tuple[str, ...]
    files: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """Changes when pip has something new to do."""
        digest = hashlib.sha256(json.dumps(self.requirements).encode())
        for file in self.files:
            digest.update(file.read_bytes())
        return digest.hexdigest()


class Environment:
    """A virtual environment and a note in it of what has been installed, stage by stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        windows = sys.platform == "win32"
        self.python = folder / ("Scripts/python.exe" if windows else "bin/python")
        self.marker = folder / "installed.json"
        self.pip_log = folder / "pip.log"

    def installed(self) -> dict[str, str]:
        """Fingerprints of the finished stages by name; none where the note is missing or torn."""
        try:
            found = json.loads(self.marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and self.python.exists() else {}

    def prepare(self, stages: Iterable[Stage]) -> None:
        """Install the stages that are not finished, in order.

        Raises:
            SetupError: the environment cannot be made, or pip failed.
        """
        done = self.installed()
        for stage in stages:
            if done.get(stage.name) == stage.fingerprint():
                continue
            log.info("installing %s: %s", stage.name, " ".join(stage.requirements))
            self._make()
            self._pip(stage)
            done[stage.name] = stage.fingerprint()
            torn = self.marker.with_suffix(".part")
            torn.write_text(json.dumps(done, indent=1), encoding="utf-8")
            os.replace(torn, self.marker)

    def _make(self) -> None:
        """Make the environment, or make it anew where its Python or pip does not start."""
        if _quietly(self.python, "-m", "pip", "--version"):
            return
        log.info("making the virtual environment %s", self.folder)
        if not _quietly(sys.executable, "-c", "import ensurepip, venv"):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                f"This Python ({sys.executable}) cannot make virtual environments: it lacks venv "
                f"or ensurepip. On Debian and Ubuntu: sudo apt-get install python{version}-venv. "
                "Elsewhere install Python from python.org. Then call again."
            )
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder])
        if made.returncode:
            raise SetupError(f"Could not make {self.folder}: see the lines above.")

    def _pip(self, stage: Stage) -> None:
        self.pip_log.unlink(missing_ok=True)
        command = [self.python, "-m", "pip", "--disable-pip-version-check", "install"]
        done = subprocess.run([*command, "--log", self.pip_log, *stage.requirements])
        if done.returncode:
            text = self.pip_log.read_text(errors="replace") if self.pip_log.is_file() else ""
            raise SetupError(f"pip could not install {stage.name}. {reason(text, self.pip_log)}")


def _quietly(*command: str | Path) -> bool:
    """Whether a command exists and succeeds."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def reason(text: str, kept: Path) -> str:
    """Why pip failed, in a sentence, from its log `text`, which is kept at `kept`."""
    for pattern, sentence in REASONS.items():
        if found := re.search(pattern, text):
            return sentence.format(*found.groups())
    return f"Its last lines above say why; the whole log is {kept}."


def demo_stages() -> list[Stage]:
    """What every `dpt` command needs."""
    return [
        Stage("torch", (f"torch=={TORCH}", "torchvision==0.24.1")),
        Stage("dpt", ("--editable", f"{ROOT}[train]"), (ROOT / "pyproject.toml",)),
    ]


def test_stages(comfyui: Path) -> list[Stage]:
    """What the tests need besides, for a ComfyUI in that folder."""
    listed = comfyui / "requirements.txt"
    requirements = ("--requirement", str(listed), "--editable", f"{ROOT}[test]")
    return [
        Stage("torchaudio", ("torchaudio==2.9.*",)),
        Stage("tests", requirements, (ROOT / "pyproject.toml", listed)),
    ]


def run_dpt(environment: Environment, arguments: list[str]) -> int:
    """A `dpt` command in the environment, in the caller's folder."""
    if "torch" not in environment.installed():
        known = SIZES.get((platform.system(), platform.machine()), "no build for this machine")
        log.info("first call. torch %s from the package index is %s.", TORCH, known)
    environment.prepare(demo_stages())
    log.info("starting: dpt %s", " ".join(arguments))
    return subprocess.run([environment.python, "-m", "dpt_core", *arguments]).returncode


def run_tests(environment: Environment, arguments: list[str]) -> int:
    """The tests, in the environment, with a real ComfyUI and, where it may, a browser."""
    if not (ROOT / "tests").is_dir():
        raise SetupError("There are no tests beside this file: clone the repository for them.")
    environment.prepare(demo_stages())
    sys.path.append(str(ROOT / "tests"))
    from comfy_copy import find_comfyui

    log.info("looking for ComfyUI")
    environment.prepare(test_stages(find_comfyui(environment.python)))
    if wants_browser(arguments):
        bring_browser()
    log.info("starting: pytest %s", " ".join(arguments))
    command = [environment.python, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT).returncode


def wants_browser(arguments: list[str]) -> bool:
    """Whether pytest would collect the browser's tests: all tests, or theirs by name."""
    named = [Path(word.split("::")[0]) for word in arguments if not word.startswith("-")]
    named = [ROOT / path for path in named if (ROOT / path).exists()]
    browser = ROOT / "tests" / "browser"
    return not named or any(path in (browser, *browser.parents) or browser in path.parents
                            for path in map(Path.resolve, named))  # fmt: skip


def bring_browser() -> None:
    """Install Debian's chromium if there is no browser and it may be installed."""
    if any(map(shutil.which, BROWSERS)):
        return
    if not shutil.which("apt-get"):
        log.info("no chromium, and no apt-get to install it: the browser's tests will skip")
        return
    sudo: list[str] = []
    if os.geteuid() != 0:
        sudo = ["sudo", "-n"]
        if not _quietly(*sudo, "true"):
            log.info("no chromium; for the browser's tests: sudo apt-get install chromium")
            return
    log.info("installing chromium")
    environment = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive"]
    subprocess.run([*environment, "apt-get", "-qq", "update"])
    installed = subprocess.run([*environment, "apt-get", "-qq", "install", "-y", "chromium"])
    if installed.returncode:
        log.info("apt-get could not install chromium: the browser's tests will skip")


def main(arguments: list[str]) -> int:
    """Run a command; its exit status, 2 for what the user can mend."""
    logging.basicConfig(level=logging.INFO, format="run.py: %(message)s", stream=sys.stdout)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(__doc__)
        return 0 if arguments else 2
    environment = Environment(ROOT / ".venv")
    try:
        if sys.version_info < OLDEST:
            found = platform.python_version()
            raise SetupError(f"Python 3.10 or newer is needed; {sys.executable} is {found}.")
        if arguments[0] == "test":
            return run_tests(environment, arguments[1:])
        return run_dpt(environment, arguments)
    except SetupError as error:
        log.error("%s", error)
        return 2
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
