"""DPT_TextEncode's vector `y`, and alignment scores of pictures."""

from __future__ import annotations

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from dpt_pack.nodes.host.encode import encode_prompt
from dpt_pack.nodes.host.measure import measure
from runs import distance
from tiny_models import tiny_adapter, tiny_clip, tiny_model, tiny_text

from nodes import CLIPSetLastLayer, CLIPTextEncode


@pytest.fixture(scope="module")
def clip():
    with torch.inference_mode():
        return tiny_clip()


def vectors(conditioning: list) -> dict[str, torch.Tensor]:
    return conditioning[0][1]["dpt_text"]


def test_conditioning_is_the_hosts_own(clip):
    ours, host = (
        encode_prompt(clip, "a (red:1.3) cube"),
        CLIPTextEncode().encode(clip, "a (red:1.3) cube")[0],
    )
    assert torch.equal(ours[0][0], host[0][0])
    assert torch.equal(ours[0][1]["pooled_output"], host[0][1]["pooled_output"])
    assert set(ours[0][1]) == {*host[0][1], "dpt_text"}


def test_vector_is_the_hidden_state_at_the_end_of_text(clip):
    encoded = encode_prompt(clip, "a red cube")
    assert torch.equal(vectors(encoded)["eos_hidden"], encoded[0][0][:, 4])  # start, 3 words, end
    torch.testing.assert_close(vectors(encoded)["pooled"], vectors(encoded)["eos_hidden"])


def test_weights_and_clip_skip_never_enter_the_vector(clip):
    plain = vectors(encode_prompt(clip, "a red cube"))
    weighted = vectors(encode_prompt(clip, "a (red:1.7) cube"))
    skipped = vectors(encode_prompt(CLIPSetLastLayer().set_last_layer(clip, -2)[0], "a red cube"))
    for other in (weighted, skipped):
        torch.testing.assert_close(other["eos_hidden"], plain["eos_hidden"])
        torch.testing.assert_close(other["pooled"], plain["pooled"])
    shaped = encode_prompt(clip, "a (red:1.7) cube")[0][0]
    assert not torch.allclose(shaped, encode_prompt(clip, "a red cube")[0][0])


def test_long_and_empty_prompts(clip):
    long = "red cube " * 60
    assert encode_prompt(clip, long)[0][0].shape[1] == 2 * 77
    assert vectors(encode_prompt(clip, long))["eos_hidden"].isfinite().all()
    assert vectors(encode_prompt(clip, ""))["eos_hidden"].shape == (1, 64)


def test_no_clip():
    with pytest.raises(ValueError, match="clip is missing"):
        encode_prompt(None, "a red cube")


def test_scores_do_not_depend_on_company():
    """A picture scores the same alone and in a batch, and the same twice."""
    model, adapter = tiny_model("sd15"), tiny_adapter()
    latent = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    together = measure(model, adapter, latent, tiny_text(1), 500, 3, 5)
    alone = [measure(model, adapter, latent[i : i + 1], tiny_text(1), 500, 3, 5) for i in range(3)]
    assert together.shape == (3, 3)
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-5, rtol=0)
    assert torch.equal(together, measure(model, adapter, latent, tiny_text(1), 500, 3, 5))
    assert not torch.equal(together, measure(model, adapter, latent, tiny_text(1), 500, 3, 6))
    assert distance(measure(model, adapter, latent, tiny_text(2), 500, 3, 5), together) > 0.01
    assert distance(measure(model, adapter, latent, tiny_text(1), 100, 3, 5), together) > 0.01


def test_scoring_stops_at_the_tap():
    """Nothing above the tap runs, and the sampler's model is left as it was."""
    model, adapter = tiny_model("sd15"), tiny_adapter()
    reached = []
    hook = model.model.diffusion_model.out.register_forward_hook(lambda *args: reached.append(1))
    measure(model, adapter, torch.zeros(1, 4, 16, 16), tiny_text(1), 500, 2, 0)
    hook.remove()
    assert not reached
    assert not model.wrappers.get(WrappersMP.APPLY_MODEL)


def test_draws_share_passes_where_they_fit(monkeypatch):
    """All draws in one pass, and one pass a draw where memory is short, give the same scores."""
    model, adapter = tiny_model("sd15"), tiny_adapter()
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    texts, passes = tiny_text(1, batch=2), []
    model.add_wrapper(
        WrappersMP.APPLY_MODEL,
        lambda executor, x, *args, **kwargs: passes.append(len(x)) or executor(x, *args, **kwargs),
    )
    together = measure(model, adapter, latent, texts, 500, 3, 0)
    assert passes == [6]
    monkeypatch.setattr("dpt_pack.nodes.host.read_once._draws_that_fit", lambda *args: 1)
    apart = measure(model, adapter, latent, texts, 500, 3, 0)
    assert passes == [6, 2, 2, 2]
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-5)
