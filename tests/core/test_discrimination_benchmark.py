"""Benchmarks of discrimination: who is right, and runs that stop and go on."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from benchmark_runs import TEXTS, Killed, contents, invoke, load_demo_of
from PIL import Image

from dpt_core.demo.load import CHECKPOINT
from dpt_core.diffusers import text_vectors
from dpt_core.evaluation.discrimination import Asked, _hits, _matched, open_matching
from dpt_core.evaluation.models import Models
from dpt_core.evaluation.run import RunFolder
from dpt_core.reading import encode_pixels


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
    pictures = np.random.default_rng(0).integers(0, 256, (3, 100, 120, 3), np.uint8)
    for place, picture in enumerate(pictures):
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


def test_discrimination_stops_goes_on_and_answers(model_folder, real, tmp_path, monkeypatch):
    options = ["--adapter", model_folder / CHECKPOINT, "--images", real, "--size", 128,
               "--batch-size", 2, "--timestep", 300, "--timestep", 500]  # fmt: skip
    data = ["--matching", real / "table.tsv", "--grounding", real / "refcoco.json"]
    whole, path = tmp_path / "whole", tmp_path / "run"
    said = invoke("evaluate", "discrimination", model_folder, whole, *options, *data)
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
            invoke("evaluate", "discrimination", model_folder, path, *options, *data)
    invoke("evaluate", "discrimination", model_folder, path, *options, *data)
    assert len(calls) == 4 + 2 and contents(path) == contents(whole)

    # One score, by hand: the first picture with its hard negative text, at the second timestep.
    rows = [json.loads(line) for line in
            (whole / "parts/matching/00000.jsonl").read_text().splitlines()]  # fmt: skip
    pipeline, checkpoint = load_demo_of(model_folder)
    models = Models.of(pipeline, checkpoint)
    data = open_matching(real / "table.tsv", real, Asked(size=128))
    latent = encode_pixels(models.plain, data[0].images[:1])
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))[1]
    kept = models.plain.scheduler.alphas_cumprod[500]
    noisy = kept.sqrt() * latent + (1 - kept).sqrt() * noise
    text, outputs = data[0].captions[1], []
    hook = models.tuned.unet.up_blocks[2].register_forward_hook(lambda *each: outputs.append(each))
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


def test_discrimination_needs_something_to_ask(model_folder, real, tmp_path):
    said = invoke("evaluate", "discrimination", model_folder, tmp_path, "--adapter",
                  model_folder / CHECKPOINT, "--images", real, code=2)  # fmt: skip
    assert "nothing to evaluate" in said
