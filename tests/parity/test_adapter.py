"""The adapter, its taps and its gradient against the published code, through a diffusers UNet."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dpt_core import alignment_score, correct, load_checkpoint
from dpt_core.backbones.base import BackboneCall, read_features
from dpt_core.backbones.stable_diffusion import StableDiffusion
from dpt_core.config import TAPS
from dpt_core.lora import merge_lora
from dpt_core.positions import sine_position
from dpt_core.score import query_similarities


def reader(unet) -> StableDiffusion:
    return StableDiffusion(SimpleNamespace(unet=unet, scheduler=None))


def cases(recorded: dict[str, torch.Tensor]) -> list[str]:
    return sorted({key.split(".")[0] for key in recorded if key.startswith("case")})


@pytest.fixture(scope="module")
def model(stack):
    return stack.unet(), load_checkpoint(stack.checkpoint)


def features_of(unet, stack, latent, timestep):
    call = BackboneCall(latent, timestep, {"encoder_hidden_states": stack.text["cond"]})
    return read_features(reader(unet), "up1", call)[0]


def check_case(model, stack, recorded, case, close):
    """Matching side of one recorded case: vectors, similarities, score, winner, gradient."""
    unet, checkpoint = model
    latent, timestep = recorded[f"{case}.latent"], recorded[f"{case}.timestep"]
    features = features_of(unet, stack, latent, timestep)
    query_text = checkpoint.adapter.match(features, timestep)
    similarities = query_similarities(query_text, stack.text["pooled_cond"])
    close(query_text, recorded[f"{case}.q_emb"][-1])
    close(similarities, recorded[f"{case}.sims"])
    close(alignment_score(query_text, stack.text["pooled_cond"]), recorded[f"{case}.s"])
    assert torch.equal(similarities.argmax(1), recorded[f"{case}.s_argmax"])

    def score(z: torch.Tensor) -> torch.Tensor:
        query_text = checkpoint.adapter.match(features_of(unet, stack, z, timestep), timestep)
        return alignment_score(query_text, stack.text["pooled_cond"])

    corrected = correct(latent, score, strength=2.0)
    close(corrected.gradient, recorded[f"{case}.grad"])
    close(corrected.score, recorded[f"{case}.s"])
    close(corrected.latent, latent + 2 * recorded[f"{case}.grad"])


def test_scores_and_gradients(model, stack, close):
    recorded = stack.load("cases")
    for case in cases(recorded):
        check_case(model, stack, recorded, case, close)


def test_grounding_queries(model, stack, close):
    unet, checkpoint = model
    recorded = stack.load("cases")
    for case in cases(recorded):
        if f"{case}.pred_logits" not in recorded:
            continue
        timestep = recorded[f"{case}.timestep"]
        features = features_of(unet, stack, recorded[f"{case}.latent"], timestep)
        output = checkpoint.adapter(features, timestep)
        close(output.query_text, recorded[f"{case}.q_emb"][-1])
        close(output.logits, recorded[f"{case}.pred_logits"])
        close(output.boxes, recorded[f"{case}.pred_boxes"])
        projections = torch.nn.functional.normalize(output.projections, dim=-1)
        close(projections, recorded[f"{case}.proj_queries"])


def test_taps_and_predictions(model, stack, close):
    unet, _ = model
    recorded = stack.load("cases")
    for case in cases(recorded):
        latent, timestep = recorded[f"{case}.latent"], recorded[f"{case}.timestep"]
        for tap in TAPS:
            if f"{case}.feat.{tap}" in recorded:
                inputs = {"encoder_hidden_states": stack.text["cond"]}
                call = BackboneCall(latent, timestep, inputs)
                features, predicted = read_features(reader(unet), tap, call, stop=False)
                close(features, recorded[f"{case}.feat.{tap}"])
                close(predicted, recorded[f"{case}.noise_pred"])


def test_position_and_time(model, stack, close):
    _, checkpoint = model
    recorded = stack.load("cases")
    for case in cases(recorded):
        if f"{case}.pos" in recorded:
            position = recorded[f"{case}.pos"]
            close(sine_position(*position.shape[2:], position.shape[1])[None], position)
        embedded = checkpoint.adapter.timestep_embedding(recorded[f"{case}.timestep"])
        close(embedded, recorded[f"{case}.time_emb"])


def test_lora(stack, close):
    unet, checkpoint = stack.unet(), load_checkpoint(stack.checkpoint)
    merge_lora(unet, checkpoint.lora)
    recorded = stack.load("lora_cases")
    inputs = stack.load("cases")
    for case in cases(recorded):
        recorded |= {
            key: value
            for key, value in inputs.items()
            if key in (f"{case}.latent", f"{case}.timestep")
        }
        latent, timestep = recorded[f"{case}.latent"], recorded[f"{case}.timestep"]
        prediction = unet(latent, timestep, stack.text["cond"]).sample
        close(prediction, recorded[f"{case}.noise_pred"])
        check_case((unet, checkpoint), stack, recorded, case, close)
