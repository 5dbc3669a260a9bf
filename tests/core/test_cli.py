"""The command line: what it says at once, what options mean, how commands end."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import fields, replace

import pytest
from benchmark_runs import invoke

from dpt_core import PRESETS, Correction, __version__
from dpt_core.cli.app import app
from dpt_core.cli.loading import chosen_device
from dpt_core.cli.options import (
    CorrectionOptions,
    SearchOptions,
    SweepOptions,
    correction_of,
    given,
    search_of,
)
from dpt_core.search import Search

COMMANDS = [
    ("demo",), ("generate",), ("score",), ("convert",), ("evaluate", "shapes"),
    ("evaluate", "sweep"), ("evaluate", "direction"), ("evaluate", "generation"),
    ("evaluate", "discrimination"),
    ("train", "adapter"), ("train", "probing"), ("train", "tuning"), ("train", "demo"),
]  # fmt: skip
CORRECTING = [("demo",), ("generate",), ("evaluate", "shapes"), ("evaluate", "sweep"),
              ("evaluate", "generation")]  # fmt: skip


def test_a_line_comes_before_anything_is_loaded():
    words = [sys.executable, "-m", "dpt_core", "demo", "a dog"]
    start = time.perf_counter()
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        first = process.stderr.readline()
        seconds = time.perf_counter() - start
        process.communicate()
    assert first.startswith("dpt: loading PyTorch") and process.returncode == 2
    assert seconds < 5  # alone on a machine 0.1; PyTorch takes several here


def test_version_needs_no_torch():
    code = "import sys; sys.argv = ['dpt', '--version']\nfrom dpt_core.cli import main\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [__version__, "False"] and done.returncode == 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_that_the_command_takes(command):
    said = invoke(*command, "--help")
    assert "For example:" in said and f"dpt {' '.join(command)}" in said
    for option in words_of(said.split("For example:")[1].split("╭")[0]):
        assert said.count(option) > 1, f"{option} is in an example and not among the options"


def words_of(text):
    return {word for word in text.split() if word.startswith("--")}


@pytest.mark.parametrize("command", CORRECTING, ids=" ".join)
def test_every_setting_of_a_correction_is_an_option(command):
    said = invoke(*command, "--help")
    for name in ("preset", *(each.name for each in fields(Correction))):
        assert f"--{name.replace('_', '-')} " in said


def test_every_setting_of_a_search_is_an_option():
    said = invoke("generate", "--help")
    for each in fields(Search):
        assert f"--{each.name.replace('_', '-')} " in said
    assert search_of(SearchOptions()) is None
    assert search_of(SearchOptions(candidates=2)) == Search(2)


def test_settings_take_the_place_of_the_presets():
    assert correction_of(CorrectionOptions()) == PRESETS["balanced"] == Correction()
    assert correction_of(CorrectionOptions(preset="published")) == PRESETS["published"]
    assert correction_of(CorrectionOptions(preset="custom")) == Correction()
    changed = correction_of(CorrectionOptions(preset="fast", strength=20.0, every_n_steps=2))
    assert changed == replace(PRESETS["fast"], strength=20.0, every_n_steps=2)
    assert given(SweepOptions(mode=["exact"])) == {"preset": "balanced", "mode": ["exact"]}
    with pytest.raises(ValueError, match="preset must be one of balanced, fast, published, custom"):
        correction_of(CorrectionOptions(preset="best"))
    with pytest.raises(ValueError, match="inner_steps .* needs mode exact"):
        correction_of(CorrectionOptions(inner_steps=2))


def test_options_reach_the_settings():
    command, bound, _ = app.parse_args(
        ["evaluate", "sweep", "x", "--mode", "exact", "--mode", "lagged", "--end-percent", "0.5"],
        exit_on_error=False, print_error=False,
    )  # fmt: skip
    assert given(bound.kwargs["correction"]) == {
        "preset": "balanced", "mode": ["exact", "lagged"], "end_percent": [0.5]
    }  # fmt: skip


def test_a_device_is_chosen_once_for_all():
    import torch

    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert chosen_device("auto") in (expected, "mps")
    assert chosen_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo",), "PROMPT"),
        (("demo", "a red circle", "--cuont", 3), "Did you mean --count"),
        (("demo", "a red circle", "--count", 9), "Must be <= 8"),
        (("demo", "a red circle", "--preset", "best"), "preset must be one of balanced, fast"),
        (("demo", "a red circle", "--inner-steps", 3), "needs mode exact"),
        (("evaluate", "sweep", "out", "--strength", "a"), "--strength"),
        (("generate", ".", "a dog", "--candidates", 4), "give one with --adapter"),
        (("nothing",), 'Unknown command "nothing"'),
        (("score", ".", "a dog", "--adapter", "a.bin"), "nothing to score"),
        (
            ("train", "probing", ".", "--matching", "a", "--grounding", "a", "--images", ".",
             "--output", "x", "--device", "cuda"),
            "training computes on auto or cpu",
        ),
    ],
)  # fmt: skip
def test_mistakes_get_a_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = invoke(*words, code=2)
    assert message in said and "Traceback" not in said


def test_a_stop_ends_with_how_to_go_on(monkeypatch):
    from dpt_core.cli import progress

    def stopped(*arguments, **options):
        with progress.progress("drawing", 3):
            raise KeyboardInterrupt

    monkeypatch.setattr("dpt_core.checkpoint.load_checkpoint", stopped)
    assert "run the same command again to go on" in invoke("convert", "a", "b", code=130)
