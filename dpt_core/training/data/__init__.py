"""Readers of training data: JSONL image folders, hard negatives, RefCOCO; precomputed latents."""

from .datasets import GroundingDataset, MatchingDataset, images_digest
from .examples import DataError, GroundingExample, MatchingExample
from .hard_negatives import HardNegativeTable
from .images import ImageFolder
from .jsonl import JsonlGrounding, JsonlMatching
from .latents import with_latents
from .precompute import precompute
from .refcoco import RefCoco

__all__ = [
    "DataError",
    "GroundingDataset",
    "GroundingExample",
    "HardNegativeTable",
    "ImageFolder",
    "JsonlGrounding",
    "JsonlMatching",
    "MatchingDataset",
    "MatchingExample",
    "RefCoco",
    "images_digest",
    "precompute",
    "with_latents",
]
