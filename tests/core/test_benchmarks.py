"""Metrics against independent computations; benchmarks that stop, go on and are shared."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_files import write_random_demo
from PIL import Image
from tiny_metrics import (
    SIDE,
    WORDS,
    TinyInception,
    load_tiny_inception,
    write_blip,
    write_clip,
)
from typer.testing import CliRunner

from dpt_core.backends.diffusers import text_vectors
from dpt_core.cli import app
from dpt_core.demo.load import CHECKPOINT, export_demo
from dpt_core.evaluation import catalogue, passes
from dpt_core.evaluation.arms import Arm, Models
from dpt_core.evaluation.benchmarks import NSS1K, open_prompts
from dpt_core.evaluation.discrimination_benchmark import Asked, _hits, _matched, open_matching
from dpt_core.evaluation.metrics import (
    blip_contrastive,
    blip_matching,
    clip_scores,
    frechet_distance,
    inception_outputs,
    inception_score,
    load_blip,
    load_clip,
    load_inception,
)
from dpt_core.evaluation.run import RunFolder, missing
from dpt_core.evaluation.statistics import average
from dpt_core.evaluation.tables import latex_table, markdown_table
from dpt_core.generation import Sampling
from dpt_core.measure import alignment_scores, encode_pixels
from dpt_core.training.data.examples import DataError

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 40, 48, 3), np.uint8)
TEXTS = ["a red circle", "two blue square and a red circle", "a square left of a circle"]
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory):
    return write_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A diffusers model directory with a checkpoint in it."""
    weights, folder = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("model")
    write_random_demo(weights)
    export_demo(folder, weights)
    return folder


# Metrics


def pixels(size):
    """Pictures resized by Pillow, cut to a square in the middle, normalised as CLIP's."""
    images = [Image.fromarray(each).resize(size, Image.Resampling.BICUBIC) for each in PICTURES]
    left = (size[0] - SIDE) // 2
    cut = np.stack([np.asarray(image)[:, left : left + SIDE] for image in images])
    return (torch.from_numpy(cut).permute(0, 3, 1, 2) / 255 - CLIP_MEAN) / CLIP_STD


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_clip_scores(clip_folder):
    clip = load_clip(clip_folder)
    found, expected = clip_scores(clip, PICTURES, TEXTS), []
    for picture, text in zip(pixels((38, SIDE)), TEXTS, strict=True):  # 48 × 40, the short side 32
        ids = clip.processor.tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            seen = clip.model.vision_model(picture[None]).pooler_output
            read = clip.model.text_model(ids).pooler_output
            seen = unit(seen @ clip.model.visual_projection.weight.T)
            read = unit(read @ clip.model.text_projection.weight.T)
        expected.append((seen * read).sum().item())
    assert found == pytest.approx(expected, abs=1e-5) and np.ptp(found) > 1e-3
    with pytest.raises(ValueError, match="a prompt per picture; got 1 for 3"):
        clip_scores(clip, PICTURES, TEXTS[:1])
    clip_scores(clip, PICTURES[:1], ["a red circle " * 100])  # cut


def test_blip_scores(blip_folder):
    blip, matching, contrastive = load_blip(blip_folder), [], []
    for picture, text in zip(pixels((SIDE, SIDE)), TEXTS, strict=True):
        ids = torch.tensor([[2, *map(WORDS.index, text.split()), 3]])
        with torch.no_grad():
            logits = blip.model(ids, picture[None], use_itm_head=True).itm_score
            cosine = blip.model(ids, picture[None], use_itm_head=False).itm_score
        matching.append((1 / (1 + (logits[0, 0] - logits[0, 1]).exp())).item())
        contrastive.append(cosine.item())
    found = blip_matching(blip, PICTURES, TEXTS), blip_contrastive(blip, PICTURES, TEXTS)
    assert found[0] == pytest.approx(matching, abs=1e-5) and np.ptp(found[0]) > 1e-3
    assert found[1] == pytest.approx(contrastive, abs=1e-5) and np.ptp(found[1]) > 1e-3


