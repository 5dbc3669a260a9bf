"""The demo's transformer: its pipeline, and an adapter that starts from the UNet's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from demo_files import write_random_demo

from dpt_core.adapter import DiscriminativeAdapter
from dpt_core.demo import model, transformer
from dpt_core.demo.architectures import DIT
from dpt_core.demo.load import load_demo
from dpt_core.demo.making import make_demo
from dpt_core.demo.transfer import Pictures, transferred
from dpt_core.training.backbone import Backbone

PROMPTS = ["a red circle", "two blue squares left of a green triangle"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_random_demo(folder)
    return load_demo(folder, DIT)


def test_a_prompt_is_drawn_like_its_embeddings(demo):
    def drawn(**text):
        generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        return demo.pipeline(
            **text, num_inference_steps=2, generator=generators, output_type="pt"
        ).images

    context, empty, pooled, empty_pooled = demo.pipeline.encode_prompt(PROMPTS)
    assert context.shape == empty.shape == (2, transformer.TOKENS, model.TEXT_WIDTH)
    assert pooled.shape == (2, model.TEXT_WIDTH)
    found = drawn(prompt=PROMPTS)
    assert found.shape == (2, 3, 128, 128)
    again = drawn(
        prompt_embeds=context, negative_prompt_embeds=empty,
        pooled_prompt_embeds=pooled, negative_pooled_prompt_embeds=empty_pooled,
    )  # fmt: skip
    assert torch.equal(found, again)
    assert not torch.equal(found, drawn(prompt=PROMPTS, negative_prompt=PROMPTS[::-1]))


def test_every_caption_of_the_world_fits():
    from dpt_core.shapes.pairs import scene_pair

    pairs = [scene_pair(11, index) for index in range(500)]
    texts = [text for pair in pairs for text in (pair.text, pair.wrong_text)]
    lengths = [len(ids) for ids in model.load_tokenizer()(texts).input_ids]
    assert max(lengths) <= transformer.TOKENS


def test_it_starts_as_the_identity():
    network = transformer.start(transformer.new_transformer())
    predicted = network(
        torch.randn(1, 4, 16, 16), torch.randn(1, 24, 128), torch.randn(1, 128), torch.tensor([500])
    ).sample
    assert not predicted.any()


def test_noise_is_the_same_share_for_both_networks(demo):
    backbone, unet = Backbone.of(demo.pipeline), Backbone.of(load_demo().pipeline)
    latents = torch.randn(4, 4, 16, 16)
    pictures = Pictures(latents, PROMPTS * 2, seed=1)
    seen = []
    for each in (backbone, unet):
        calls = []
        hook = each.network.register_forward_pre_hook(
            lambda network, given, named, calls=calls: calls.append((given, named)),
            with_kwargs=True,
        )
        pictures.features(each, next(iter(each.model.taps())))
        hook.remove()
        call = each.model.call(*calls[0])
        alpha, scale = each.model.path.weights(call.sigmas())
        seen.append(call.x / (alpha + scale).view(-1, 1, 1, 1))
    torch.testing.assert_close(*seen, atol=0.02, rtol=0, check_dtype=False)


def test_a_linear_map_of_the_features_is_found():
    """Features that are a linear map of the old ones give the old adapter's answers."""
    torch.manual_seed(0)
    config = replace(model.ADAPTER, in_channels=8)
    adapter = DiscriminativeAdapter(config).eval()
    old, times = torch.randn(64, 8, 8, 8), torch.randint(0, 1000, (64,))
    mix = torch.linalg.qr(torch.randn(32, 32))[0]
    patches = torch.nn.functional.pixel_unshuffle(old, 2)  # [64, 32, 4, 4]
    new = torch.einsum("dc,bchw->bdhw", mix, patches)
    made, right = transferred(adapter, replace(config, in_channels=32, patch=1), old, new)
    assert right > 0.99
    made.eval()
    with torch.no_grad():
        expected, found = adapter.match(old, times), made.match(new, times)
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_a_folder_of_the_other_architecture_is_refused(tmp_path):
    (tmp_path / "transformer").mkdir()
    with pytest.raises(ValueError, match="another architecture .transformer.: take another folder"):
        make_demo(tmp_path)
    with pytest.raises(ValueError, match="the architectures are unet, dit; got 'rnn'"):
        make_demo(tmp_path, architecture="rnn")
    with pytest.raises(ValueError, match="the architectures are unet, dit; got 'rnn'"):
        load_demo(tmp_path, "rnn")
