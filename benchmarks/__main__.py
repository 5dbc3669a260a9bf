"""`python -m benchmarks`: every ratio in one run, written as JSON and as a Markdown table."""

from __future__ import annotations

import gc
import itertools
import json
import platform
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from . import demo_work, in_comfyui, in_diffusers, startup, transformers
from .report import markdown
from .sizes import UNETS, floors
from .timing import Run, interleaved, peak_memory, ratios
from .transformers import TRANSFORMERS

HOSTS = {"comfyui": in_comfyui, "diffusers": in_diffusers}
PARTS = ("steps", "transformers", "work", "startup")
SIDE = 128
"""Of the latents that operations of transformers are counted at: 1024²."""
SMALL = ("demo", "sd15", "sd21")

Part, UNet, Host = Literal[PARTS], Literal[tuple(UNETS)], Literal[tuple(HOSTS)]
Transformer = Literal[tuple(TRANSFORMERS)]
Positive = Annotated[int, Parameter(validator=Number(gte=1))]
Natural = Annotated[int, Parameter(validator=Number(gte=0))]


def main(
    *,
    output: Path = Path("benchmarks.json"),
    part: list[Part] | None = None,
    unet: list[UNet] | None = None,
    host: list[Host] | None = None,
    transformer: list[Transformer] | None = None,
    depth: Natural = 2,
    side: Positive = 32,
    batch: Positive = 1,
    repeats: Positive = 5,
    device: str = "cpu",
    precision: Literal["float32", "float16", "bfloat16"] = "float32",
    memory: bool = True,
) -> None:
    """Time self-correction, scoring, training and startup against what each cannot do without.

    Args:
        output: Where the JSON goes.
        part: What to measure; repeat for several. [default: all]
        unet: Which UNets; repeat for several. [default: all but sdxl]
        host: Where they sample; repeat for several. [default: both]
        transformer: Which transformers, in diffusers; repeat for several. [default: all]
        depth: Blocks of each kind of the transformers that are timed, with random weights; 0 counts
            operations only. Operations are counted at full depth and 1024².
        side: Of the latent: pixels / 8. The demo has 16.
        batch: Pictures together.
        repeats: Repetitions, interleaved.
        device: cpu, cuda.
        precision: Of the UNet's weights.
        memory: Also the peak of memory.
    """
    part, unet, host = part or [*PARTS], unet or [*SMALL], host or [*HOSTS]
    in_comfyui.enter(device)  # before anything else makes its choice of devices
    found: dict[str, Any] = {
        "machine": machine(device), "device": device, "precision": precision,
        "torch": torch.__version__,
    }  # fmt: skip
    dtype = getattr(torch, precision)
    with Progress() as bars:
        if "steps" in part:
            found["steps"] = []
            for name, place in itertools.product(unet, host):
                latent = 16 if name == "demo" else side
                found["steps"].append(
                    {"unet": name, "host": place, "side": latent, "batch": batch}
                    | measure(
                        HOSTS[place].build(name, device, dtype, batch, latent),
                        repeats, device, f"{name} in {place}", bars, memory,
                    )
                    | {"floors": asdict(floors(name, latent))}
                )  # fmt: skip
                gc.collect()
        if "transformers" in part:
            found["transformers"] = [
                of_transformer(name, depth, side, repeats, device, bars)
                for name in transformer or TRANSFORMERS
            ]
        if "work" in part:
            found["work"] = {}
            for build in (demo_work.scoring, demo_work.denoising, demo_work.probing):
                runs = build(device)
                name = next(key for key in runs if key != "plain")
                found["work"][name] = measure(runs, repeats, device, name, bars)
        if "startup" in part:
            bar = bars.add_task("startup", total=2)
            load, read = startup.load_seconds()
            bars.advance(bar)
            found["startup"] = {"import": startup.import_seconds(), "load": load, "read": read}
            bars.advance(bar)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    Console().print(Markdown(markdown(found)))


def of_transformer(
    name: str, depth: int, side: int, repeats: int, device: str, bars: Progress
) -> dict[str, Any]:
    """Operations of a transformer, and time at a small depth beside its own operations."""
    bar = bars.add_task(f"{name}, operations")
    found: dict[str, Any] = {"name": name, "shares": []}
    for shares in transformers.shares(name, SIDE):
        steps = {str(rows): shares.steps(rows) for rows in (1, 2)}
        found["shares"].append(asdict(shares) | {"steps": steps})
    bars.update(bar, total=1, completed=1)
    if depth:
        runs, small = transformers.build(name, device, depth, side)
        found["timed"] = {"depth": depth, "side": side, "floors": small.steps(1)} | measure(
            runs, repeats, device, f"{name}, {depth} blocks of each kind", bars
        )
        gc.collect()
    return found


def measure(
    runs: dict[str, Run],
    repeats: int,
    device: str,
    title: str,
    bars: Progress,
    memory: bool = False,
) -> dict[str, Any]:
    """Ratios of every run to the plain one."""
    bar = bars.add_task(title, total=len(runs) * (repeats + 1 + memory))
    seconds = interleaved(runs, repeats, lambda: bars.advance(bar))
    found: dict[str, Any] = {
        "seconds": statistics.median(seconds["plain"]), "ratios": ratios(seconds),
    }  # fmt: skip
    if memory:
        peaks = {}
        for name, run in runs.items():
            peaks[name] = peak_memory(run, device)
            bars.advance(bar)
        found["memory"] = {name: peak / peaks["plain"] for name, peak in peaks.items()}
    return found


def machine(device: str) -> str:
    """What measured."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    app = App("benchmarks", default_parameter=Parameter(negative_iterable=()))
    app.default(main)
    app()
