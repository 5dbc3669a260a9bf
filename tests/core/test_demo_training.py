"""The parts of the demo's base model: tokenizer, meanings, whitening, decoding."""

from __future__ import annotations

import random

import pytest
import torch
from tokenizer_training import train_tokenizer

from dpt_core.demo import model
from dpt_core.demo.autoencoder import picture_error, whiten
from dpt_core.demo.datasets import Crops, PairPictures
from dpt_core.demo.text_encoder import MeaningEncoder, meaning
from dpt_core.shapes.caption import OPPOSITES, Caption, hard_negative, imagine, same


def test_the_shipped_tokenizer_can_be_remade(tmp_path):
    train_tokenizer(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (model.TOKENIZER / name).read_text()


def test_tokenizer_reads_anything():
    tokenizer = model.load_tokenizer()
    assert tokenizer.tokenize("a red circle") == ["a</w>", "red</w>", "circle</w>"]
    ids = tokenizer("Żółw, 図形 ☃!", padding="max_length").input_ids
    assert len(ids) == 77 and ids[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in ids[1 : ids.index(tokenizer.eos_token_id)]


def test_meanings_differ_where_captions_do():
    torch.manual_seed(0)
    encoder, rng = MeaningEncoder(16), random.Random(0)
    for _ in range(100):
        caption = imagine(rng)
        other = hard_negative(caption, rng)
        turned = caption
        if caption.relation:
            turned = Caption(caption.mentions[::-1], OPPOSITES[caption.relation])
        one, same_again, wrong = encoder(meaning([caption, turned, other]))
        torch.testing.assert_close(one, same_again)
        assert not same(caption, other)
        assert not torch.allclose(one, wrong, atol=1e-5)


def test_whitening_changes_latents_and_no_picture():
    torch.manual_seed(0)
    vae = model.new_vae().eval()
    pictures = torch.cat([PairPictures(4, 1)[index] for index in range(4)])
    with torch.no_grad():
        before = vae.decode(vae.encode(pictures).latent_dist.mean).sample
        whiten(vae, pictures, 0.18215)
        found = vae.encode(pictures).latent_dist
        latents = found.mean
        torch.testing.assert_close(vae.decode(latents).sample, before, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.sample(), latents, atol=1e-3, rtol=0)
    scaled = latents.movedim(1, -1).flatten(0, -2) * 0.18215
    torch.testing.assert_close(torch.cov(scaled.T), torch.eye(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-3, rtol=0)


def test_errors_on_things_weigh_more():
    picture = PairPictures(1, 3)[0][:1]
    background = (picture == picture[:, :, :1, :1]).all(1, keepdim=True)
    on_things = picture_error(picture + 0.1 * ~background, picture)["pixels"]
    share = float((~background).float().mean())
    assert on_things == pytest.approx(5 * (0.1 + 0.01) * share, rel=0.02)


def test_crops_hold_a_thing():
    for index in range(20):
        crop = Crops(100)[index]
        assert crop.shape == (3, 64, 64)
        assert (crop - crop.flatten(1).median(1).values[:, None, None]).abs().max() > 0.5
