"""The adapter's transformer: encoder and decoder in the manner of DETR (arXiv 2005.12872).

Positions enter queries and keys of every attention, never its values. Normalisation follows each
residual sum (post-norm).
"""

from __future__ import annotations

import torch
from torch import nn

from .config import AdapterConfig


def _feed_forward(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layer.linear2(layer.dropout(nn.functional.relu(layer.linear1(x))))


def _attend(
    attention: nn.MultiheadAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    return attention(query, key, value, need_weights=False)[0]


class EncoderLayer(nn.Module):
    """Self-attention over the feature map's cells, then a feed-forward layer."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.self_attn = nn.MultiheadAttention(width, config.heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, cells: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Map cells `[B, S, width]` with positions of the same shape to `[B, S, width]`."""
        placed = cells + position
        cells = self.norm1(cells + self.dropout(_attend(self.self_attn, placed, placed, cells)))
        return self.norm2(cells + self.dropout(_feed_forward(self, cells)))


class DecoderLayer(nn.Module):
    """Self-attention among queries, attention from queries to cells, a feed-forward layer."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.self_attn = nn.MultiheadAttention(width, config.heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, config.heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, config.feed_forward)
        self.linear2 = nn.Linear(config.feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: torch.Tensor,
        query_position: torch.Tensor,
        memory: torch.Tensor,
        position: torch.Tensor,
    ) -> torch.Tensor:
        """Map queries `[B, Q, width]` reading memory `[B, S, width]` to `[B, Q, width]`."""
        placed = queries + query_position
        attended = _attend(self.self_attn, placed, placed, queries)
        queries = self.norm1(queries + self.dropout(attended))
        attended = _attend(self.multihead_attn, queries + query_position, memory + position, memory)
        queries = self.norm2(queries + self.dropout(attended))
        return self.norm3(queries + self.dropout(_feed_forward(self, queries)))


class Encoder(nn.Module):
    """A stack of :class:`EncoderLayer`."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, cells: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            cells = layer(cells, position)
        return cells


class Decoder(nn.Module):
    """A stack of :class:`DecoderLayer` with a final norm; it starts from zeros."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, query_position: torch.Tensor, memory: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        queries = torch.zeros_like(query_position)
        for layer in self.layers:
            queries = layer(queries, query_position, memory, position)
        return self.norm(queries)


class Transformer(nn.Module):
    """Encoder over the cells of a feature map, decoder from learned queries."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(
        self, cells: torch.Tensor, position: torch.Tensor, query_position: torch.Tensor
    ) -> torch.Tensor:
        """Decode queries `[B, Q, width]` from cells and positions `[B, S, width]`."""
        return self.decoder(query_position, self.encoder(cells, position), position)
