"""Probing and tuning: what is trained, and from the command line on a model directory."""

from __future__ import annotations

import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from benchmark_runs import invoke
from PIL import Image

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.checkpoint import load_checkpoint
from dpt_core.demo import model
from dpt_core.demo.datasets import ShapesDenoising, ShapesGrounding, ShapesMatching
from dpt_core.demo.denoiser import DenoiserTask, leaning, logit_normal
from dpt_core.lora import lora_updates
from dpt_core.shapes.caption import phrase
from dpt_core.shapes.pairs import scene_pair
from dpt_core.shapes.scene import CANVAS, render
from dpt_core.training.backbone import Backbone, PhraseEncoder
from dpt_core.training.discrimination import (
    CachedFeatures,
    DiscriminationTask,
    Examples,
    Pairs,
    ProbingTask,
    collate,
    collate_cached,
)
from dpt_core.training.lora import add_lora, lora_of

LATENTS = torch.randn(4, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def parts() -> dict:
    torch.manual_seed(0)
    tokenizer = model.load_tokenizer()
    return {
        "unet": model.new_unet(),
        "vae": model.new_vae(),
        "text_encoder": model.new_text_encoder(tokenizer),
        "tokenizer": tokenizer,
    }


@pytest.fixture
def backbone(parts) -> Backbone:
    return Backbone.of(model.pipeline(SimpleNamespace(**parts)))


def trained(task: torch.nn.Module) -> set[str]:
    return {name for name, value in task.named_parameters() if value.grad is not None}


def batch(size: int = 2):
    data = Pairs(ShapesMatching(LATENTS), ShapesGrounding(LATENTS))
    return collate([data[index] for index in range(size)])


def test_probing_trains_the_adapter_alone(backbone):
    adapter = DiscriminativeAdapter(model.ADAPTER)
    phrases = PhraseEncoder(backbone.tokenizer, backbone.text_encoder)
    task = DiscriminationTask(backbone, adapter, phrases, latents=True)
    losses = task(batch())
    assert {"ce", "bbox", "giou", "contrastive_align", "contrastive_i2t", "contrastive_t2i"} < set(
        losses
    )
    assert "mse" not in losses
    losses["total"].backward()
    names = {name for name, value in task.named_parameters() if value.requires_grad}
    assert trained(task) == names
    assert all(name.startswith("adapter.") for name in names)


def test_tuning_trains_adapter_and_lora(parts, backbone):
    backbone = backbone.with_network(deepcopy(backbone.network))
    add_lora(backbone.network)
    task = DiscriminationTask(
        backbone, DiscriminativeAdapter(model.ADAPTER), denoise=True, latents=True
    )
    losses = task(batch())
    assert losses["mse"] > 0 and "contrastive_align" not in losses
    losses["total"].backward()
    assert {name.split(".")[0] for name in trained(task)} == {"adapter", "network"}
    assert trained(task) == {n for n, value in task.named_parameters() if value.requires_grad}
    lora = lora_of(backbone.network)
    updates = dict(lora_updates(lora))
    assert len(updates) == 16 * 8 and all(down.shape[0] == 4 for down, _ in updates.values())


def test_phrase_tokens_are_those_of_the_span(backbone):
    data = ShapesGrounding(LATENTS)
    example = data[0]
    example = example._replace(
        caption="there is " + example.caption,
        spans=tuple((((9, 9 + len(example.caption)),)) for _ in example.boxes),
    )
    phrases, named = PhraseEncoder(backbone.tokenizer, backbone.text_encoder)([example])
    tokens = torch.tensor(backbone.tokenizer([example.caption]).input_ids[0])
    words = [backbone.tokenizer.decode([t]).strip() for t in tokens[named[0][0]]]
    assert "".join(words) == example.caption[9:].replace(" ", "")
    assert phrases.hidden.shape[:2] == (1, len(tokens))


def test_denoiser_sees_wrong_and_dropped_captions(backbone, monkeypatch):
    seen: list[str] = []
    encode = backbone.pipeline.encode_prompt

    def read(texts, **more):
        seen.extend(texts)
        return encode(texts, **more)

    monkeypatch.setattr(backbone.pipeline, "encode_prompt", read)
    task = DenoiserTask(backbone, leaning(1.6), wrong=0.3, dropped=0.1)
    examples = [ShapesDenoising(LATENTS)[index] for index in range(8)]
    torch.manual_seed(0)
    for _ in range(5):
        task(examples)
    true = {example.caption for example in examples}
    wrong = {example.wrong for example in examples} - true
    counts = [sum(text in kind for text in seen) for kind in (true, wrong, {""})]
    assert sum(counts) == 40 and counts[0] > 15 and counts[2] > 0


def test_noise_levels_of_the_denoisers():
    torch.manual_seed(0)
    even, high, flow = leaning(1.0)(4000), leaning(1.6)(4000), logit_normal(0.4, 1.1)(4000)
    for levels in (even, high, flow):
        assert levels.shape == (4000,) and 0 <= levels.min() and levels.max() < 1000
    assert abs(even.float().mean() - 500) < 20
    assert abs(high.float().mean() - 1000 * 1.6 / 2.6) < 20
    assert abs((flow / 1000).logit().mean() - 0.4) < 0.06
    assert abs((flow / 1000).logit().std() - 1.1) < 0.06


@pytest.fixture
def data_folder(tmp_path):
    rows = []
    for index in range(4):
        pair = scene_pair(9, index)
        Image.fromarray(render(pair.scene)).save(tmp_path / f"{index}.png")
        mention, thing = pair.caption.mentions[0], pair.scene[0]
        words = phrase(mention)
        x, y, w, h = (value * CANVAS for value in thing.box)
        rows.append(
            {
                "image": f"{index}.png", "caption": f"{words} in a picture",
                "negative": pair.wrong_text,
                "boxes": [{"phrase": words, "box": [x - w / 2, y - h / 2, w, h]}],
            }
        )  # fmt: skip
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_command_line(parts, data_folder, tmp_path):
    from types import SimpleNamespace

    model.pipeline(SimpleNamespace(**parts)).save_pretrained(tmp_path / "model")
    table = str(data_folder / "data.jsonl")
    common = [
        "--matching", table, "--grounding", table, "--images", str(data_folder), "--size", "128",
        "--steps", "2", "--batch-size", "2", "--device", "cpu",
    ]  # fmt: skip
    probing = [
        "train",
        "probing",
        str(tmp_path / "model"),
        *common,
        "--output",
        str(tmp_path / "one"),
    ]
    probing += ["--latents", str(tmp_path / "latents")]
    invoke(*probing)
    probed = tmp_path / "one" / "adapter.safetensors"
    assert load_checkpoint(probed).lora == {}
    assert (tmp_path / "one" / "previews" / "0000002.png").exists()
    tuning = ["train", "tuning", str(tmp_path / "model"), str(probed), *common, "--accumulate", "1"]
    invoke(*tuning, "--output", tmp_path / "two")
    assert len(load_checkpoint(tmp_path / "two" / "dpt.safetensors").lora) == 256
    alone = ["--freeze-adapter", "--feed-forward", "--rank", "2", "--output", tmp_path / "three"]
    invoke(*tuning, *alone)
    kept, made = load_checkpoint(probed), load_checkpoint(tmp_path / "three" / "dpt.safetensors")
    before, after = kept.adapter.state_dict(), made.adapter.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    layers = dict(lora_updates(made.lora))
    assert all(down.shape[0] == 2 for down, _ in layers.values())
    assert any(name.endswith("ff.net.2") for name in layers)
    assert any(up.any() for _, up in layers.values())
    wrong = invoke(*probing[:-4], "--output", tmp_path / "x", "--tap", "up9", code=2)
    assert "tap must be one of" in wrong
    (data_folder / "3.png").unlink()  # only its line names it: without a check, hours would pass
    assert "data.jsonl:4" in invoke(*probing[:-4], "--output", tmp_path / "x", code=2)


def test_random_third_is_another_scene():
    for index in range(4):
        example = ShapesMatching(LATENTS)[index]
        pair = scene_pair(0, index)
        assert example.captions[:2] == (pair.text, pair.wrong_text)
        assert not torch.equal(example.images[2], example.images[0])
        own, wrong, faulty = LATENTS[index]
        torch.testing.assert_close(example.images[[0, 1, 3]], torch.stack((own, wrong, faulty)))


def test_a_picture_with_a_fault_is_read_with_its_own_text(backbone):
    adapter = DiscriminativeAdapter(model.ADAPTER)
    task = DiscriminationTask(backbone, adapter, latents=True)
    matching, grounding = batch()
    alike = [each._replace(images=each.images[[0, 0, 0, 0]]) for each in matching]
    features = task.read(Examples(alike, grounding))[0].features
    own, hard_text, random_text, *wrong_images = features[:6]
    for each in wrong_images:  # the same picture with the same text, whatever it is called
        torch.testing.assert_close(each, own)
    assert not torch.allclose(hard_text, own) and not torch.allclose(random_text, own)


def test_probing_on_kept_features_is_probing(backbone):
    """Features that were computed before give the losses of passes that are made now."""
    adapter = DiscriminativeAdapter(model.ADAPTER)
    phrases = PhraseEncoder(backbone.tokenizer, backbone.text_encoder)
    examples = batch(3)
    task = DiscriminationTask(backbone, adapter, phrases, latents=True)
    torch.manual_seed(1)
    fresh = task(examples)
    torch.manual_seed(1)
    features, timesteps, texts, grounding = task.read(examples)[0]
    kept = {"features": features.transpose(0, 1), "timesteps": timesteps, "texts": texts}
    data = CachedFeatures(kept, grounding)
    assert len(data) == 3
    later = ProbingTask(adapter, phrases)(collate_cached([data[index] for index in range(3)]))
    assert later.keys() == fresh.keys()
    for name, value in fresh.items():
        torch.testing.assert_close(later[name], value)
