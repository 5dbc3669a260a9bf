"""Figures against hand-computed ones; runs that stop and go on; messages of the commands."""

import json
import math
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmark_runs import Killed, contents, in_two_processes, invoke
from demo_files import write_model_folder, write_random_demo
from PIL import Image

from dpt_core import METHOD_VERSION
from dpt_core.correction import PRESETS, Correction
from dpt_core.demo.architectures import ARCHITECTURES
from dpt_core.demo.load import CHECKPOINT, load_demo
from dpt_core.diffusers import text_vectors
from dpt_core.evaluation.arms import STANDARD, Arm, Ways, arm_of, choose_arms, draw
from dpt_core.evaluation.catalogue import ALIGNMENT, JUDGED
from dpt_core.evaluation.cost import equal_candidates, work
from dpt_core.evaluation.discrimination import (
    Asked,
    answer,
    open_answers,
    scene_questions,
    write_answers,
)
from dpt_core.evaluation.models import Measure, Models
from dpt_core.evaluation.processes import Processes
from dpt_core.evaluation.report import write_report
from dpt_core.evaluation.run import RunFolder, missing, run
from dpt_core.evaluation.scenes import unique_phrase
from dpt_core.evaluation.shapes import (
    COMBINATIONS,
    SPLITS,
    combination,
    shapes_source,
    shapes_verdict,
    trained_combinations,
)
from dpt_core.evaluation.statistics import (
    paired_difference,
    proportion,
    separation,
    separation_estimate,
)
from dpt_core.evaluation.summary import Findings, Scored
from dpt_core.evaluation.sweep import sweep_arms
from dpt_core.evaluation.zero_shot import denoising_errors
from dpt_core.generation import Sampling, generate
from dpt_core.reading import alignment_scores, encode_pictures, watching_scores
from dpt_core.search import Search
from dpt_core.shapes.caption import CATEGORIES, parse
from dpt_core.shapes.pairs import scene_pair

