"""The table of a benchmark run."""

from __future__ import annotations

from typing import Any

WAYS = ("off", "exact", "lagged", "published")
"""`off` is strength 0; `published` runs the whole UNet for the gradient."""


def markdown(found: dict[str, Any]) -> str:
    """Markdown of what `python -m benchmarks` found: ratios to the plain step, floors beside."""
    parts = [f"Measured on {found['machine']}, {found['precision']}, torch {found['torch']}."]
    if "steps" in found:
        parts += [_steps(found["steps"])]
    if "transformers" in found:
        parts += [_transformers(found["transformers"])]
    if "work" in found:
        parts += [_work(found["work"])]
    if "startup" in found:
        seconds = found["startup"]
        parts += [
            f"The pack adds {seconds['import']:.2f} s to the host's start. Loading an adapter of "
            f"the published size takes {seconds['load']:.2f} s, of which reading its bytes "
            f"{seconds['read']:.2f} s."
        ]
    return "\n\n".join(parts) + "\n"


def _steps(rows: list[dict[str, Any]]) -> str:
    lines = [
        "Time of a step over that of a plain step, in brackets the floor by FLOP count; then peak "
        "memory over that of plain sampling:",
        "",
        "| UNet | host | latent | plain step | " + " | ".join(WAYS) + " | memory: exact, lagged |",
        "|---" * (5 + len(WAYS)) + "|",
    ]
    for row in rows:
        size = f"{row['batch']} × {row['side']}²"
        cells = [row["unet"], row["host"], size, f"{row['seconds']:.3g} s"]
        cells += [_ratio(row, way) for way in WAYS]
        peaks = [row.get("memory", {}).get(way) for way in ("exact", "lagged")]
        cells.append(", ".join("–" if peak is None else f"{peak:.2f}" for peak in peaks))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _transformers(rows: list[dict[str, Any]]) -> str:
    """Operations at 1024²; where steps were timed, their ratios and in brackets their floors."""
    lines = [
        "Transformers: a pass to the tap and back from it, as shares of a whole pass of one row, "
        "and a corrected step over a plain one without / with guidance, by FLOP count at 1024²; "
        "then the time of a step without guidance at a small depth over the plain one, in brackets "
        "the floor by FLOP count:",
        "",
        "| Transformer | tap | to it | back | exact | lagged | timed: exact | lagged |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        timed = row.get("timed")
        for number, share in enumerate(row["shares"]):
            (alone, late), (guided, late_guided) = (share["steps"][rows] for rows in ("1", "2"))
            cells = [
                row["name"], "{} of {}".format(*share["blocks"]), f"{share['forward']:.2f}",
                f"{share['backward']:.2f}", f"{alone:.2f} / {guided:.2f}",
                f"{late:.2f} / {late_guided:.2f}",
            ]  # fmt: skip
            for floor, way in enumerate(("exact", "lagged")):
                if not timed or number:
                    cells.append("")
                    continue
                cells.append(f"{timed['ratios'][way]:.2f} ({timed['floors'][floor]:.2f})")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _work(rows: dict[str, dict[str, Any]]) -> str:
    said = [f"{name} {row['ratios'][name]:.2f}" for name, row in rows.items()]
    return f"Time of the demo model's work over that of the bare passes in it: {', '.join(said)}."


def _ratio(row: dict[str, Any], way: str) -> str:
    if (ratio := row["ratios"].get(way)) is None:
        return "–"
    floor = row["floors"].get(way)
    return f"{ratio:.2f}" + (f" ({floor:.2f})" if floor else "")
