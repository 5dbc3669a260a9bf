"""DPT_GroundPhrase: recorded boxes, pictures of every size, and the host's own nodes after it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import comfy.model_management as management
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from dpt_pack.dpt_core.grounding import ground
from dpt_pack.nodes.ground_phrase import GroundPhrase
from dpt_pack.nodes.host import grounding
from dpt_pack.nodes.host.adapter import load_adapter, managed
from dpt_pack.nodes.host.grounding import find_boxes
from PIL import Image
from runs import call
from test_server import node, prompt
from tiny_models import golden_model, tiny_adapter, tiny_model, tiny_text, tiny_vae
from torchvision.ops import clip_boxes_to_image

from nodes import NODE_CLASS_MAPPINGS, ConditioningSetAreaPercentage, SetLatentNoiseMask

Node = type("Node", (GroundPhrase,), {"hidden": SimpleNamespace(unique_id="1")})
"""The node with the hidden inputs that the host's executor sets."""

BOX = (0.25, 0.5, 0.3, 0.4)
SCORE = 0.8


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        return tiny_model("sd15")


@pytest.fixture(scope="module")
def vae():
    with torch.inference_mode():
        return tiny_vae()


def knowing(*boxes: tuple[float, ...], score: float = SCORE):
    """An adapter that finds the same boxes (cx, cy, w, h) everywhere and nothing else."""
    loaded = tiny_adapter()
    adapter, rest = loaded.checkpoint.adapter, loaded.config.grounding_queries - len(boxes)
    sure = [score / (1 - score)] * len(boxes) + [1e-9] * rest
    adapter.bbox_embed = Answer(torch.tensor([*boxes, *[(0.5, 0.5, 0.1, 0.1)] * rest]).logit())
    adapter.class_embed = Answer(torch.tensor([sure, [1.0] * len(sure)]).log().T)
    return managed("knowing.safetensors", replace(loaded.checkpoint, adapter=adapter))