PUBLISHED = replace(PRESETS["published"], strength=5.0)
STEPS = Sampling(steps=2, guidance=4.0, correction=PUBLISHED)
PLAIN = Sampling(steps=2, guidance=4.0)
MEASURE = Measure(draws=1)
COSTS = dict.fromkeys((*STANDARD, "best-of"), 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_random_demo(folder)
    return folder


@pytest.fixture(scope="module")
def models(weights):
    demo = load_demo(weights)
    return Models.of(demo.pipeline, demo.checkpoint)


# Statistics


def test_share_has_wilsons_interval():
    found = proportion(np.array([True] * 8 + [False] * 2))
    z = 1.959964
    centre = (0.8 + z**2 / 20) / (1 + z**2 / 10)
    reach = z / (1 + z**2 / 10) * math.sqrt(0.8 * 0.2 / 10 + z**2 / 400)
    assert found == pytest.approx((0.8, centre - reach, centre + reach, 10), abs=1e-6)
    assert proportion(np.zeros(9, bool))[:2] == (0, 0)
    assert math.isnan(proportion(np.array([], bool)).value)


def test_paired_difference_looks_at_pairs():
    base = np.array([True, False] * 50)
    better = base.copy()
    better[1:21:2] = True  # 10 of 100 gained, none lost
    found = paired_difference(better, base)
    assert found.value == pytest.approx(0.1) and found.number == 100
    # Ten of a hundred, resampled: the percentiles of a binomial(100, 0.1) are 5 and 16.
    assert (found.low, found.high) == pytest.approx((0.05, 0.16), abs=0.011)
    assert paired_difference(better, base) == found
    assert paired_difference(base, base)[:3] == (0, 0, 0)
    assert paired_difference(~base, base).value == 0
    with pytest.raises(ValueError, match="equal lengths"):
        paired_difference(base, base[:3])


def test_separation_has_an_interval_and_a_gain():
    rng = np.random.default_rng(1)
    right = np.arange(300) % 3 == 0
    good, chance = right + rng.normal(size=300), rng.normal(size=300)
    found = separation_estimate(good, right)
    assert found.value == pytest.approx(separation(good, right)) and found.number == 300
    assert 0.03 < found.high - found.low < 0.15 and found.low < found.value < found.high
    gain = separation_estimate(good, right, over=chance)
    assert gain.value == pytest.approx(separation(good, right) - separation(chance, right))
    assert gain.low > 0
    assert separation_estimate(good, right, over=good)[:3] == (0, 0, 0)
    assert math.isnan(separation_estimate(good, np.ones(300, bool)).value)


def test_separation_counts_ordered_pairs():
    right = np.array([False, False, True, True])
    assert separation(np.array([0.1, 0.4, 0.35, 0.8]), right) == 0.75
    assert separation(np.array([0.5] * 4), right) == 0.5
    assert math.isnan(separation(np.ones(2), np.array([True, True])))


# Prompts and arms


def test_prompts_are_balanced_fixed_and_of_their_split():
    prompts = shapes_source("held-out", 30).prompts
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(CATEGORIES, 10)
    assert shapes_source("held-out", 12).prompts == prompts[:12]
    assert all(parse(prompt.text) == prompt.caption for prompt in prompts)
    seeds = [
        {prompt.seed for prompt in shapes_source(split, 30).prompts}
        for split in SPLITS
        if split != COMBINATIONS
    ]
    assert len(set.union(*seeds)) == sum(map(len, seeds)) == 90
    with pytest.raises(ValueError, match="held-out, tuning"):
        shapes_source("training", 3)


def test_several_seeds_of_a_prompt_begin_with_its_own():
    once, thrice = (shapes_source("final", 4, seeds).prompts for seeds in (1, 3))
    assert [prompt.text for prompt in thrice[::3]] == [prompt.text for prompt in once]
    assert [prompt.seed for prompt in thrice[::3]] == [prompt.seed for prompt in once]
    assert [prompt.index for prompt in thrice] == list(range(12))
    assert len({prompt.seed for prompt in thrice}) == 12


def test_a_combination_ignores_order_and_wording():
    left = parse("a red circle left of a blue square")
    assert combination(left) == combination(parse("a blue square to the right of a red circle"))
    assert combination(left) != combination(parse("a blue square left of a red circle"))
    counts = parse("two red circles and a blue cross"), parse("a blue cross and two red circles")
    assert combination(counts[0]) == combination(counts[1]) != combination(parse("a blue cross"))
    assert combination(parse("a small red cross")) != combination(parse("a red cross"))


def test_combinations_are_those_that_no_training_pair_has(monkeypatch):
    from dpt_core.evaluation import shapes

    monkeypatch.setattr(shapes, "TRAINING_PAIRS", 400)
    for cached in (trained_combinations, shapes.untrained_categories):
        cached.cache_clear()
    pairs = [scene_pair(0, index) for index in range(400)]
    texts = [text for pair in pairs for text in (pair.text, pair.wrong_text)]
    trained = {combination(parse(text)) for text in texts}
    assert trained == trained_combinations()
    prompts = shapes_source(COMBINATIONS, 12).prompts
    assert len(prompts) == 12
    assert not {combination(prompt.caption) for prompt in prompts} & trained
    others = shapes_source("final", 60).prompts
    assert any(combination(prompt.caption) in trained for prompt in others)
    for cached in (trained_combinations, shapes.untrained_categories):
        cached.cache_clear()


def test_names_of_arms_have_parts():
    ways = Ways(replace(STEPS, guidance=2.5), 3)
    arm = arm_of("guidance-4.5+balanced+lora", ways)
    assert arm.sampling == Sampling(2, 4.5, PRESETS["balanced"]) and arm.lora
    assert arm.title == "guidance 4.5 + balanced + LoRA"
    for name, correction in PRESETS.items():
        assert arm_of(name, ways).sampling == Sampling(2, 2.5, correction)
    assert arm_of("both", ways).sampling.correction == PUBLISHED and arm_of("both", ways).lora
    assert arm_of("steps-40", ways).sampling == Sampling(40, 2.5)
    assert arm_of("best-of", ways).candidates == 3
    zero = arm_of("zero-shot-4", ways)
    assert (zero.candidates, zero.adapter, zero.title) == (4, False, "best of 4 without adapter")
    for wrong in ("other", "guidance", "base-2", "balanced+", "steps-0", "lora-2"):
        with pytest.raises(ValueError, match="arm"):
            arm_of(wrong, ways)
    with pytest.raises(ValueError, match="best-of-4"):
        arm_of("best-of", Ways(PLAIN))
    found = arm_of("balanced+search-8+stages-3+decide-35", ways)
    assert found.search == Search(8, 0.35, stages=3) and found.sampling.correction == Correction()
    assert found.title == "+ balanced search of 8 in 3 stages by 35%"
    with pytest.raises(ValueError, match="search-N stands before"):
        arm_of("stages-2", ways)
    with pytest.raises(ValueError, match="not both; got 'best-of-2.search-2'"):
        arm_of("best-of-2+search-2", ways)
    with pytest.raises(ValueError, match="no LoRA: leave out the arm 'balanced.lora'"):
        choose_arms(["base", "balanced+lora"], ways, lora=False)
    with pytest.raises(ValueError, match="'base' twice"):
        choose_arms(["base", "lora", "base"], ways)


def test_tuned_model_is_a_copy(models):
    theirs, ours = (each.unet.state_dict() for each in (models.plain, models.tuned))
    changed = [key for key in theirs if not torch.equal(theirs[key], ours[key])]
    assert changed and all(".to_" in key for key in changed)
    assert models.tuned.vae is models.plain.vae


def test_a_search_is_an_arm(models):
    arm = arm_of("search-2+decide-50", Ways(PLAIN))
    drawn = draw(models, arm, ["a red circle"], [5], MEASURE)
    assert drawn.candidates.shape == (2, 1) and drawn.seeds[0] in (5, 6)
    assert drawn.scores is None  # scores on the way are not measured ones
    alone = generate(models.plain, ["a red circle"], drawn.seeds, PLAIN).pictures
    assert np.abs(drawn.pictures.astype(int) - alone).max() <= 2
    base, both = (
        work(models, each, "a red circle", MEASURE) for each in (arm_of("base", Ways(PLAIN)), arm)
    )
    assert 1.2 * base < both < 1.8 * base


def best_of_two():
    return arm_of("best-of-2", Ways(PLAIN))


def test_best_of_keeps_the_highest_score(models):
    prompts, seeds = ["a red circle", "a blue square"], [5, 50]
    arm = arm_of("best-of-3", Ways(PLAIN))
    drawn = draw(models, arm, prompts, seeds, MEASURE)
    assert drawn.candidates.shape == (3, 2)
    for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        best = int(drawn.candidates[:, place].argmax())
        assert drawn.seeds[place] == seed + best
        alone = generate(models.plain, [prompt], [seed + best], PLAIN).pictures[0]
        assert np.abs(alone.astype(int) - drawn.pictures[place]).max() <= 1
        found = models.score(drawn.pictures[place][None], [prompt], MEASURE)
        assert found[0] == pytest.approx(drawn.candidates[best, place], abs=1e-5)
    again = draw(models, arm, prompts, seeds, MEASURE)
    assert np.array_equal(again.pictures, drawn.pictures) and again.seeds == drawn.seeds


def test_of_equal_scores_the_first_candidate_wins(models, monkeypatch):
    monkeypatch.setattr(Models, "score", lambda self, pictures, *_: np.zeros(len(pictures)))
    assert draw(models, best_of_two(), ["a red circle"], [5], MEASURE).seeds == [5]


def test_without_adapter_the_smallest_error_wins(models):
    prompts, seeds = ["a red circle", "a blue square"], [5, 50]
    drawn = draw(models, arm_of("zero-shot-2", Ways(PLAIN)), prompts, seeds, MEASURE)
    for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        errors = []
        for candidate in range(2):
            picture = generate(models.plain, [prompt], [seed + candidate], PLAIN).pictures
            errors.append(denoising_errors(models.plain, picture, [prompt], (500,), 1).item())
        assert drawn.candidates[:, index] == pytest.approx([-error for error in errors], rel=1e-2)
        assert drawn.seeds[index] == seed + int(np.argmin(errors))


def test_denoising_errors_are_those_of_the_training_loss(models):
    picture = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    found = denoising_errors(models.plain, picture, ["a red circle"], (300, 700), 1, seed=3)
    scheduler, unet = models.plain.scheduler, models.plain.unet
    with torch.no_grad():
        latent = encode_pictures(models.plain, picture)
        noise = torch.randn(1, *latent.shape[1:], generator=torch.Generator().manual_seed(3))
        context = models.plain.encode_prompt(["a red circle"], "cpu", 1, False)[0]
        for error, level in zip(found[:, 0], (300, 700), strict=True):
            step = torch.tensor([level])
            noisy = scheduler.add_noise(latent, noise, step)
            target = scheduler.get_velocity(latent, noise, step)  # the demo predicts v
            expected = (unet(noisy, step, context).sample - target).square().mean().item()
            assert error == pytest.approx(expected, rel=1e-4)


def test_work_adds_up(models):
    plain, corrected = Arm("a", "", PLAIN), Arm("b", "", STEPS)
    once, more, two = (
        work(models, arm, "a red circle", MEASURE) for arm in (plain, corrected, best_of_two())
    )
    assert once < more < two and two > 2 * once
    assert equal_candidates(models, STEPS, "a red circle", MEASURE) == 2


def test_a_sweep_has_one_plain_arm():
    grid = {"step": ["normalised"], "strength": [0.0, 1.0, 5.0], "every_n_steps": [1, 2]}
    arms = sweep_arms(STEPS, grid)
    assert [arm.name for arm in arms][:2] == ["plain", "step-normalised_strength-1_every-1"]
    assert [arm.title for arm in arms][:2] == ["plain", "strength 1, every 1"] and len(arms) == 5
    assert arms[-1].sampling == Sampling(
        2, 4.0, replace(PUBLISHED, strength=5.0, every_n_steps=2, step="normalised")
    )


# Scores


def test_scores_average_draws_and_do_not_mix_pictures(models):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 128, 128, 3), np.uint8)
    prompts = ["a red circle", "two blue squares"]
    both = alignment_scores(models.tuned, models.adapter, pictures, prompts, draws=2)
    alone = alignment_scores(models.tuned, models.adapter, pictures[1:], prompts[1:], draws=2)
    assert both[1] == pytest.approx(alone[0].item(), abs=1e-5)

    vae, unet = models.tuned.vae, models.tuned.unet
    with torch.no_grad():
        pixels = torch.from_numpy(pictures[:1]).permute(0, 3, 1, 2) / 127.5 - 1
        latent = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        kept = models.tuned.scheduler.alphas_cumprod[500]
        text = text_vectors(models.tuned, prompts[:1])
        context = models.tuned.encode_prompt(prompts[:1], "cpu", 1, False)[0]
        generator, found = torch.Generator().manual_seed(0), []
        for _ in range(2):
            noise = torch.randn(1, 4, 16, 16, generator=generator)
            with watching(unet) as features:
                unet(kept.sqrt() * latent + (1 - kept).sqrt() * noise, 500, context)
            queries = models.adapter(features[0], torch.tensor([500])).query_text
            found.append(torch.cosine_similarity(queries, text[:, None], dim=-1).max())
    assert both[0].item() == pytest.approx(torch.stack(found).mean().item(), abs=1e-5)


