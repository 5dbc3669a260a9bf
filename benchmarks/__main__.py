"""`python -m benchmarks`: every ratio in one run, written as JSON and as a Markdown table."""

from __future__ import annotations

import gc
import itertools
import json
import platform
import statistics
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from . import demo_work, in_comfyui, in_diffusers, startup
from .report import markdown
from .sizes import UNETS, floors
from .timing import Run, interleaved, peak_memory, ratios

HOSTS = {"comfyui": in_comfyui, "diffusers": in_diffusers}
PARTS = ("steps", "work", "startup")
SMALL = ("demo", "sd15", "sd21")
SEVERAL = " Repeat for several."


class Precision(str, Enum):
    """Of the UNet's weights."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def main(
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks.json"),
    part: Annotated[list[str], typer.Option(help=f"{', '.join(PARTS)}.{SEVERAL}")] = [*PARTS],  # noqa: B006
    unet: Annotated[list[str], typer.Option(help=f"{', '.join(UNETS)}.{SEVERAL}")] = [*SMALL],  # noqa: B006
    host: Annotated[list[str], typer.Option(help=f"{', '.join(HOSTS)}.{SEVERAL}")] = [*HOSTS],  # noqa: B006
    side: Annotated[
        int, typer.Option(min=8, help="Of the latent: pixels / 8. The demo has 16.")
    ] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Pictures together.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda.")] = "cpu",
    precision: Annotated[Precision, typer.Option()] = Precision.float32,
    memory: Annotated[bool, typer.Option(help="Also the peak of memory.")] = True,
) -> None:
    """Time self-correction, scoring, training and startup against what each cannot do without."""
    for known, given in ((PARTS, part), (UNETS, unet), (HOSTS, host)):
        if unknown := set(given) - set(known):
            raise typer.BadParameter(f"known are {', '.join(known)}; got {', '.join(unknown)}")
    in_comfyui.enter(device)  # before anything else makes its choice of devices
    found: dict[str, Any] = {
        "machine": machine(device), "device": device, "precision": precision.value,
        "torch": torch.__version__,
    }  # fmt: skip
    dtype = getattr(torch, precision.value)
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
    typer.run(main)