class Answer(torch.nn.Module):
    """The same answers `[Q, n]` for whatever queries `[B, Q, width]` come."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("answers", answers)

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        return self.answers.expand(len(queries), -1, -1)


def pictures(batch: int = 1, height: int = 64, width: int = 64, channels: int = 3):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, height, width, channels, generator=generator)


def run(
    model, adapter, vae, images, phrase=None, threshold=0.5, max_boxes=10, timestep=500, seed=0
):
    inputs = {"threshold": threshold, "max_boxes": max_boxes, "timestep": timestep, "seed": seed}
    phrase = phrase or tiny_text(1)
    return Node.execute(model, adapter, vae, images, phrase, **inputs).result


def corners(boxes: list[dict]) -> torch.Tensor:
    rows = [(b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"]) for b in boxes]
    return torch.tensor(rows).view(-1, 4)


def test_recorded_boxes(stack, close):
    """Boxes and confidences of the published code, through VAE latents that become its own."""
    adapter, model = load_adapter(str(stack.checkpoint)), golden_model(stack)
    recorded, sampling = stack.load("cases"), model.get_model_object("model_sampling")
    names = sorted(key.split(".")[0] for key in recorded if key.endswith(".pred_logits"))
    for name in names:
        z, timesteps = recorded[f"{name}.latent"], recorded[f"{name}.timestep"].tolist()
        size = (8 * z.shape[2] + 3, 8 * z.shape[3] - 2)
        expected = ground(
            recorded[f"{name}.pred_logits"],
            recorded[f"{name}.pred_boxes"],
            torch.tensor([size] * len(z)),
        )
        for row, timestep in enumerate(timesteps):
            sigma = sampling.sigma(torch.tensor([timestep])).view(1, 1, 1, 1)
            noise = torch.randn(z[:1].shape, generator=torch.Generator().manual_seed(9))
            latent = z[row : row + 1] * (sigma**2 + 1).sqrt() - sigma * noise
            latent = model.model.latent_format.process_out(latent)
            vae = SimpleNamespace(encode=lambda x: latent, spacial_compression_encode=lambda: 8)  # noqa: B023
            phrase = [[stack.text["cond"][row : row + 1], {}]]
            (found,) = find_boxes(
                model, adapter, vae, torch.zeros(1, *size, 3), phrase, int(timestep), 9
            )
            boxes, scores = expected.boxes[row], expected.scores[row]
            close(found.boxes, clip_boxes_to_image(boxes, size))
            close(found.scores, scores)
            check_node(model, adapter, vae, size, phrase, timestep, boxes, scores)
    assert names


def check_node(model, adapter, vae, size, phrase, timestep, boxes, scores):
    """Every box the node gives is a recorded one; the first is the surest."""
    threshold = float(scores.median())
    outputs = run(
        model, adapter, vae, torch.zeros(1, *size, 3), phrase, threshold, 5, int(timestep), 9
    )
    given = outputs[0][0]
    assert 1 <= len(given) <= 5
    every = clip_boxes_to_image(boxes, size)
    nearest, which = (corners(given)[:, None] - every).abs().amax(-1).min(1)
    assert nearest.max() <= 1e-4 * max(size)
    torch.testing.assert_close(
        torch.tensor([box["score"] for box in given]), scores[which], atol=1e-4, rtol=0
    )
    assert given[0]["score"] == pytest.approx(float(scores.max()), abs=1e-4)


SIZES = [(64, 64), (100, 60), (61, 131), (20, 30)]


@pytest.mark.parametrize("height, width", SIZES)
def test_pictures_of_any_size(model, vae, height, width):
    images = pictures(2, height, width)
    boxes, mask, annotated, text = run(model, knowing(BOX), vae, images)
    assert len(boxes) == 2 and mask.shape == (2, height, width)
    assert annotated.shape == images.shape and annotated.dtype == torch.float32
    cx, cy, w, h = BOX
    expected = {
        "x": (cx - w / 2) * width, "y": (cy - h / 2) * height, "width": w * width,
        "height": h * height, "score": SCORE,
    }  # fmt: skip
    for (box,) in boxes:
        assert box == pytest.approx(expected, abs=1e-4 * max(height, width))
        assert all(type(value) is float for value in box.values())
    assert mask[1].nonzero()[0].tolist() == [round(expected["y"]), round(expected["x"])]
    assert mask[1].mean() == pytest.approx(w * h, abs=(height + width) / height / width)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert (annotated - images).abs().amax(-1).mean() > 0.01
    assert json.loads(text) == boxes


def test_nothing_found(model, vae):
    images = pictures(2, 64, 48, channels=4)
    boxes, mask, annotated, text = run(model, knowing(BOX), vae, images, threshold=0.9)
    assert boxes == [[], []] and text == "[[], []]"
    assert mask.shape == (2, 64, 48) and not mask.any()
    assert torch.equal(annotated, images[..., :3])


def test_boxes_are_ranked_cut_and_single(model, vae):
    """Doubles go, the picture's edge cuts, the number is kept."""
    over = (0.9, 0.9, 0.4, 0.4)
    adapter = knowing(BOX, over, (0.26, 0.5, 0.3, 0.4))
    ((first, second),) = run(model, adapter, vae, pictures())[0]
    assert first["x"] == pytest.approx(0.1 * 64) and second["x"] == pytest.approx(0.7 * 64)
    assert second["x"] + second["width"] == pytest.approx(64)
    assert len(run(model, adapter, vae, pictures(), max_boxes=1)[0][0]) == 1