@contextmanager
def watching(unet):
    """Outputs of the up block that the adapter reads."""
    outputs = []
    hook = unet.up_blocks[2].register_forward_hook(lambda *each: outputs.append(each[2]))
    yield outputs
    hook.remove()


@pytest.mark.parametrize(("setting", "message"), [({"timestep": 1000}, "999"), ({"draws": 0}, "1")])
def test_scores_refuse_numbers_out_of_range(models, setting, message):
    with pytest.raises(ValueError, match=message):
        alignment_scores(
            models.plain, models.adapter, np.zeros((1, 128, 128, 3), np.uint8), ["x"], **setting
        )


def test_watching_changes_nothing(models):
    text = text_vectors(models.plain, ["a red circle"])
    before = generate(models.plain, ["a red circle"], [1], PLAIN).pictures
    with watching_scores(models.plain, models.adapter, text, models.tuned) as scores:
        after = generate(models.plain, ["a red circle"], [1], PLAIN).pictures
        corrected = generate(models.plain, ["a red circle"], [1], STEPS, models.adapter)
    assert np.array_equal(before, after)
    assert [len(each) for each in scores] == [1] * 4  # two steps, twice
    unwatched = generate(models.plain, ["a red circle"], [1], STEPS, models.adapter)
    assert np.array_equal(corrected.pictures, unwatched.pictures)


