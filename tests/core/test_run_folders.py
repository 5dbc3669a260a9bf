"""A training run's folder: kills at any moment, full disks, other settings, damaged files."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmark_runs import Killed
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_training import CONFIG, Noise, Regression, losses

from dpt_core import plots
from dpt_core.training.loop import CHECKPOINT, train
from dpt_core.training.state import FACTS_KEY, RunError

SHORT = replace(CONFIG, steps=4, save_every=2)
ABOUT = {"tap": "up1", "model": "0123"}


def run(folder: Path, config=SHORT, about=ABOUT, preview=None) -> torch.nn.Module:
    return train(Regression(), Noise(), config, folder, about=about, preview=preview)


@pytest.fixture
def no_curves(monkeypatch):
    """Curves are drawn often in these tests, and are not what they are about."""

    class Curves:
        def save(self, path, format):
            Path(path).write_bytes(b"curves")

    monkeypatch.setattr(plots, "loss_curves", lambda rows: Curves())


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def draw(task: torch.nn.Module, path: Path) -> None:
    path.write_text(f"{task.layers[0].weight.sum():.9f}")


OPERATIONS = [
    (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (os, "fsync"), (os, "open"),
    (Path, "open"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"),
]  # fmt: skip


class Countdown:
    """Raises before the file operation of a given number; counts them."""

    def __init__(self, monkeypatch, last: int, error: BaseException, spared: str = "") -> None:
        self.count, self.last, self.error = 0, last, error
        for owner, name in OPERATIONS:
            if name != spared:
                monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, operation):
        def counted(*arguments, **options):
            self.count += 1
            if self.count == self.last:
                raise self.error
            return operation(*arguments, **options)

        return counted


def test_a_kill_before_any_file_operation_resumes(no_curves, monkeypatch, tmp_path):
    run(tmp_path / "whole", preview=draw)
    whole, number, ended = files(tmp_path / "whole"), 0, False
    while not ended:
        number += 1
        folder = tmp_path / str(number)
        with monkeypatch.context() as patched:
            countdown = Countdown(patched, number, Killed())
            try:
                run(folder, preview=draw)
                ended = countdown.count < number
            except Killed:
                pass
        run(folder, preview=draw)
        assert files(folder) == whole, number
    assert number > 30


@pytest.mark.parametrize("number", range(1, 34, 3))
def test_a_full_disk_loses_nothing_finished(number, no_curves, monkeypatch, tmp_path):
    """A write fails as it does on a full disk; the run ends or goes on, and can be resumed."""
    run(tmp_path / "whole")
    whole, folder = files(tmp_path / "whole"), tmp_path / "full"
    with monkeypatch.context() as patched:
        Countdown(patched, number, OSError(28, "No space left on device"), "unlink")
        try:
            run(folder)
        except OSError as error:
            assert "No space left" in str(error)
    assert not list(folder.glob("*.partial"))
    run(folder)
    assert files(folder) == whole


def test_kill_9_at_random_moments():
    """Training, evaluation and saving; `python -m benchmarks.kills` does it 200 times."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "--kills", "9"],
        capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_curves_and_previews_are_not_worth_a_training(monkeypatch, tmp_path, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no matplotlib here")

    monkeypatch.setattr(plots, "loss_curves", fail)
    run(tmp_path, preview=fail)
    assert "no curves or preview of step 4" in caplog.text
    assert len(losses(tmp_path)) == 4
    monkeypatch.undo()
    run(tmp_path, preview=draw)  # now they can be drawn
    assert (tmp_path / "losses.png").exists() and (tmp_path / "previews/0000004.png").exists()


# ---- another run -----------------------------------------------------------------------------

OTHER = {
    "learning rate": (replace(SHORT, learning_rate=1.0), ABOUT, "learning_rate is 0.0001 there"),
    "steps": (replace(SHORT, steps=5), ABOUT, "steps is 4 there and 5 now"),
    "seed": (replace(SHORT, seed=1), ABOUT, "seed is 1337 there and 1 now"),
    "tap": (SHORT, ABOUT | {"tap": "up2"}, "tap is 'up1' there and 'up2' now"),
    "weights": (SHORT, ABOUT | {"model": "4567"}, "model is '0123' there and '4567' now"),
    "data that was not said": (SHORT, ABOUT | {"data": "a"}, "data is None there and 'a' now"),
    "less said": (SHORT, {"tap": "up1"}, "model is '0123' there and None now"),
}  # fmt: skip


@pytest.mark.parametrize("kept", ["config.json", CHECKPOINT])
@pytest.mark.parametrize("case", OTHER)
def test_another_run_is_refused_by_name(case, kept, no_curves, tmp_path):
    """Each of the two files that know the settings is enough."""
    config, about, says = OTHER[case]
    run(tmp_path)
    (tmp_path / ({"config.json", CHECKPOINT} - {kept}).pop()).unlink()
    before = files(tmp_path)
    with pytest.raises(RunError, match=f"(?s){says}.*another folder"):
        run(tmp_path, config, about)
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before


def test_saving_more_often_is_the_same_run(no_curves, tmp_path):
    run(tmp_path)
    run(tmp_path, replace(SHORT, save_every=1, workers=1))


# ---- damaged files ---------------------------------------------------------------------------


def rewritten(folder: Path, change) -> None:
    path = folder / CHECKPOINT
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()[FACTS_KEY])
    tensors = load_file(path)
    change(tensors, facts)
    save_file(tensors, path, {FACTS_KEY: json.dumps(facts)})


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def change(edit):
    return lambda folder: rewritten(folder, edit)