def test_frechet_distance_and_inception_score():
    from scipy.linalg import sqrtm

    extractor = TinyInception()
    sets = [RNG.integers(0, 256, (30, 8, 8, 3), np.uint8), RNG.integers(50, 256, (40, 9, 9, 3))]
    real, made = (inception_outputs(extractor, list(each.astype(np.uint8))) for each in sets)
    found = frechet_distance([real.features[:7], real.features[7:]], [made.features])
    a, b = (each.features.astype(np.float64) for each in (real, made))
    covariances = np.cov(a.T), np.cov(b.T)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)
    assert found == pytest.approx(expected, rel=1e-5) and found > 0.01
    assert frechet_distance([a], [a]) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="two pictures of each set; got 1"):
        frechet_distance([a], [b[:1]])

    likely = np.exp(made.logits.astype(np.float64))
    likely /= likely.sum(1, keepdims=True)
    gain = (likely * np.log(likely / likely.mean(0))).sum(1).mean()
    batches = [made.logits[:11], made.logits[11:]]
    assert inception_score(batches, splits=1).mean == pytest.approx(np.exp(gain), abs=1e-5)
    state = torch.random.get_rng_state()
    split = inception_score(batches)
    assert inception_score(batches) == split and 0 < split.deviation < split.mean
    assert torch.equal(torch.random.get_rng_state(), state)


def test_pictures_of_many_sizes_are_read_one_by_one():
    extractor, pictures = TinyInception(), [PICTURES[0], PICTURES[1][:30]]
    both = inception_outputs(extractor, pictures)
    for place, picture in enumerate(pictures):
        alone = inception_outputs(extractor, [picture])
        assert np.allclose(both.features[place], alone.features[0], atol=1e-6)


def test_average_has_students_interval():
    values = np.array([1.0, 2, 3, 4, 10])
    reach = 2.776445 * values.std(ddof=1) / 5**0.5
    assert average(values) == pytest.approx((4, 4 - reach, 4 + reach, 5), abs=1e-5)
    assert average(np.ones(3))[:3] == (1, 1, 1)


@pytest.mark.parametrize("load", [load_clip, load_blip, load_inception])
def test_weights_that_are_not_there(load, tmp_path, clip_folder, blip_folder):
    with pytest.raises(FileNotFoundError, match="nothing is downloaded|Download"):
        load(tmp_path / "none")
    other = {load_clip: blip_folder, load_blip: clip_folder}.get(load)
    damaged = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1)}, damaged)
    with pytest.raises(ValueError, match="expected a (cl|bl)ip model|Inception v3"):
        load(other or damaged)


# Prompts


def test_named_benchmarks_say_their_categories(tmp_path):
    lines = ["a red car", "", "a blue car", "a cat", "a dog"]
    (tmp_path / "ABC-6K.txt").write_text("\n".join(lines))
    prompts = open_prompts("abc-6k", tmp_path).prompts
    assert [prompt.text for prompt in prompts] == [line for line in lines if line]
    assert [prompt.category for prompt in prompts] == ["caption", "swapped"] * 2
    assert prompts[0].seed == prompts[1].seed != prompts[2].seed == prompts[3].seed
    assert prompts[1:3] == [prompts[1], prompts[2]] and prompts[-1].index == 3
    again = open_prompts("abc-6k", tmp_path / "ABC-6K.txt", seed=1, limit=2).prompts
    assert len(again) == 2 and again[0].seed != prompts[0].seed
    entries = [{"captions": f"caption {place} "} for place in range(943)]
    path = tmp_path / "COCO-NSS1K.json"
    path.write_text(json.dumps(entries))
    prompts = open_prompts("coco-nss1k", path).prompts
    found = [prompt.category for prompt in prompts]
    assert found == [name for name, count in NSS1K.items() for _ in range(count)]
    assert prompts[355].text == "caption 355"
    assert len(open_prompts("shapes", limit=6).prompts) == 6


def test_published_files(shared_prompts):
    numbers = {"cc-500": 602, "abc-6k": 6434, "coco-nss1k": 943}
    for source, number in numbers.items():
        assert len(open_prompts(source, shared_prompts).prompts) == number
    # What the order of COCO-NSS1K rests on: ids rise in two of its parts, and only in whole ones.
    ids = [each["img_id"] for each in json.loads((shared_prompts / "COCO-NSS1K.json").read_text())]
    falls = [place for place in range(1, 943) if ids[place] < ids[place - 1]]
    assert falls[0] == 155 and {555, 743} <= set(falls)
    assert not any(555 < place < 743 for place in falls)