def test_boxes_do_not_depend_on_company(model, vae):
    adapter, images = tiny_adapter(), pictures(3)
    together = find_boxes(model, adapter, vae, images, tiny_text(1), 500, 5)
    for index, found in enumerate(together):
        (alone,) = find_boxes(model, adapter, vae, images[index : index + 1], tiny_text(1), 500, 5)
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
    (first, *_), again = together, find_boxes(model, adapter, vae, images, tiny_text(1), 500, 5)
    assert all(torch.equal(one.boxes, two.boxes) for one, two in zip(together, again, strict=True))
    for other in (
        find_boxes(model, adapter, vae, images, tiny_text(2), 500, 5),
        find_boxes(model, adapter, vae, images, tiny_text(1), 500, 6),
        find_boxes(model, adapter, vae, images, tiny_text(1), 100, 5),
    ):
        assert not torch.allclose(other[0].scores, first.scores, atol=1e-6)


def test_the_phrase_is_context_only(vae):
    """A conditioning without DPT's text vector serves, on SD 2.x too; and nothing stays behind."""
    model, adapter = tiny_model("sd21"), tiny_adapter()
    ((hidden, extra),) = tiny_text(1)
    reached = []
    hook = model.model.diffusion_model.out.register_forward_hook(lambda *args: reached.append(1))
    bare = find_boxes(model, adapter, vae, pictures(), [[hidden, {}]], 500, 0)
    full = find_boxes(model, adapter, vae, pictures(), [[hidden, extra]], 500, 0)
    hook.remove()
    assert torch.equal(bare[0].boxes, full[0].boxes)
    assert not reached, "something above the tap ran"
    assert not model.wrappers.get(WrappersMP.APPLY_MODEL)


def test_area_of_a_phrase(model, vae):
    """With an area the phrase is looked for there; several entries find their own."""
    area = {"width": 0.5, "height": 0.5, "x": 0.5, "y": 0.25, "strength": 1.0}
    (phrase,) = ConditioningSetAreaPercentage().append(tiny_text(1), **area)
    ((box,),) = run(model, knowing(BOX), vae, pictures(1, 128, 256), phrase)[0]
    expected = {"x": 128 + 0.1 * 128, "y": 32 + 0.3 * 64, "width": 0.3 * 128, "height": 0.4 * 64}
    assert {key: box[key] for key in expected} == pytest.approx(expected, abs=1e-3)
    both = [*phrase, *tiny_text(2)]
    assert len(run(model, knowing(BOX), vae, pictures(1, 128, 256), both)[0][0]) == 2


def test_phrase_on_the_picture(model, vae):
    """Where a conditioning says its words they are the label, else the box's place is."""
    images = torch.zeros(1, 256, 256, 3)
    plain = run(model, knowing(BOX), vae, images)[2]
    ((hidden, extra),) = tiny_text(1)
    told = [[hidden, {**extra, "dpt_text": {**extra["dpt_text"], "phrase": "a blue square"}}]]
    assert not torch.equal(run(model, knowing(BOX), vae, images, told)[2], plain)


def test_what_does_not_fit(model, vae):
    images, phrase = pictures(), tiny_text(1)
    with pytest.raises(ValueError, match="vae is missing"):
        find_boxes(model, tiny_adapter(), None, images, phrase, 500, 0)
    with pytest.raises(ValueError, match="expects 40 channels"):
        find_boxes(model, tiny_adapter(in_channels=40), vae, images, phrase, 500, 0)
    with pytest.raises(ValueError, match="has no grounding queries"):
        find_boxes(model, tiny_adapter(grounding_queries=0), vae, images, phrase, 500, 0)
    ((hidden, extra),) = phrase
    late = [[hidden, {**extra, "start_percent": 0.9}]]
    with pytest.raises(ValueError, match="no conditioning is active"):
        find_boxes(model, tiny_adapter(), vae, images, late, 900, 0)


def test_interrupted_between_pictures(model, vae, monkeypatch):
    seen = []

    class Progress:
        def __init__(self, total: int) -> None:
            seen.append(total)

        def update(self, value: int) -> None:
            seen.append(value)
            management.interrupt_current_processing()

    monkeypatch.setattr(grounding, "ProgressBar", Progress)
    with pytest.raises(management.InterruptProcessingException):
        find_boxes(model, tiny_adapter(), vae, pictures(3), tiny_text(1), 500, 0)
    assert seen == [3, 1]