# The adapter


def test_a_unique_phrase_names_one_thing():
    for index in range(30):
        pair = scene_pair(1000, index)
        if (found := unique_phrase(pair)) is None:
            assert all(mention.count > 1 for mention in pair.caption.mentions)
            continue
        (mention,) = parse(found.text).mentions
        kind = (mention.colour, mention.shape)
        boxes = [thing.box for thing in pair.scene if (thing.colour, thing.shape) == kind]
        assert boxes == [found.box]


def adapter_figures(models, path, batch_size, limit=5):
    asked = Asked((300, 500, 700), batch_size=batch_size)
    data = scene_questions(limit)
    folder = open_answers(models, path, asked, list(data), Processes())
    answer(models, folder, asked, data)
    return write_answers(folder, asked, list(data))


def test_adapter_figures_do_not_depend_on_the_batch(models, tmp_path):
    whole = adapter_figures(models, tmp_path / "whole", 8).results
    parts = adapter_figures(models, tmp_path / "parts", 2).results
    assert whole == parts
    figures = whole["sides"]["lora"]
    assert figures["text"]["at"].keys() == {300, 500, 700}
    assert figures["text"]["at"][500]["number"] == 5 and whole["examples"]["matching"] == 5
    assert figures["phrases_generalised"]["mean"]["value"] <= figures["phrases"]["mean"]["value"]