@pytest.fixture
def shared_prompts():
    folder = Path(__file__).resolve().parents[3] / "shared" / "prompts"
    if not folder.is_dir():
        pytest.skip("the benchmarks' prompts (../shared/prompts) are not beside this checkout")
    return folder


def test_bad_prompts(tmp_path):
    (tmp_path / "ABC-6K.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match="even number of lines; got 3"):
        open_prompts("abc-6k", tmp_path)
    (tmp_path / "COCO-NSS1K.json").write_text("[]")
    with pytest.raises(DataError, match="the 943 entries"):
        open_prompts("coco-nss1k", tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    for source, path, message in (
        ("cc-500", None, "give the path of CC-500.txt"),
        ("cc-500", tmp_path, "expected a data file at .*CC-500.txt"),
        ("other", None, "cc-500, abc-6k, coco-nss1k, shapes or a text file"),
        (str(tmp_path / "empty.txt"), None, "a prompt per line; got none"),
        (str(tmp_path / "empty.txt"), tmp_path, "'.*empty.txt' is none of them"),
    ):
        with pytest.raises(ValueError, match=message):
            open_prompts(source, path)


def test_six_thousand_prompts_plan_and_resume_in_little_memory(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"prompt {place} {'with many words ' * 20}\n" for place in range(6000)))
    arms = [Arm(name, name, Sampling()) for name in ("a", "b", "c", "d")]
    start = time.perf_counter()
    tracemalloc.start()
    prompts = open_prompts(str(path)).prompts
    folder = RunFolder(tmp_path / "run", {}, arms)
    planned = sum(len(batch) for _, _, batch in missing(arms, range(6000), folder, 8))
    for arm in arms[:3]:
        for batch in range(750):
            folder.write_rows(arm, batch, [{"index": batch}])
    left = [batch[0].index for _, _, batch in missing(arms, prompts, folder, 8)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert planned == 24_000 and left == list(range(0, 6000, 8))
    assert peak < 1_000_000  # the file has 2 MB, its prompts as objects more
    assert time.perf_counter() - start < 20


# Generation


class Killed(BaseException):
    """The end of a process, as far as it can be played."""


@pytest.fixture(scope="module")
def given(model, clip_folder, blip_folder, tmp_path_factory):
    """Words of a command that draws three prompts in four arms and computes every metric."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "mine.txt").write_text("\n".join(TEXTS))
    (folder / "inception.pth").touch()
    (folder / "real").mkdir()
    for place, picture in enumerate(PICTURES):
        Image.fromarray(picture[: 20 + place]).save(folder / "real" / f"{place}.png")
    options = {
        "adapter": model / CHECKPOINT, "prompts": folder / "mine.txt", "clip": clip_folder,
        "blip": blip_folder, "inception": folder / "inception.pth", "reference": folder / "real",
        "steps": 2, "batch-size": 2, "draws": 1, "strength": 5,
    }  # fmt: skip
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def invoke(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def tiny_inception(monkeypatch):
    monkeypatch.setattr(catalogue, "load_inception", load_tiny_inception)


@pytest.fixture(scope="module")
def unbroken(model, given, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "load_inception", load_tiny_inception)
        said = invoke("evaluate", "generation", model, path, *given)
    assert "skipped" not in said and "index.html" in said
    return path


def contents(path):
    timings = {"timings.jsonl", "timings.json"}
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name not in timings
    }


def test_a_run_killed_twice_equals_an_unbroken_one(
    model, given, unbroken, tmp_path, monkeypatch, tiny_inception
):
    write, outputs, drawn = RunFolder.write, passes.inception_outputs, []

    def torn(self, arm, batch, rows, pictures):
        drawn.append((arm.name, batch))
        write(self, arm, batch, rows, pictures)
        if len(drawn) == 4:  # the pictures are there, one of them in part; the rows are not
            self.part(arm, batch).rename(self.part(arm, batch).with_suffix(".partial"))
            with self.picture(arm, rows[0]["index"]).open("r+b") as file:
                file.truncate(100)
            raise Killed

    def stopped(*arguments):
        raise Killed

    command = ("evaluate", "generation", model, tmp_path, *given)
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
from dpt_core.cli import app
torch.set_num_threads(int(sys.argv.pop(1)))
catalogue.load_inception = load_tiny_inception
app()
"""


def test_two_processes_equal_one(model, given, unbroken, tmp_path):
    script, path = tmp_path / "launched.py", tmp_path / "run"
    script.write_text(LAUNCHED)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = [Path(__file__).parents[1], torch.get_num_threads()]
    words += ["evaluate", "generation", model, path, *given]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [*launch, str(script), *map(str, words)],
        capture_output=True, text=True, timeout=300, env=os.environ | threads,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(path) == contents(unbroken)


def test_results_are_what_the_metrics_say(model, given, unbroken, clip_folder, blip_folder):
    rows = [json.loads(line) for line in (unbroken / "rows.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row["arm"] == "both"]
    files = [unbroken / "pictures" / "both" / f"{place:05d}.png" for place in range(3)]
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    expected = {
        "clip": clip_scores(load_clip(clip_folder), pictures, TEXTS),
        "blip_itm": blip_matching(load_blip(blip_folder), pictures, TEXTS),
        "blip_itc": blip_contrastive(load_blip(blip_folder), pictures, TEXTS),
    }
    pipeline, checkpoint = load_demo_of(model)
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


def load_demo_of(folder):
    from diffusers import DiffusionPipeline

    from dpt_core.checkpoint import load_checkpoint

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, load_checkpoint(folder / CHECKPOINT)


def test_pictures_say_how_they_were_made(unbroken):
    texts = Image.open(unbroken / "pictures" / "both" / "00001.png").text
    row = json.loads((unbroken / "parts" / "both" / "00000.jsonl").read_text().splitlines()[1])
    assert (texts["prompt"], texts["seed"]) == (TEXTS[1], str(row["seed"]))
    how = json.loads(texts["dpt"])
    assert how["arm"]["sampling"]["strength"] == 5 and how["run"]["prompts"]["count"] == 3


def test_the_report_shows_every_metric(unbroken):
    heading, _, *lines = (unbroken / "table.md").read_text().splitlines()[:6]
    for title in ("alignment score", "CLIP score", "BLIP-ITM", "BLIP-ITC", "FID", "IS"):
        assert title in heading
    assert lines[0].count("[") == 4 and lines[1].count("[") == 8
    latex = (unbroken / "table.tex").read_text()
    assert latex.count(r"\\") == 1 + 1 + 3 * 2 and latex.startswith(r"\begin{tabular}{lrrrrrr}")
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


def test_what_is_not_given_is_skipped(model, tmp_path, given):
    (tmp_path / "ABC-6K.txt").write_text("a red circle\na blue circle\n")
    words = ("evaluate", "generation", model, tmp_path / "run", "--prompts", "abc-6k", "--adapter",
             model / CHECKPOINT, "--prompts-path", tmp_path, "--steps", 1, "--draws", 1,
             "--arm", "lora", "--arm", "base")  # fmt: skip
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


def test_the_shapes_world_is_judged(model, tmp_path):
    invoke("evaluate", "generation", model, tmp_path, "--prompts", "shapes", "--limit", 2,
           "--adapter", model / CHECKPOINT, "--steps", 1, "--draws", 1, "--arm", "base",
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
        (("--prompts", "shapes", "--guidance", 1), "guidance must be above 1"),
    ],
)
def test_mistakes_get_a_message_before_anything_is_drawn(model, tmp_path, words, message):
    said = invoke("evaluate", "generation", model, tmp_path / "run", "--adapter",
                  model / CHECKPOINT, *words, code=2)  # fmt: skip
    assert message in said and not (tmp_path / "run" / "pictures").exists()


# Discrimination


def test_a_pair_must_win_against_its_own_kind():
    scores = np.array([[5, 4, 3, 4, 3], [5, 4, 6, 5, 3], [5, 6, 3, 4, 6]])  # a tie is wrong
    found = {name: list(right) for name, right in _matched(scores).items()}
    assert found == {
        "text": [True, True, False],
        "text_of_three": [True, False, False],
        "image": [True, False, True],
        "image_of_three": [True, False, False],
    }


def test_the_surest_box_counts():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]])
    truth = torch.tensor([[0.3, 0.3, 0.2, 0.15], [0.9, 0.9, 0.1, 0.1]])
    assert _hits(boxes, torch.tensor([0.1, 0.9]), truth) == [True, True]
    assert _hits(boxes, torch.tensor([0.9, 0.1]), truth) == [False, False]
    assert _hits(boxes, torch.tensor([0.1, 0.9]), truth[1:]) == [False, False]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A table of hard negatives and referring expressions on three pictures."""
    folder = tmp_path_factory.mktemp("real")
    for place, picture in enumerate(RNG.integers(0, 256, (3, 100, 120, 3), np.uint8)):
        Image.fromarray(picture).save(folder / f"{place}.png")
    with (folder / "table.tsv").open("w", newline="") as file:
        table = csv.writer(file, "excel-tab")
        table.writerow(["title", "filepath", "neg_caption", "neg_image"])
        for place, text in enumerate(TEXTS):
            other = TEXTS[(place + 1) % 3]
            table.writerow([text, f"{place}.png", repr([other]), repr([f"{(place + 1) % 3}.png"])])
    images = [{"id": place, "file_name": f"{place}.png", "caption": text}
              for place, text in enumerate(TEXTS)]  # fmt: skip
    boxes = [{"image_id": place, "bbox": [10, 10, 40, 40], "tokens_positive": [[0, 5]]}
             for place in range(3)]  # fmt: skip
    (folder / "refcoco.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    return folder


def test_discrimination_stops_goes_on_and_answers(model, real, tmp_path, monkeypatch):
    options = ["--adapter", model / CHECKPOINT, "--images", real, "--size", 128, "--batch-size", 2,
               "--timestep", 300, "--timestep", 500]  # fmt: skip
    data = ["--matching", real / "table.tsv", "--grounding", real / "refcoco.json"]
    whole, path = tmp_path / "whole", tmp_path / "run"
    said = invoke("evaluate", "discrimination", model, whole, *options, *data)
    assert "right text above hard negative" in said and "3 examples of grounding" in said

    write, calls = RunFolder.write_rows, []

    def stopping(self, kind, batch, rows):
        calls.append((kind.name, batch))
        if len(calls) in (2, 4):
            raise Killed
        write(self, kind, batch, rows)

    monkeypatch.setattr(RunFolder, "write_rows", stopping)
    for _ in range(2):
        with pytest.raises(Killed):
            invoke("evaluate", "discrimination", model, path, *options, *data)
    invoke("evaluate", "discrimination", model, path, *options, *data)
    assert len(calls) == 4 + 2 and contents(path) == contents(whole)

    # One score, by hand: the first picture with its hard negative text, at the second timestep.
    rows = [json.loads(line) for line in
            (whole / "parts/matching/00000.jsonl").read_text().splitlines()]  # fmt: skip
    pipeline, checkpoint = load_demo_of(model)
    models = Models.of(pipeline, checkpoint)
    data = open_matching(real / "table.tsv", real, Asked(size=128))
    latent = encode_pixels(models.plain, data[0].images[:1])
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))[1]
    kept = models.plain.scheduler.alphas_cumprod[500]
    noisy = kept.sqrt() * latent + (1 - kept).sqrt() * noise
    text, outputs = data[0].captions[1], []
    hook = models.tuned.unet.up_blocks[1].register_forward_hook(lambda *each: outputs.append(each))
    with torch.no_grad():
        context = models.tuned.encode_prompt([text], "cpu", 1, False)[0]
        models.tuned.unet(noisy, 500, context)
        queries = models.adapter(outputs[0][2], torch.tensor([500])).query_text
    hook.remove()
    vector = text_vectors(models.tuned, [text])
    expected = torch.cosine_similarity(queries, vector[:, None], dim=-1).max().item()
    assert rows[0]["lora"][1][1] == pytest.approx(expected, abs=1e-5)

    results = json.loads((whole / "results.json").read_text())
    assert set(results["sides"]) == {"base", "lora"}
    scores = np.array([row["lora"] for row in map(json.loads, (
        line for part in sorted((whole / "parts/matching").iterdir())
        for line in part.read_text().splitlines()))])  # fmt: skip
    share = (scores[:, 1, 0] > scores[:, 1, 1]).mean()
    assert results["sides"]["lora"]["text"]["at"]["500"]["value"] == pytest.approx(share)


def test_discrimination_needs_something_to_ask(model, real, tmp_path):
    said = invoke("evaluate", "discrimination", model, tmp_path, "--adapter", model / CHECKPOINT,
                  "--images", real, code=2)  # fmt: skip
    assert "nothing to evaluate" in said
