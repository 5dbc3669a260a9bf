"""`run.py` at the root: what it installs once, what it passes on, what it says. No network."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_under_test", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_under_test"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip knows as its only source of packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel(index: Path, name: str) -> None:
    """Put a package without content into an index."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        lines.append(f"{path},sha256={digest.rstrip('=')},{len(text)}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,"])
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def test_installs_once_and_goes_on_where_it_stopped(run, index, tmp_path):
    environment = run.Environment(tmp_path / "venv")
    listed = tmp_path / "listed.txt"
    listed.write_text("one")
    first = run.Stage("first", ("one==1.0",), (listed,))
    second = run.Stage("second", ("two==1.0",))
    wheel(index, "one")

    with pytest.raises(run.SetupError, match="could not install second.*no build of two==1.0"):
        environment.prepare([first, second])
    assert list(environment.installed()) == ["first"]
    began = environment.python.lstat().st_mtime_ns

    wheel(index, "two")
    (index / "one-1.0-py3-none-any.whl").unlink()
    environment.prepare([first, second])
    assert list(environment.installed()) == ["first", "second"]
    assert environment.python.lstat().st_mtime_ns == began, "made anew though it was sound"
    subprocess.run([environment.python, "-c", "import one, two"], check=True)

    environment.pip_log.unlink()
    environment.prepare([first, second])
    assert not environment.pip_log.exists(), "pip was called though all was in place"

    listed.write_text("one, changed")
    environment.prepare([first, second])
    assert environment.pip_log.exists(), "a changed file asks for pip again"


def test_half_made_environment_is_made_anew(run, index, tmp_path):
    """What an interruption while making it leaves: a folder, a note, no Python."""
    environment = run.Environment(tmp_path / "venv")
    environment.folder.mkdir()
    stage = run.Stage("first", ("one==1.0",))
    environment.marker.write_text(json.dumps({"first": stage.fingerprint()}))
    wheel(index, "one")
    environment.prepare([stage])
    subprocess.run([environment.python, "-c", "import one"], check=True)


@pytest.mark.parametrize("torn", ["", "{", "[1]", "\x00"])
def test_torn_note_counts_as_none(run, tmp_path, torn):
    environment = run.Environment(tmp_path)
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    environment.marker.write_text(torn)
    assert environment.installed() == {}


def test_says_what_to_install_where_python_cannot_make_environments(run, tmp_path, monkeypatch):
    """Debian's Python without python3-venv."""
    poor = tmp_path / "python3"
    poor.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\n')
    poor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(poor))
    with pytest.raises(run.SetupError, match="apt-get install python3.*-venv"):
        run.Environment(tmp_path / "venv").prepare([run.Stage("first", ("one",))])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Temporary failure in name resolution\nNo matching distribution found for torch==2.9.1",
         "could not be reached"),
        ("ERROR: No matching distribution found for torch==2.9.1", "no build of torch==2.9.1"),
        ("something else", "the whole log is kept.log"),
    ],
)  # fmt: skip
def test_reason(run, text, said):
    assert said in run.reason(text, Path("kept.log"))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], True),
        (["-q", "-k", "demo"], True),
        (["tests"], True),
        (["tests/browser/test_front_end.py::test_help", "-x"], True),
        (["tests/core"], False),
        (["tests/core", "tests/browser"], True),
        (["tests/host/test_locales.py"], False),
    ],
)
def test_browser_only_where_its_tests_run(run, arguments, wanted):
    assert run.wants_browser(arguments) is wanted


def test_arguments_pass_through(run, tmp_path, monkeypatch):
    """Every word but `test` is dpt's; its exit status is ours."""
    seen = tmp_path / "seen"
    fake = tmp_path / "venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\nexit 3\n')
    fake.chmod(0o755)
    environment = run.Environment(tmp_path / "venv")
    done = {stage.name: stage.fingerprint() for stage in run.demo_stages()}
    environment.marker.write_text(json.dumps(done))
    monkeypatch.setattr(run, "Environment", lambda folder: environment)
    assert run.main(["evaluate", "sweep", "a folder", "--end", "0.3"]) == 3
    words = ["-m", "dpt_core", "evaluate", "sweep", "a folder", "--end", "0.3"]
    assert seen.read_text().splitlines() == words


def test_usage_at_once():
    """Without a command nothing is installed, and the answer comes at once."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, ROOT / "run.py"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert 'python3 run.py demo "a red circle left of a blue square"' in done.stdout
    assert time.monotonic() - began < 5


def test_runs_with_the_standard_library_alone():
    """`-I -S`: no site-packages, no environment."""
    command = [sys.executable, "-I", "-S", ROOT / "run.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