WEIGHT = "weights.layers.0.weight"
DAMAGE = {
    "torn checkpoint": (write(CHECKPOINT, b"\x08\0\0\0"), "cannot be read"),
    "empty checkpoint": (write(CHECKPOINT, b""), "cannot be read"),
    "another file": (
        lambda folder: save_file({"x": torch.zeros(1)}, folder / CHECKPOINT), FACTS_KEY
    ),
    "a tensor less": (change(lambda t, f: t.pop(WEIGHT)), "layers.0.weight has the shape None"),
    "a tensor more": (change(lambda t, f: t.update({"weights.x": torch.zeros(1)})), "x has the"),
    "another shape": (
        change(lambda t, f: t.update({WEIGHT: torch.zeros(3, 3)})), r"layers.0.weight has the shape"
    ),
    "an optimiser of another shape": (
        change(lambda t, f: t.update({"optimizer.0.exp_avg": torch.zeros(9)})), "optimizer.0"
    ),
    "an optimiser of more": (
        change(lambda t, f: t.update({"optimizer.99.exp_avg": torch.zeros(9)})), CHECKPOINT
    ),
    "an optimiser without number": (
        change(lambda t, f: t.update({"optimizer.x.exp_avg": torch.zeros(9)})), CHECKPOINT
    ),
    "no average": (change(lambda t, f: t.pop("average.0")), "average.0"),
    "losses of other steps": (change(lambda t, f: f.update(step=3)), "losses of 3 steps"),
    "no step": (change(lambda t, f: f.pop("step")), "step"),
    "no settings": (change(lambda t, f: f.pop("settings")), "settings"),
    "settings of another kind": (change(lambda t, f: f.update(settings=[1])), CHECKPOINT),
    "rates of another kind": (change(lambda t, f: f.update(rates=None)), CHECKPOINT),
    "torn settings": (write("config.json", b'{"steps": 4'), "config.json cannot.*Delete it"),
    "empty settings": (write("config.json", b""), "config.json cannot be read"),
    "settings, a number": (write("config.json", b"3"), "config.json cannot be read"),
    "settings, deep": (write("config.json", b"[" * 50_000), "config.json cannot be read"),
    "settings, no text": (write("config.json", b"\xff\xfe"), "config.json cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_named_with_a_way_out(case, no_curves, tmp_path):
    damage, says = DAMAGE[case]
    run(tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError, match=says) as caught:
        run(tmp_path)
    assert str(tmp_path) in str(caught.value) and "elete" in str(caught.value)


def test_what_is_not_needed_may_be_torn_or_gone(no_curves, tmp_path):
    run(tmp_path)
    whole = files(tmp_path)
    (tmp_path / "losses.csv").write_bytes(b"\xff")
    (tmp_path / "losses.png").unlink()
    (tmp_path / f"{CHECKPOINT}.partial").write_bytes(b"torn")
    run(tmp_path)
    assert {name: files(tmp_path)[name] for name in whole} == whole


def test_nothing_in_a_folder_runs(no_curves, tmp_path):
    """Earlier versions kept pickles there, which accelerate loads trustingly."""

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "owned"), "w")

    folder = tmp_path / "run"
    (folder / "checkpoint").mkdir(parents=True)
    for name in ("custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"):
        (folder / "checkpoint" / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RunError, match="earlier version.*another folder"):
        run(folder)
    (folder / "checkpoint").rename(folder / "kept")
    run(folder)
    (folder / CHECKPOINT).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RunError, match="cannot be read"):
        run(folder)
    assert not (tmp_path / "owned").exists()
