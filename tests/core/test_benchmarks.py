"""Benchmarks of generation that stop, go on and are shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_runs import TEXTS, Killed, contents, in_two_processes, invoke, load_demo_of
from PIL import Image
from tiny_metrics import TinyInception, load_tiny_inception

from dpt_core.demo.load import CHECKPOINT
from dpt_core.evaluation import catalogue, passes
from dpt_core.evaluation.metrics import (
    blip_scores,
    clip_scores,
    frechet_distance,
    inception_outputs,
    inception_score,
    load_blip,
    load_clip,
)
from dpt_core.evaluation.models import Models
from dpt_core.evaluation.run import RunFolder
from dpt_core.evaluation.tables import latex_table, markdown_table
from dpt_core.reading import alignment_scores

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), np.uint8)


@pytest.fixture(scope="module")
def given(model_folder, clip_folder, blip_folder, tmp_path_factory):
    """Words of a command that draws three prompts in four arms and computes every metric."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "mine.txt").write_text("\n".join(TEXTS))
    (folder / "inception.pth").touch()
    (folder / "real").mkdir()
    for place, picture in enumerate(PICTURES):
        Image.fromarray(picture[: 20 + place]).save(folder / "real" / f"{place}.png")
    options = {
        "adapter": model_folder / CHECKPOINT, "prompts": folder / "mine.txt", "clip": clip_folder,
        "blip": blip_folder, "inception": folder / "inception.pth", "reference": folder / "real",
        "steps": 2, "batch-size": 2, "draws": 1, "strength": 5,
    }  # fmt: skip
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


@pytest.fixture
def tiny_inception(monkeypatch):
    monkeypatch.setattr(catalogue, "load_inception", load_tiny_inception)


@pytest.fixture(scope="module")
def unbroken(model_folder, given, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "load_inception", load_tiny_inception)
        said = invoke("evaluate", "generation", model_folder, path, *given)
    assert "skipped" not in said and "index.html" in said
    return path


def test_a_run_killed_twice_equals_an_unbroken_one(
    model_folder, given, unbroken, tmp_path, monkeypatch, tiny_inception
):
    write, outputs, drawn = RunFolder.write, passes.inception_outputs, []

    def torn(self, arm, batch, rows, pictures):
        drawn.append((arm.name, batch))
        write(self, arm, batch, rows, pictures)
        if len(drawn) == 4:  # the pictures are there, one of them in part; the rows are not
            self.part(arm, batch).rename(self.part(arm, batch).with_suffix(".jsonl.partial"))
            with self.picture(arm, rows[0]["index"]).open("r+b") as file:
                file.truncate(100)
            raise Killed

    def stopped(*arguments):
        raise Killed

    command = ("evaluate", "generation", model_folder, tmp_path, *given)
    monkeypatch.setattr(RunFolder, "write", torn)
    with pytest.raises(Killed):
        invoke(*command)
    monkeypatch.setattr(passes, "inception_outputs", stopped)
    with pytest.raises(Killed):
        invoke(*command)
    monkeypatch.setattr(passes, "inception_outputs", outputs)
    invoke(*command)
    arms = ("base", "self-correction", "lora", "both")
    every = [(arm, batch) for arm in arms for batch in range(2)]
    assert drawn == every[:4] + every[3:]  # the torn batch again, and no other
    assert contents(tmp_path) == contents(unbroken)


LAUNCHED = """
import sys
sys.path.append(sys.argv.pop(1))
import torch
from tiny_metrics import load_tiny_inception
from dpt_core.evaluation import catalogue
from dpt_core.cli import main
torch.set_num_threads(int(sys.argv.pop(1)))
catalogue.load_inception = load_tiny_inception
main()
"""


def test_two_processes_equal_one(model_folder, given, unbroken, tmp_path):
    script, path = tmp_path / "launched.py", tmp_path / "run"
    script.write_text(LAUNCHED)
    words = [Path(__file__).parents[1], torch.get_num_threads()]
    in_two_processes(script, *words, "evaluate", "generation", model_folder, path, *given)
    assert contents(path) == contents(unbroken)