def host_node(name: str):
    if name not in NODE_CLASS_MAPPINGS:
        module = {"DrawBBoxes": "nodes_rtdetr", "CropByBBoxes": "nodes_sdpose"}.get(name)
        module = module or "nodes_bounding_boxes"
        return getattr(pytest.importorskip(f"comfy_extras.{module}"), name)
    return NODE_CLASS_MAPPINGS[name]


@pytest.mark.parametrize("threshold", [0.5, 0.9], ids=["found", "nothing"])
def test_into_the_hosts_nodes_that_take_boxes(model, vae, threshold):
    images = torch.zeros(2, 128, 96, 3)
    boxes, mask, _, text = run(model, knowing(BOX), vae, images, threshold=threshold)
    drawn = call(host_node("DrawBBoxes"), bboxes=boxes, image=images)
    assert drawn.shape == images.shape and bool(drawn.any()) == (threshold < 0.9)
    sizes = {"output_width": 64, "output_height": 64, "padding": 0}
    crops = call(host_node("CropByBBoxes"), image=mask[..., None].repeat(1, 1, 1, 3), bboxes=boxes,
                 **sizes)  # fmt: skip
    if threshold < 0.9:
        assert crops.shape == (2, 64, 64, 3)
        assert crops[:, 4:, 4:].mean() > 0.99  # but for a rim: it cuts off what the mask rounds
    created = host_node("CreateBoundingBoxes")
    for given in (boxes, text):
        made = created.execute(width=96, height=128, bboxes=given).result[1]
        assert len(made[0] if made else ()) == (threshold < 0.9)  # it takes one picture's boxes
    (latent,) = SetLatentNoiseMask().set_mask({"samples": torch.zeros(2, 4, 16, 12)}, mask)
    assert latent["noise_mask"].shape == (2, 1, 128, 96)


def test_in_a_running_comfyui(server):
    """Boxes and masks through the host's own nodes, over the API."""
    nodes = {key: prompt()[key] for key in ("model", "positive", "adapter")}
    nodes |= {
        "images": node("EmptyImage", width=100, height=60, batch_size=2, color=255),
        "found": node(
            "DPT_GroundPhrase", model=["model", 0], adapter=["adapter", 0], vae=["model", 2],
            images=["images", 0], phrase=["positive", 0], threshold=0.0, max_boxes=3, timestep=500,
            seed=1,
        ),
        "grown": node("GrowMask", mask=["found", 1], expand=2, tapered_corners=True),
        "mask": node("MaskToImage", mask=["grown", 0]),
        "save mask": node("SaveImage", images=["mask", 0], filename_prefix="mask"),
        "save": node("SaveImage", images=["found", 2], filename_prefix="found"),
        "json": node("PreviewAny", source=["found", 3]),
    }  # fmt: skip
    if "DrawBBoxes" in server.get("object_info"):
        nodes["drawn"] = node("DrawBBoxes", image=["images", 0], bboxes=["found", 0])
        nodes["save drawn"] = node("SaveImage", images=["drawn", 0], filename_prefix="drawn")
    outcome = server.run(nodes)
    assert outcome.error is None, outcome.error
    found = json.loads(outcome.outputs["json"]["text"][0])
    assert len(found) == 2 and all(1 <= len(each) <= 3 for each in found)
    for number in ("save", "save mask", "save drawn"):
        for item in outcome.outputs[number]["images"] if number in nodes else ():
            picture = Image.open(server.output(item))
            assert picture.size == (100, 60) and len(picture.getcolors(10**6)) > 1
    steps = [value for name, value, _ in outcome.progress if name == "found"]
    assert steps[-1] == 2
    assert any("image 2: 3 found" in text or "image 2:" in text for text in outcome.texts)
