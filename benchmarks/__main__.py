"""`python -m benchmarks`: every ratio in one run, written as JSON and as a Markdown table."""

from __future__ import annotations

import gc
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

from . import in_comfyui, in_diffusers
from .report import markdown
from .sizes import UNETS, floors
from .timing import Run, interleaved, peak_memory, ratios

HOSTS = {"comfyui": in_comfyui, "diffusers": in_diffusers}


class Precision(str, Enum):
    """Of the UNet's weights."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


def main(
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("benchmarks.json"),
    unet: Annotated[list[str], typer.Option(help=f"{', '.join(UNETS)}; repeat for several.")] = [  # noqa: B006
        "demo",
        "sd15",
        "sd21",
    ],
    host: Annotated[list[str], typer.Option(help="comfyui, diffusers.")] = list(HOSTS),  # noqa: B006
    side: Annotated[
        int, typer.Option(min=8, help="Of the latent: pixels / 8. The demo has 16.")
    ] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Pictures together.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, interleaved.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda.")] = "cpu",
    precision: Annotated[Precision, typer.Option()] = Precision.float32,
    memory: Annotated[bool, typer.Option(help="Also the peak of memory.")] = True,
) -> None:
    """Time a step of self-correcting sampling against a plain one, beside the floor by FLOPs."""
    for known, given in ((UNETS, unet), (HOSTS, host)):
        if unknown := set(given) - set(known):
            raise typer.BadParameter(f"known are {', '.join(known)}; got {', '.join(unknown)}")
    if "comfyui" in host:
        in_comfyui.enter(device)  # before anything else makes its choice of devices
    rows = []
    with Progress() as bars:
        bar = bars.add_task("", total=len(unet) * len(host))
        for name in unet:
            for place in host:
                bars.update(bar, description=f"{name} in {place}")
                latent = 16 if name == "demo" else side
                runs = HOSTS[place].build(
                    name, device, getattr(torch, precision.value), batch, latent
                )
                inner = bars.add_task("", total=len(runs) * (repeats + 1))
                rows.append(
                    {"unet": name, "host": place, "side": latent, "batch": batch}
                    | measure(runs, repeats, device, memory, lambda: bars.advance(inner))  # noqa: B023
                    | {"floors": asdict(floors(name, latent))}
                )
                bars.remove_task(inner)
                bars.advance(bar)
                del runs
                gc.collect()
    found = {
        "machine": machine(device), "device": device, "precision": precision.value,
        "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    Console().print(Markdown(markdown(found)))


def measure(
    runs: dict[str, Run], repeats: int, device: str, memory: bool, advance: Any
) -> dict[str, Any]:
    """Ratios of every run to the plain one."""
    with torch.inference_mode():
        seconds = interleaved(runs, repeats, advance)
        peaks = {key: peak_memory(run, device) for key, run in runs.items()} if memory else {}
    found: dict[str, Any] = {
        "seconds": statistics.median(seconds["plain"]), "ratios": ratios(seconds),
    }  # fmt: skip
    if peaks:
        found["memory"] = {key: peak / peaks["plain"] for key, peak in peaks.items()}
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