def test_results_are_what_the_metrics_say(model_folder, given, unbroken, clip_folder, blip_folder):
    rows = [json.loads(line) for line in (unbroken / "rows.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row["arm"] == "both"]
    files = [unbroken / "pictures" / "both" / f"{place:05d}.png" for place in range(3)]
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    expected = {
        "clip": clip_scores(load_clip(clip_folder), pictures, TEXTS),
        "blip_itm": blip_scores(load_blip(blip_folder), pictures, TEXTS).matching,
        "blip_itc": blip_scores(load_blip(blip_folder), pictures, TEXTS).contrastive,
    }
    pipeline, checkpoint = load_demo_of(model_folder)
    models = Models.of(pipeline, checkpoint)
    expected["score"] = alignment_scores(
        models.tuned, models.adapter, pictures, TEXTS, draws=1
    ).numpy()
    results = json.loads((unbroken / "results.json").read_text())
    arms = {arm["name"]: arm for arm in results["arms"]}
    assert list(arms) == ["base", "self-correction", "lora", "both"]
    for name, values in expected.items():
        assert [row[name] for row in mine] == pytest.approx(list(values), abs=1e-5)
        figures, base = (arms[arm]["groups"]["all"][name] for arm in ("both", "base"))
        assert figures["mean"]["value"] == pytest.approx(float(values.mean()), abs=1e-5)
        difference = figures["mean"]["value"] - base["mean"]["value"]
        assert figures["difference"]["value"] == pytest.approx(difference, abs=1e-6)
    real = [np.asarray(Image.open(file)) for file in sorted(Path(given[11]).glob("*.png"))]
    outputs = [inception_outputs(TinyInception(), each) for each in (real, pictures)]
    distance = frechet_distance(*([each.features] for each in outputs))
    assert arms["both"]["sets"]["fid"]["value"] == pytest.approx(distance, rel=1e-5)
    score = inception_score([outputs[1].logits])
    assert arms["both"]["sets"]["inception_score"]["value"] == pytest.approx(score.mean, abs=1e-5)


def test_pictures_say_how_they_were_made(unbroken):
    texts = Image.open(unbroken / "pictures" / "both" / "00001.png").text
    row = json.loads((unbroken / "parts" / "both" / "00000.jsonl").read_text().splitlines()[1])
    assert (texts["prompt"], texts["seed"]) == (TEXTS[1], str(row["seed"]))
    how = json.loads(texts["dpt"])
    assert how["arm"]["sampling"]["correction"]["strength"] == 5
    assert how["run"]["prompts"]["count"] == 3


def test_the_report_shows_every_metric(unbroken):
    heading, _, *lines = (unbroken / "table.md").read_text().splitlines()[:6]
    for title in ("alignment score", "CLIP score", "BLIP-ITM", "BLIP-ITC", "FID", "IS"):
        assert title in heading
    assert lines[0].count("[") == 4 and lines[1].count("[") == 8
    latex = (unbroken / "table.tex").read_text()
    assert latex.count(r"\\") == 1 + 1 + 3 * 2 and latex.startswith(r"\begin{tabular}{lrrrrrrr}")
    page = (unbroken / "index.html").read_text()
    assert page.count('loading="lazy"') == 12 and 'src="pictures/both/00002.png"' in page
    assert page.count('<option value="score:') == 16
    assert page.count('<option value="difference:') == 12
    first = page.split('data-scores="')[1].split('"')[0]
    rows = [json.loads(line) for line in (unbroken / "rows.jsonl").read_text().splitlines()]
    assert json.loads(first)[1] == [row["clip"] for row in rows if row["index"] == 0]


def test_tables_escape():
    rows = [["", "a|b"], ["x_1 ≥ 5%", "1<br>+2"]]
    assert markdown_table(rows) == "|  | a\\|b |\n|---|---|\n| x_1 ≥ 5% | 1<br>+2 |\n"
    latex = latex_table(rows)
    assert r"x\_1 $\geq$ 5\% & 1 \\" in latex and "\n & +2 \\\\" in latex


def test_what_is_not_given_is_skipped(model_folder, tmp_path, given):
    (tmp_path / "ABC-6K.txt").write_text("a red circle\na blue circle\n")
    words = ("evaluate", "generation", model_folder, tmp_path / "run", "--prompts", "abc-6k",
             "--adapter", model_folder / CHECKPOINT, "--prompts-path", tmp_path, "--steps", 1,
             "--draws", 1, "--arm", "lora", "--arm", "base")  # fmt: skip
    said = invoke(*words)
    assert "CLIP score skipped: it needs --clip." in said
    assert "FID skipped: it needs --inception and --reference." in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == ["lora", "base"]
    assert list(results["arms"][0]["groups"]) == ["caption", "swapped", "all"]
    assert list(results["arms"][0]["groups"]["all"]) == ["score"] and len(results["skipped"]) == 4
    assert "## swapped" in (tmp_path / "run" / "table.md").read_text()
    assert "<option>swapped</option>" in (tmp_path / "run" / "index.html").read_text()
    assert "other settings" in invoke(*words, "--seed", 1, code=2)


def test_the_shapes_world_is_judged(model_folder, tmp_path):
    invoke("evaluate", "generation", model_folder, tmp_path, "--prompts", "shapes", "--limit", 2,
           "--adapter", model_folder / CHECKPOINT, "--steps", 1, "--draws", 1, "--arm", "base",
           "--arm", "best-of", "--best-of", 2)  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["arms"][1]["groups"]["all"]["holds"]["mean"]["number"] == 2
    assert "only where verdicts differ" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompts", "abc-6k"), "give the path of ABC-6K.txt"),
        (("--prompts", "nothing"), "or a text file; got 'nothing'"),
        (("--prompts", "shapes", "--clip", "none"), "expected a clip model"),
        (("--prompts", "shapes", "--inception", "none"), "no such file"),
        (("--prompts", "shapes", "--reference", "none"), "FID needs real pictures"),
        (("--prompts", "shapes", "--arm", "other"), "the arms are base, self-correction, lora"),
        (("--prompts", "shapes", "--guidance", 0.5), "guidance must be at least 1; got 0.5"),
    ],
)
def test_mistakes_get_a_message_before_anything_is_drawn(model_folder, tmp_path, words, message):
    said = invoke("evaluate", "generation", model_folder, tmp_path / "run", "--adapter",
                  model_folder / CHECKPOINT, *words, code=2)  # fmt: skip
    assert message in said and not (tmp_path / "run" / "pictures").exists()