# Runs


def standard_arms(sampling):
    return choose_arms(tuple(COSTS), Ways(sampling, 2))


def evaluate(models, path, stop=None):
    arms, source = standard_arms(STEPS), shapes_source("held-out", 3)
    folder = RunFolder(path, {"prompts": 3}, arms)
    judged = shapes_verdict
    run(models, arms, source.prompts, folder, judged, MEASURE, 2, stop or (lambda *_: None))
    scored = [Scored(column) for column in (*JUDGED, ALIGNMENT)]
    write_report(Findings(folder, arms, source, COSTS, scored), "test")
    return folder


@pytest.fixture(scope="module")
def unbroken(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken")
    evaluate(models, path)
    return path


def test_a_killed_run_goes_on_to_the_same_files(models, unbroken, tmp_path, monkeypatch):
    calls, write = [], RunFolder.write

    def torn(self, arm, batch, rows, pictures):
        calls.append(arm.name)
        if len(calls) == 4:  # the pictures are there, one of them in part; the rows are not
            write(self, arm, batch, rows, pictures)
            self.part(arm, batch).rename(self.part(arm, batch).with_suffix(".jsonl.partial"))
            with self.picture(arm, rows[0]["index"]).open("r+b") as file:
                file.truncate(100)
            raise Killed
        write(self, arm, batch, rows, pictures)

    monkeypatch.setattr(RunFolder, "write", torn)
    with pytest.raises(Killed):
        evaluate(models, tmp_path)

    def stop(arm, pictures):
        if arm.name == "lora":
            raise Killed

    with pytest.raises(Killed):
        evaluate(models, tmp_path, stop)
    evaluate(models, tmp_path)
    # Ten batches, of which the fourth was drawn twice: nothing else was done again.
    assert Counter(calls) == dict.fromkeys(COSTS, 2) | {"self-correction": 3}
    assert contents(tmp_path) == contents(unbroken)


def test_rows_say_everything(unbroken):
    rows = [json.loads(line) for line in (unbroken / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 15
    by = {(row["arm"], row["index"]): row for row in rows}
    assert len(by["both", 0]["curve"]) == 2 and by["base", 0]["curve"] == []
    assert by["best-of", 2]["score"] == max(by["best-of", 2]["candidates"])
    assert by["best-of", 2]["candidates"][0] == pytest.approx(by["base", 2]["score"], abs=0.1)
    assert {by[arm, 1]["seed"] for arm in ("base", "both", "lora")} == {by["base", 1]["seed"]}
    assert by["base", 1]["failures"] and by["base", 1]["holds"] is False


def test_the_report_can_be_read(unbroken):
    results = json.loads((unbroken / "results.json").read_text())
    assert results["separation"] is None  # random weights draw nothing right
    assert [arm["name"] for arm in results["arms"]] == list(COSTS)
    assert results["arms"][0]["groups"]["all"]["holds"]["mean"]["number"] == 3
    assert "| base | 0.0% [0, 79] |" in (unbroken / "table.md").read_text()
    page = (unbroken / "index.html").read_text()
    for index in range(3):
        assert f'src="pictures/base/0000{index}.png"' in page
    assert Image.open(unbroken / "chart.png").size == (1200, 540)


def test_other_settings_need_another_folder(models, unbroken):
    with pytest.raises(ValueError, match="other settings .*prompts 3 → 4"):
        RunFolder(unbroken, {"prompts": 4}, [])
    with pytest.raises(ValueError, match="arm .*sampling.correction.strength 5.0 → None"):
        RunFolder(unbroken, {"prompts": 3}, standard_arms(PLAIN))


def test_a_batch_that_a_crash_left_empty_is_drawn_again(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    folder = RunFolder(tmp_path / "run", {"prompts": 3}, [])
    arms, prompts = standard_arms(STEPS), shapes_source("held-out", 3).prompts
    assert list(missing(arms, prompts, folder, 2)) == []
    folder.part(arms[1], 1).write_bytes(b"")
    assert [(arm.name, batch) for arm, batch, _ in missing(arms, prompts, folder, 2)] == [
        ("self-correction", 1)
    ]


def test_rows_of_another_version_of_the_method_are_refused(unbroken, tmp_path, monkeypatch):
    from dpt_core.evaluation import run as runs

    shutil.copytree(unbroken, tmp_path / "old")
    RunFolder(tmp_path / "old", {"prompts": 3}, [])
    monkeypatch.setattr(runs, "METHOD_VERSION", METHOD_VERSION + 1)
    with pytest.raises(ValueError, match=f"run of version {METHOD_VERSION} of the method"):
        RunFolder(tmp_path / "old", {"prompts": 3}, [])


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_the_fingerprint_covers_every_part_that_draws(part):
    class Pipeline(SimpleNamespace):
        @property
        def config(self):
            return vars(self)

    def models(changed=None):
        names = ("unet", "vae", "text_encoder", "text_encoder_2")
        parts = {name: torch.nn.Linear(2, 2) for name in names}
        for index, (name, module) in enumerate(parts.items()):
            torch.nn.init.constant_(module.weight, index + (name == changed))
            torch.nn.init.zeros_(module.bias)
        pipeline = Pipeline(tokenizer=object(), **parts)
        return Models(pipeline, pipeline, torch.nn.Identity())

    assert models().fingerprint() == models().fingerprint() != models(part).fingerprint()


# Commands


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_demo_writes_one_picture(weights, tmp_path, architecture):
    out = tmp_path / "new" / "demo.png"
    said = invoke("demo", "a red circle", "--count", 1, "--steps", 2, "--weights", weights,
                  "--architecture", architecture, "--out", out)  # fmt: skip
    assert "0 of 1" in said and str(out) in said
    assert Image.open(out).size[0] >= 500


def test_the_transformer_is_evaluated_by_the_same_command(weights, tmp_path):
    said = invoke("evaluate", "shapes", tmp_path, "--architecture", "dit", "--weights", weights,
                  "--prompts", 2, "--steps", 2, "--draws", 1, "--arm", "base", "--arm", "balanced",
                  "--arm", "balanced+search-2")  # fmt: skip
    assert "balanced search of 2" in said and "table.md" in said
    arms = json.loads((tmp_path / "results.json").read_text())["arms"]
    base, balanced, search = (each["cost"] for each in arms)
    assert base == 1 < balanced < search


def test_two_processes_share_a_comparison(weights, tmp_path):
    words = "--prompts", 3, "--steps", 2, "--batch-size", 2, "--best-of", 2, "--draws", 1
    words += "--no-adapter", "--weights", weights, "--arm", "base", "--arm", "best-of"
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    invoke("evaluate", "shapes", alone, *words)
    said = in_two_processes("-m", "dpt_core", "evaluate", "shapes", shared, *words)
    assert said.count("table.md") == 1
    assert contents(shared) == contents(alone)


def test_generate_and_score_take_any_directory(weights, tmp_path):
    write_model_folder(tmp_path / "model", weights)
    adapter, out = tmp_path / "model" / CHECKPOINT, tmp_path / "out"
    invoke("generate", tmp_path / "model", "a red circle", "--adapter", adapter,
           "--count", 2, "--steps", 2, "--out", out)  # fmt: skip
    pictures = sorted(out.glob("*.png"))
    assert [path.name for path in pictures] == ["00000.png", "00001.png"]
    assert Image.open(pictures[1]).text["seed"] == "1"
    said = invoke("score", tmp_path / "model", "a red circle", *pictures, "--adapter", adapter)
    demo = load_demo(weights)
    models = Models.of(demo.pipeline, demo.checkpoint)
    picture = np.asarray(Image.open(pictures[0]))[None]
    expected = alignment_scores(models.tuned, models.adapter, picture, ["a red circle"])
    assert f"{expected.item():.4f} {pictures[0]}" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "a dog on a skateboard"), "the shapes world cannot draw 'a dog on a skateboard'"),
        (("demo", "a red circle", "--weights", "nowhere"), "lacks unet.safetensors in nowhere"),
        (("demo", "a red circle", "--guidance", 0.5), "guidance must be at least 1; got 0.5"),
        (("demo", "a red circle", "--step", "other"), "step must be one of published, normalised"),
        (
            ("generate", ".", "x", "--start-percent", 0.6, "--end-percent", 0.5),
            "start_percent (0.6) must not exceed end_percent",
        ),
        (("demo", "a red circle", "--device", "nonsense"), "cannot compute on device 'nonsense'"),
        (("generate", "nowhere", "x"), "no model directory at nowhere"),
        (("generate", ".", "x"), "has no model_index.json"),
        (("generate", ".", "x", "--adapter", "none.bin"), "no DPT checkpoint at none.bin"),
        (("score", ".", "x", "none.png", "--adapter", "none.bin"), "none.png"),
        (("evaluate", "shapes", "out", "--split", "training"), "split must be one of"),
        (("evaluate", "shapes", "out", "--arm", "other"), "the arms are base, self-correction, lo"),
        (("evaluate", "sweep", "out"), "--strength"),
    ],
)
def test_mistakes_get_a_message(words, message, tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    words += ("--weights", weights) if words[0] == "evaluate" else ()
    said = invoke(*words, code=2)
    assert message in said and "Traceback" not in said
