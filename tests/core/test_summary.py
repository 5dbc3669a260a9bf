"""Figures and files of an evaluation, from rows written by hand: no model is drawn from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dpt_core.evaluation.arms import Ways, choose_arms
from dpt_core.evaluation.catalogue import ALIGNMENT, JUDGED
from dpt_core.evaluation.defaults import METRIC_TIMESTEPS
from dpt_core.evaluation.passes import Pass
from dpt_core.evaluation.report import write_report
from dpt_core.evaluation.run import RunFolder
from dpt_core.evaluation.separation import READERS
from dpt_core.evaluation.shapes import shapes_source
from dpt_core.evaluation.statistics import separation
from dpt_core.evaluation.summary import Findings, Scored, seed_distances, summarise
from dpt_core.generation import Sampling
from dpt_core.png import save_png

SEEDS = 2
COSTS = {"base": 100, "balanced": 120}
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Six prompts of two seeds each in two arms; the second is right more often."""
    source = shapes_source("final", 6, SEEDS)
    arms = choose_arms(tuple(COSTS), Ways(Sampling()))
    folder = RunFolder(tmp_path_factory.mktemp("run"), {}, arms)
    for number, arm in enumerate(arms):
        rows, pictures = [], []
        for prompt in source.prompts:
            holds = prompt.index % 3 == 0 or (number == 1 and prompt.index % 3 == 1)
            score = round(0.5 + 0.2 * holds + 0.1 * float(RNG.random()), 6)
            rows.append({
                "arm": arm.name, "index": prompt.index, "caption": prompt.text,
                "category": prompt.category, "seed": prompt.seed, "score": score, "curve": [],
                "holds": holds, "failures": [] if holds else ["no red circle"],
                "malformed": prompt.index == 5,
            })  # fmt: skip
            pictures.append(np.full((64, 64, 3), 100 + 10 * (prompt.index % SEEDS), np.uint8))
        folder.write(arm, 0, rows, np.stack(pictures))
    reading = Pass("readers", "base", "0" * 16)
    folder.write_rows(reading, 0, [
        {"index": index} | {name: RNG.random(5).tolist() for name in READERS} for index in range(12)
    ])  # fmt: skip
    scored = [Scored(column) for column in (*JUDGED, ALIGNMENT)]
    return Findings(folder, arms, source, COSTS, scored, reading=reading)


def test_arms_are_compared_in_every_category(found):
    results = summarise(found)
    assert list(results["arms"][0]["groups"]) == ["attributes", "relations", "counts", "all"]
    base, balanced = (arm["groups"]["all"] for arm in results["arms"])
    assert base["holds"]["mean"]["value"] == pytest.approx(4 / 12)
    assert balanced["holds"]["difference"]["value"] == pytest.approx(4 / 12)
    assert balanced["malformed"]["mean"]["value"] == pytest.approx(1 / 12)
    assert [arm["cost"] for arm in results["arms"]] == [1, 1.2]
    assert [arm["operations"] for arm in results["arms"]] == [100, 120]
    assert results["separation"] == 1  # every right picture scores above every wrong one


def test_readers_are_told_by_timestep_and_over_the_model_alone(found):
    results = summarise(found)
    rows = list(found.folder.rows(found.reading))
    right = np.arange(12) % 3 == 0
    for column, level in enumerate(METRIC_TIMESTEPS):
        areas = {
            name: separation(np.array([row[name][column] for row in rows]), right)
            for name in READERS
        }
        for name, area in areas.items():
            figures = results["readers"][name][level]
            assert figures["auc"]["value"] == pytest.approx(area)
            assert figures["gain"]["value"] == pytest.approx(area - areas["error"])


def test_seeds_of_a_prompt_are_apart_by_what_their_pictures_are(found):
    assert seed_distances(found, found.arms[0]) == pytest.approx([10 / 255] * 6)
    assert summarise(found)["arms"][0]["sets"]["distance"]["value"] == pytest.approx(10 / 255)


def test_files_hold_no_nan_and_no_times(found, monkeypatch):
    folder = found.folder
    folder.note_time(found.arms[0], 0, 12, 6.0)
    write_report(found, "test")
    before = {
        path.name: path.read_bytes()
        for path in folder.path.iterdir()
        if path.is_file() and not path.name.startswith("timings")
    }
    folder.note_time(found.arms[0], 1, 12, 600.0)
    write_report(found, "test")
    for name, content in before.items():
        assert (folder.path / name).read_bytes() == content, name
    times = json.loads((folder.path / "timings.json").read_text())
    assert times["seconds per picture"] == {"base": pytest.approx(25.25), "balanced": None}
    for name in ("results.json", "rows.jsonl", "index.html", "table.md", "table.tex"):
        assert "nan" not in before[name].decode().lower(), name
    table = before["table.md"].decode()
    assert table.startswith("| caption holds | attributes | relations | counts | all | malformed")
    assert "without adapter: denoising error" in table and "Between seeds" in table
    page = before["index.html"].decode()
    assert page.count("✓ holds") == 4 + 8 and "✗ no red circle" in page


def test_one_picture_has_no_interval_and_says_so(tmp_path):
    source = shapes_source("final", 1)
    (arm,) = choose_arms(("base",), Ways(Sampling()))
    folder = RunFolder(tmp_path, {}, [arm])
    (prompt,) = source.prompts
    save_png(np.zeros((8, 8, 3), np.uint8), folder.picture(arm, 0), {})
    row = {"index": 0, "caption": prompt.text, "category": prompt.category, "seed": prompt.seed,
           "score": float("nan"), "holds": False, "failures": [], "malformed": False}  # fmt: skip
    folder.write_rows(arm, 0, [row])
    scored = [Scored(column) for column in (*JUDGED, ALIGNMENT)]
    write_report(Findings(folder, [arm], source, {"base": 1}, scored), "test")
    results = json.loads((tmp_path / "results.json").read_text())  # NaN would be no JSON
    assert results["arms"][0]["groups"]["all"]["score"]["mean"]["value"] is None
    assert results["separation"] is None
    assert "| – |" in (tmp_path / "table.md").read_text()
