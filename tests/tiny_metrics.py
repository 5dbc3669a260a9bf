"""Small CLIP, BLIP and Inception models with random weights, as the metrics load real ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dpt_core.demo import model

SIDE = 32
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red blue circle square and two left of".split()


def write_clip(folder: Path) -> Path:
    """A directory as of CLIP, with the demo's tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    tokenizer = model.load_tokenizer()
    text = {**sizes, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    _save(CLIPModel, config, folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def write_blip(folder: Path) -> Path:
    """A directory as of BLIP for retrieval, with a tokenizer of a few words."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
    )

    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    text = {**sizes, "vocab_size": len(WORDS), "encoder_hidden_size": 24, "projection_dim": 16,
            "pad_token_id": 0, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}  # fmt: skip
    vision = {**sizes, "image_size": SIDE, "patch_size": 8, "projection_dim": 16}
    config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16)
    _save(BlipForImageTextRetrieval, config, folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    pictures = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


class TinyInception(nn.Module):
    """From pictures `[N, 3, H, W]` uint8 to features `[N, 8]` and logits `[N, 5]`."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(3 * 16, 8, generator=generator))
        self.second = nn.Parameter(torch.randn(8, 5, generator=generator))

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 4)
        features = (small.flatten(1) @ self.first).tanh()
        return features, features @ self.second


def load_tiny_inception(path: Path, device: str = "cpu") -> nn.Module:
    """In place of `load_inception`; the file is not read."""
    return TinyInception().to(device)


def _save(kind: type, config: object, folder: Path) -> None:
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(0)
        made = kind(config)
        for parameter in made.parameters():  # the standard ones leave most scores alike
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        made.save_pretrained(folder)
