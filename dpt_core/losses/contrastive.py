"""Image-text matching: the right pair must score above its hard and random negatives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from ..score import alignment_score

PAIRS = (
    ("own image", "own text"),
    ("own image", "hard text"),
    ("own image", "random text"),
    ("hard image", "own text"),
    ("random image", "own text"),
)
"""What the adapter must see per example: the text is the backbone's context, so that every pair
is a pass of its own. Noise and timestep are the same in all five. Passes of further wrong images,
each with the own text, may follow them."""


SAME = 0.99
"""Cosine from which two texts say the same in other words."""

THRESHOLD = 0.5
"""Score above which :func:`calibration_loss` wants right pairs, and wrong ones below."""


class MatchingPairs(NamedTuple):
    """Matching queries of `B` examples in both directions; candidate 0 is the right one.

    Attributes:
        image_queries: `[B, T, Q, D]` the own image seen with each of `T` texts.
        text_queries: `[B, I, Q, D]` each of `I` images seen with the own text: own, hard negative,
            random, and further wrong ones.
        texts: `[B, T, D]` text vectors `y`: own, hard negative, random.
    """

    image_queries: torch.Tensor
    text_queries: torch.Tensor
    texts: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """Queries of all passes in the order of :data:`PAIRS`, `[B, T + I − 1, Q, D]` float32."""
        return torch.cat((self.image_queries, self.text_queries[:, 1:]), dim=1).float()

    @classmethod
    def from_passes(cls, queries: torch.Tensor, texts: torch.Tensor) -> MatchingPairs:
        """Arrange the queries of five passes or more.

        Args:
            queries: `[P·B, Q, D]` one pair of :data:`PAIRS` after another, each for all examples,
                then further wrong images with the own text.
            texts: `[B, 3, D]` own, hard and random text vectors.

        Raises:
            ValueError: not five or more passes of `B` examples.
        """
        passes, rest = divmod(len(queries), len(texts))
        if rest or passes < len(PAIRS):
            raise ValueError(
                f"expected queries of at least {len(PAIRS)} passes of {len(texts)} examples; got "
                f"{len(queries)} rows"
            )
        own, hard_text, random_text, *wrong_images = queries.chunk(passes)
        return cls(
            torch.stack((own, hard_text, random_text), dim=1),
            torch.stack((own, *wrong_images), dim=1),
            texts,
        )


def contrastive_loss(
    pairs: MatchingPairs,
    logit_scale: torch.Tensor | float,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matching losses of Section 3.2, where the best query speaks for an image.

    With the score `s(x, y) = max_j cos(q_j, y)` of image x seen with text y:
    `i2t = −log softmax_k(scale·s(x, y_k))₀` and `t2i = −log softmax_k(scale·s(x_k, y))₀`, averaged
    over the batch. Each candidate text is compared with the queries it conditioned itself.

    Args:
        pairs: queries and texts, any floating dtype.
        logit_scale: factor on the cosines, above 0: `exp` of the adapter's `logit_scale`, which
            starts at 1/0.07 and is not capped.
        dtype: what to compute in. The published code casts queries and texts to float16; we do not
            by default, since a score then has three digits and the two best queries tie.

    Returns:
        `(i2t, t2i)`, scalars.

    Raises:
        ValueError: shapes disagree.
    """
    _check(pairs)
    images, texts = (normalize(each.to(dtype), dim=-1) for each in (pairs[0], pairs.texts))
    candidates = normalize(pairs.text_queries.to(dtype), dim=-1)
    right = torch.zeros(len(texts), dtype=torch.long, device=texts.device)

    def loss(queries: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        # A product and a sum, not a matmul: autocast would compute that one in half precision.
        scores = (queries * text[:, :, None]).sum(-1).max(dim=-1).values
        return cross_entropy(scores * logit_scale, right)

    return loss(images, texts), loss(candidates, texts[:, :1])


def recognition_loss(
    pairs: MatchingPairs, logit_scale: torch.Tensor | float, others: torch.Tensor | None = None
) -> torch.Tensor:
    """Ours, not the paper's: queries name what the image shows, whatever text it is seen with.

    Of every text in the batch, each of the first five passes must score highest with the one that
    is true of its image: `−log softmax_k(scale·max_j cos(q_j, y_k))`. Of further wrong images no
    true text is known. The published loss compares three candidates, each read with its own text,
    and hardly moves until scores tell those apart.

    Args:
        pairs: three texts and three images per example, or more images.
        logit_scale: factor on the cosines, above 0.
        others: `[M, D]` further texts that are candidates.

    Returns:
        A scalar. Texts that say the same as the true one are no candidates.
    """
    _check(pairs)
    seen = pairs.seen[:, : len(PAIRS)]
    passes, names = seen.shape[1], pairs.texts.shape[1]
    shown = torch.arange(passes, device=seen.device).sub(names - 1).clamp(min=0)  # 0, 0, 0, 1, 2
    queries = normalize(seen.flatten(0, 1), dim=-1)  # [5·B, Q, D]
    texts = pairs.texts.float().flatten(0, 1)  # [3·B, D]
    if others is not None:
        texts = torch.cat((texts, others.float()))  # [3·B + M, D]
    texts = normalize(texts, dim=-1)
    with torch.autocast(texts.device.type, enabled=False):
        scores = (queries @ texts.T).amax(1)  # [5·B, 3·B + M]
    first = torch.arange(len(seen), device=seen.device)[:, None] * names
    right = (first + shown).flatten()
    same = (texts @ texts.T > SAME)[right]
    same[torch.arange(len(right)), right] = False
    return cross_entropy((scores * logit_scale).masked_fill(same, -torch.inf), right)


def calibration_loss(pairs: MatchingPairs, logit_scale: torch.Tensor | float) -> torch.Tensor:
    """Ours, not the paper's: a score means the same for every text.

    With `l = scale·(s − 0.5)` the right pair's loss is `−log σ(l)` and a wrong one's `−log σ(−l)`;
    both kinds weigh the same. The other losses compare scores of one image or of one text, so
    each may have an offset of its own, and no threshold tells right from wrong.

    Args:
        pairs: three texts and three images per example, or more images.
        logit_scale: factor on the cosines, above 0.

    Returns:
        A scalar.
    """
    _check(pairs)
    seen = pairs.seen
    own = pairs.texts[:, :1].expand(-1, seen.shape[1] - pairs.texts.shape[1], -1)
    texts = torch.cat((pairs.texts, own), dim=1)  # [B, T + I − 1, D]
    scores = alignment_score(seen.flatten(0, 1), texts.flatten(0, 1)).unflatten(0, texts.shape[:2])
    logits = logit_scale * (scores - THRESHOLD)
    return -(logsigmoid(logits[:, 0]).mean() + logsigmoid(-logits[:, 1:]).mean()) / 2


def _check(pairs: MatchingPairs) -> None:
    images, candidates, texts = (tuple(each.shape) for each in pairs)
    if len(images) != 4 or len(candidates) != 4 or len(texts) != 3:
        raise ValueError(
            "expected queries [B, T, Q, D], [B, I, Q, D] and texts [B, T, D]; got "
            f"{list(images)}, {list(candidates)} and {list(texts)}"
        )
    if images[:2] != texts[:2] or candidates[0] != texts[0]:
        raise ValueError(
            f"queries and texts belong to different examples or numbers of candidates: "
            f"{list(images)}, {list(candidates)} and {list(texts)}"
        )
    if {images[3], candidates[3]} != {texts[2]}:
        raise ValueError(
            f"queries of width {images[3]} and {candidates[3]} cannot be compared with text "
            f"vectors of width {texts[2]}: the adapter belongs to another text encoder"
        )
