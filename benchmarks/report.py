"""The table of a benchmark run."""

from __future__ import annotations

from typing import Any

WAYS = ("off", "exact", "lagged", "published")
"""`off` is strength 0; `published` runs the whole UNet for the gradient."""


def markdown(found: dict[str, Any]) -> str:
    """Markdown of what `python -m benchmarks` found: ratios to the plain step, floors beside."""
    lines = [
        f"Measured on {found['machine']}, {found['precision']}, torch {found['torch']}. Time of a "
        "step over that of a plain step, in brackets the floor by FLOP count; then peak memory "
        "over that of plain sampling.",
        "",
        "| UNet | host | latent | plain step | " + " | ".join(WAYS) + " | memory: exact, lagged |",
        "|---" * (5 + len(WAYS)) + "|",
    ]
    for row in found["rows"]:
        size = f"{row['batch']} × {row['side']}²"
        cells = [row["unet"], row["host"], size, f"{row['seconds']:.3g} s"]
        cells += [_ratio(row, way) for way in WAYS]
        peaks = [row.get("memory", {}).get(way) for way in ("exact", "lagged")]
        cells.append(", ".join("–" if peak is None else f"{peak:.2f}" for peak in peaks))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _ratio(row: dict[str, Any], way: str) -> str:
    if (ratio := row["ratios"].get(way)) is None:
        return "–"
    floor = row["floors"].get(way)
    return f"{ratio:.2f}" + (f" ({floor:.2f})" if floor else "")
