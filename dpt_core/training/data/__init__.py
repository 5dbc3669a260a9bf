"""Readers of training data: JSONL image folders, hard negatives, RefCOCO; precomputed latents."""
