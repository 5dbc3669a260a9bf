"""DPT_SelectBest: batches and lists, latents and what belongs to them, and nothing good enough."""

from __future__ import annotations

import logging
import math
import re
from types import SimpleNamespace

import comfy.sample
import pytest
import torch
from comfy_execution.graph import ExecutionBlocker
from dpt_pack.dpt_core.compare import THEMES
from dpt_pack.nodes.select_best import KEEP, STOP, SelectBest
from PIL import Image, ImageColor
from runs import sample
from safetensors.torch import load_file
from test_server import SAMPLING, node
from tiny_models import tiny_model

from nodes import LatentFromBatch

Node = type("Node", (SelectBest,), {"hidden": SimpleNamespace(unique_id="1")})
"""The node with the hidden inputs that the host's executor sets."""

SCORES = [0.1, 0.5, 0.3, 0.5]


def pictures(*values: float, height: int = 8, width: int = 8) -> torch.Tensor:
    """A batch of grey pictures."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, height, width, 3).clone()


def greys(images: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in images[:, 0, 0, 0]]


def run(images, scores=SCORES, count=2, minimum=-1.0, if_none_pass=KEEP, latent=None):
    """Run the node on lists, as the host calls it."""
    extra = {} if latent is None else {"latent": latent}
    return Node.execute(images, scores, [count], [minimum], [if_none_pass], **extra).result[:4]


def latents(count: int = 4, **extra) -> dict:
    generator = torch.Generator().manual_seed(1)
    return {"samples": torch.randn(count, 4, 8, 8, generator=generator), **extra}


def test_the_best_of_a_batch_best_first():
    (images,), _, indices, scores = run([pictures(0.0, 0.1, 0.2, 0.3)], count=3)
    assert greys(images) == [0.1, 0.3, 0.2]  # of equals, the earlier one
    assert indices == [1, 3, 2] and scores == [0.5, 0.5, 0.3]


@pytest.mark.parametrize(("minimum", "kept"), [(-1.0, 2), (0.9, 0)])
def test_all_are_shown_marked(minimum, kept):
    """The best first; those that are kept have a green frame, the others a red one."""
    batch = pictures(0.5, 0.6, 0.7, 0.8)
    *_, sheet = Node.execute([batch], SCORES, [2], [minimum], [STOP]).result
    colours = [THEMES["dark"].right, THEMES["dark"].wrong]
    frames = [
        sheet[0].mul(255).round().eq(torch.tensor(ImageColor.getrgb(colour))).all(-1).sum()
        for colour in colours
    ]
    share = float(frames[0] / sum(frames))
    assert share == 0 if kept == 0 else 0.4 < share < 0.65
    middle = sheet[0, sheet.shape[1] // 2, :, 0].tolist()
    shown = [round(value, 1) for value in middle]
    places = [shown.index(grey) for grey in (0.6, 0.8, 0.7, 0.5)]
    assert places == sorted(places)


@pytest.mark.parametrize("parts", [(1, 1, 1, 1), (2, 2), (1, 3)])
def test_lists_are_one_choice(parts):
    batch = pictures(0.0, 0.1, 0.2, 0.3)
    whole, split = latents(), list(latents()["samples"].split(parts))
    (images,), (kept,), indices, _ = run(
        list(batch.split(parts)), latent=[{"samples": part} for part in split]
    )
    assert greys(images) == [0.1, 0.3] and indices == [1, 3]
    assert torch.equal(kept["samples"], whole["samples"][[1, 3]])


def test_scores_in_a_list_of_their_own():
    """As packs give them that know no output lists."""
    assert run([pictures(0.0, 0.1, 0.2, 0.3)], [SCORES])[2] == [1, 3]
    assert run([pictures(0.0, 0.1)], [torch.tensor(0.2), 1])[2] == [1, 0]


def test_pictures_of_different_sizes_stay_a_list():
    wide = pictures(0.2, 0.3, width=16)
    wide_latent = {"samples": torch.zeros(2, 4, 8, 16)}
    images, kept, indices, _ = run(
        [pictures(0.0, 0.1), wide], count=3, latent=[latents(2), wide_latent]
    )
    assert [greys(each) for each in images] == [[0.1], [0.3], [0.2]]
    assert [each["samples"].shape[-1] for each in kept] == [8, 16, 16]
    assert indices == [1, 3, 2]


def test_ties_never_move():
    images = pictures(*[index / 100 for index in range(50)])
    for _ in range(3):
        assert run([images], [0.25] * 50, count=50)[2] == list(range(50))


def test_minimum_and_count():
    images = [pictures(0.0, 0.1, 0.2, 0.3)]
    assert run(images, count=9, minimum=0.3)[2] == [1, 3, 2]
    assert run(images, count=9)[2] == [1, 3, 2, 0]
    assert run(images, [0.1, math.nan, 0.3, math.nan], count=9)[2] == [2, 0]


def test_none_passes_the_best_is_kept_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        (images,), _, indices, scores = run([pictures(0.0, 0.1, 0.2, 0.3)], minimum=0.9)
    assert greys(images) == [0.1] and indices == [1] and scores == [0.5]
    assert "no picture reaches 0.9; the best scores 0.5000" in caplog.text


def test_none_passes_a_clean_stop():
    outputs = run(
        [pictures(0.0, 0.1, 0.2, 0.3)], minimum=0.9, if_none_pass=STOP, latent=[latents()]
    )
    assert len(outputs) == 4
    assert all(isinstance(output, ExecutionBlocker) and not output.message for output in outputs)
    assert run([pictures(0.0, 0.1, 0.2, 0.3)], minimum=0.5, if_none_pass=STOP)[2] == [1, 3]


@pytest.mark.parametrize("masks", [None, 1, 2, 4])
@pytest.mark.parametrize("places", [None, [7, 3, 9, 2]])
def test_latents_come_as_the_host_would_pick_them(masks, places):
    extra = {"type": "picture"}
    if masks:
        mask = torch.rand(masks, 1, 64, 64, generator=torch.Generator().manual_seed(2))
        extra["noise_mask"] = mask
    if places:
        extra["batch_index"] = places
    latent = latents(**extra)
    before = {key: value.clone() if torch.is_tensor(value) else value for key, value in
              latent.items()}  # fmt: skip
    (kept,) = run([pictures(0.0, 0.1, 0.2, 0.3)], latent=[latent])[1]
    picked = [LatentFromBatch().frombatch(latent, index, 1)[0] for index in (1, 3)]
    assert torch.equal(kept["samples"], torch.cat([each["samples"] for each in picked]))
    assert kept["batch_index"] == [each["batch_index"][0] for each in picked]
    assert kept["type"] == "picture"
    if masks:
        assert torch.equal(kept["noise_mask"], torch.cat([each["noise_mask"] for each in picked]))
    else:
        assert "noise_mask" not in kept
    assert latent.keys() == before.keys()
    assert torch.equal(latent["samples"], before["samples"])


def test_a_list_with_and_without_masks():
    masked = {**latents(2), "noise_mask": torch.zeros(1, 1, 64, 64)}
    (kept,) = run([pictures(0.0, 0.1, 0.2, 0.3)], latent=[masked, latents(2)])[1]
    assert kept["noise_mask"].mean((1, 2, 3)).tolist() == [0, 1]  # no mask: all is redrawn
    assert kept["batch_index"] == [1, 1]  # each has its place in its own batch's noise
    larger = {**latents(2), "noise_mask": torch.zeros(1, 1, 8, 8)}
    assert len(run([pictures(0.0, 0.1, 0.2, 0.3)], latent=[masked, larger])[1]) == 2


def test_kept_latents_sample_as_they_would_have():
    """Their noise stays theirs: a second pass with the same seed makes the same pictures."""
    model, whole = tiny_model("sd15"), latents()
    (kept,) = run([pictures(0.0, 0.1, 0.2, 0.3)], latent=[whole])[1]
    noise = comfy.sample.prepare_noise(whole["samples"], 7)
    picked = comfy.sample.prepare_noise(kept["samples"], 7, kept["batch_index"])
    assert torch.equal(picked, noise[[1, 3]])
    expected = sample(model, latent=whole, steps=2)[[1, 3]]
    torch.testing.assert_close(sample(model, latent=kept, steps=2), expected, atol=1e-3, rtol=1e-3)


def test_no_latent_wired():
    (blocker,) = run([pictures(0.0, 0.1, 0.2, 0.3)])[1]
    assert isinstance(blocker, ExecutionBlocker) and "wire one" in blocker.message
    assert isinstance(run([pictures(0.0, 0.1, 0.2, 0.3)], latent=[None])[1][0], ExecutionBlocker)


def test_numbers_that_do_not_fit():
    images = [pictures(0.0, 0.1, 0.2, 0.3)]
    with pytest.raises(ValueError, match="score per picture; got 1 for 4.*not its mean"):
        run(images, [0.3])
    with pytest.raises(ValueError, match="latent per picture; got 2 for 4"):
        run(images, latent=[latents(2)])
    with pytest.raises(ValueError, match="no images"):
        run([], [])
    for wrong in (None, "good"):
        with pytest.raises(ValueError, match=f"scores must be numbers; got {wrong!r} among them"):
            run(images, [0.1, wrong, 0.3, 0.2])
    with pytest.raises(ValueError, match="batch_index must have a place for each of its 4.*got 2"):
        run(images, latent=[latents(4, batch_index=[0, 1])])
    with pytest.raises(ValueError, match="noise_mask must have a mask; got none"):
        run(images, latent=[latents(4, noise_mask=torch.zeros(0, 1, 64, 64))])


def chain(size: int = 128, **choosing) -> dict:
    """Draw four, score them, keep the best two: pictures, latent, indices and scores."""
    text = {"clip": ["model", 1], "text": "a red cube"}
    choosing = {"count": 2, "minimum": -1.0, "if_none_pass": KEEP, **choosing}
    return {
        "model": node("Tiny_Model", family="sd15"),
        "adapter": node("DPT_LoadAdapter", adapter_name="tiny.safetensors"),
        "text": node("DPT_TextEncode", **text),
        "empty": node("EmptyLatentImage", width=size, height=size, batch_size=4),
        "sampler": node(
            "KSampler", **{**SAMPLING, "steps": 2}, model=["model", 0], positive=["text", 0],
            negative=["text", 0], latent_image=["empty", 0],
        ),
        "images": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "score": node(
            "DPT_AlignmentScore", model=["model", 0], adapter=["adapter", 0], vae=["model", 2],
            images=["images", 0], positive=["text", 0], timestep=500, draws=1, seed=1,
        ),
        "best": node(
            "DPT_SelectBest", images=["images", 0], scores=["score", 1], latent=["sampler", 0],
            **choosing,
        ),
        "save all": node("SaveImage", images=["images", 0], filename_prefix="all"),
        "save": node("SaveImage", images=["best", 0], filename_prefix="best"),
        "latent": node("SaveLatent", samples=["best", 1], filename_prefix="best"),
        "all latents": node("SaveLatent", samples=["sampler", 0], filename_prefix="all"),
        "text of scores": node("PreviewAny", source=["score", 2]),
    }  # fmt: skip


def saved(server, outcome, name: str) -> list[bytes]:
    items = outcome.outputs[name]["images"]
    return [Image.open(server.output(item)).convert("RGB").tobytes() for item in items]


def tensor(server, outcome, name: str) -> torch.Tensor:
    (item,) = outcome.outputs[name]["latents"]
    return load_file(server.output(item))["latent_tensor"]


def ranking(outcome) -> list[int]:
    (text,) = outcome.outputs["text of scores"]["text"]
    scores = [float(value) for value in re.findall(r"image \d+: (\S+)", text)]
    return sorted(range(len(scores)), key=lambda index: -scores[index])


@pytest.mark.parametrize("lists", [False, True], ids=["batch", "lists"])
def test_in_a_running_comfyui(server, lists):
    nodes = chain()
    if lists:  # one picture and one latent at a time, scored one by one
        nodes["one by one"] = node("RebatchImages", images=["images", 0], batch_size=1)
        nodes["latents"] = node("RebatchLatents", latents=["sampler", 0], batch_size=1)
        nodes["score"]["inputs"]["images"] = ["one by one", 0]
        nodes["best"]["inputs"] |= {"images": ["one by one", 0], "latent": ["latents", 0]}
    outcome = server.run(nodes)
    assert outcome.error is None, outcome.error
    every, best = saved(server, outcome, "save all"), saved(server, outcome, "save")
    assert len(every) == 4 and len(best) == 2
    places = [every.index(picture) for picture in best]
    if not lists:
        assert places == ranking(outcome)[:2]
    latent = tensor(server, outcome, "latent")
    assert torch.equal(latent, tensor(server, outcome, "all latents")[places])
    again = server.run(nodes)
    assert saved(server, again, "save") == best


@pytest.mark.parametrize("choice", [KEEP, STOP])
def test_none_passes_in_a_running_comfyui(server, choice):
    outcome = server.run(chain(minimum=2.0, if_none_pass=choice))
    assert outcome.error is None, outcome.error
    assert len(saved(server, outcome, "save all")) == 4  # other branches run on
    if choice == KEEP:
        assert len(saved(server, outcome, "save")) == 1
    else:
        assert "save" not in outcome.outputs and "latent" not in outcome.outputs
    assert any("no picture reaches 2" in text for text in outcome.texts)
