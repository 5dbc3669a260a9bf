"""How the demo's tokenizer was made; a test makes it again and compares."""

from __future__ import annotations

import json
import random
from pathlib import Path

from dpt_core.shapes.caption import imagine, word

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(folder: Path, captions: int = 4000, merges: int = 200) -> None:
    """Write CLIP's tokenizer with a small vocabulary: bytes, and merges learned from captions."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    rng = random.Random(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", True
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator((word(imagine(rng), rng).text for _ in range(captions)), trainer)
    learned = json.loads(bpe.to_str())["model"]["merges"]
    vocabulary = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    vocabulary += dict.fromkeys("".join(pair) for pair in learned)
    vocabulary += [BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in learned)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": BOS,
                "eos_token": EOS, "unk_token": EOS, "pad_token": EOS,
            },
            indent=1,
        )
    )  # fmt: skip
