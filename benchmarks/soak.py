"""Hundreds of prompts in one ComfyUI: `python -m benchmarks.soak`.

Every node that draws or reads, every mode and preset, with the demo model. Every tenth prompt is
interrupted, every seventh is wrong. Afterwards the host has to be alive, a plain picture has to be
what it was before, to the byte, and memory has to be flat.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cyclopts import run as command

from dpt_core.cli import emit

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "host")]

from comfy_server import Server  # noqa: E402  the suite's own client of a real host

INTERRUPTED, WRONG = 10, 7
"""Every so many-th prompt."""

SAMPLERS = ("euler", "dpmpp_2m", "euler_ancestral", "uni_pc", "heun", "ddim")
WARM = 0.3
"""Share of the prompts after which memory counts: the host loads libraries on the way."""

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt in the host's API format."""
    return {"class_type": class_type, "inputs": inputs}


def sampled(kind: str, number: int, **more: Any) -> Prompt:
    """A prompt that draws with a sampler of some kind and saves the picture."""
    sampling = {
        "model": ["demo", 0], "seed": number, "steps": 4, "cfg": 2.5, "denoise": 1.0,
        "sampler_name": SAMPLERS[number % len(SAMPLERS)], "scheduler": "sgm_uniform",
        "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["empty", 0],
    }  # fmt: skip
    return {
        "demo": node("DPT_DemoModel"),
        "positive": node("DPT_TextEncode", clip=["demo", 1], text="a red circle above a cross"),
        "negative": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=1 + number % 2),
        "sampler": node(kind, **sampling | more),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["demo", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="soak"),
    }


def plain(number: int = 0) -> Prompt:
    """The host's own sampler."""
    return sampled("KSampler", number)


def corrected(number: int, **settings: Any) -> Prompt:
    """Our sampler."""
    return sampled("DPT_KSampler", number, **{"adapter": ["demo", 3]} | settings)


def custom(number: int, mode: str, **settings: Any) -> Prompt:
    """Our sampler with settings of one's own."""
    return corrected(number, preset="custom", mode=mode, **settings)


def any_sampler(number: int) -> Prompt:
    """The host's sampler with a model that corrects itself, with the LoRA."""
    prompt = sampled("KSampler", number, model=["correction", 0])
    prompt["lora"] = node("DPT_ApplyLoRA", model=["demo", 0], adapter=["demo", 3], strength=0.7)
    prompt["correction"] = node(
        "DPT_SelfCorrection", model=["lora", 0], adapter=["demo", 3], preset="fast"
    )
    return prompt


def search(number: int) -> Prompt:
    """Candidates."""
    return sampled(
        "DPT_SearchKSampler", number, adapter=["demo", 3], preset="balanced", candidates=3
    )


def looked_at(number: int) -> Prompt:
    """All that reads finished pictures."""
    prompt, reads = plain(number), {"model": ["demo", 0], "adapter": ["demo", 3]}
    reads |= {"vae": ["demo", 2], "images": ["decode", 0]}
    reads |= {"timestep": 500, "seed": 0}
    prompt["score"] = node("DPT_AlignmentScore", **reads, positive=["positive", 0], draws=2)
    prompt["best"] = best(count=1)
    prompt["phrase"] = node("DPT_TextEncode", clip=["demo", 1], text="a red circle")
    prompt["where"] = node(
        "DPT_GroundPhrase", **reads, phrase=["phrase", 0], threshold=0.5, max_boxes=3
    )
    prompt["both"] = node(
        "DPT_Compare", images_1=["decode", 0], scores_1=["score", 1], images_2=["best", 0],
        labels="all, best", title="", threshold=0.6, theme="light",
    )  # fmt: skip
    for place, name in enumerate(("best", "both")):
        prompt[f"save {place}"] = node("SaveImage", images=[name, 0], filename_prefix="soak")
    prompt["preview"] = node("PreviewImage", images=["where", 2])
    return prompt


def explained(number: int) -> Prompt:
    """Which part of a prompt fails, and prompts put together from words."""
    prompt, demo = plain(number), {"model": ["demo", 0], "clip": ["demo", 1], "vae": ["demo", 2]}
    prompt["explain"] = node(
        "DPT_Explain", **demo, adapter=["demo", 3], images=["decode", 0],
        prompt="a red circle above a cross", seed=0, theme="dark",
    )  # fmt: skip
    prompt["save 2"] = node("SaveImage", images=["explain", 0], filename_prefix="soak")
    words = {"things": "cat, dog", "attributes": "red, blue", "relations": "left of"}
    prompt["prompts"] = node("DPT_ScenePrompts", **words, most=3, count=2, seed=number)
    prompt["told"] = node("PreviewAny", source=["prompts", 0])
    return prompt


def best(**more: Any) -> dict[str, Any]:
    """The choice among pictures."""
    inputs = {"images": ["decode", 0], "scores": ["score", 1], "minimum": -1.0}
    return node("DPT_SelectBest", **inputs | {"if_none_pass": "keep the best"} | more)


def chosen(number: int, **more: Any) -> Prompt:
    """The choice alone: the host still runs the outputs that a wrong node does not feed."""
    prompt = looked_at(number) | {"best": best(**more)}
    return {name: each for name, each in prompt.items() if name not in ("save", "preview")}


GOOD: tuple[Callable[[int], Prompt], ...] = (
    plain,
    lambda n: corrected(n, preset="balanced"),
    lambda n: corrected(n, preset="fast"),
    lambda n: corrected(n, preset="published"),
    lambda n: custom(n, "exact", inner_steps=2),
    lambda n: custom(n, "lagged", every_n_steps=2),
    lambda n: custom(n, "guidance"),
    any_sampler,
    search,
    looked_at,
    explained,
)
"""Every node, mode and preset."""

BAD: tuple[Callable[[int], Prompt], ...] = (
    lambda n: custom(n, "exact", strength=-1.0),
    lambda n: custom(n, "exact", start_percent=0.9, end_percent=0.1),
    lambda n: custom(n, "backwards"),
    lambda n: custom(n, "exact", inner_steps=0),
    lambda n: (
        corrected(n, adapter=["file", 0])
        | {"file": node("DPT_LoadAdapter", adapter_name="nothing")}
    ),
    lambda n: sampled("DPT_SearchKSampler", n, adapter=["demo", 3], candidates=2, keep=5),
    lambda n: corrected(n, latent_image=["decode", 0]),
    lambda n: chosen(n, count=0),
    lambda n: chosen(n, count=1, scores=["demo", 0]),
)
"""What has to be refused, in words."""


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        interrupted, refused, done: prompts that ended so, as they should.
        failures: what should not have been.
        memory: the host's resident bytes after each prompt.
    """

    interrupted: int = 0
    refused: int = 0
    done: int = 0
    failures: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Memory at the end over what it was once warm."""
        warm = self.memory[int(WARM * len(self.memory)) :]
        tail = warm[-max(1, len(warm) // 10) :]
        head = warm[: max(1, len(warm) // 10)]
        return sum(tail) / len(tail) / (sum(head) / len(head))


def soak(server: Server, prompts: int) -> Soaked:
    """Queue prompts one after another.

    Args:
        server: a running host with the pack.
        prompts: how many.
    """
    import psutil

    host, found = psutil.Process(server.process.pid), Soaked()
    before = picture(server)
    for number, (kind, prompt) in enumerate(itertools.islice(queue(), prompts)):
        stop = number % INTERRUPTED == INTERRUPTED - 1 and kind == "good"
        try:
            outcome = server.run(prompt, interrupt(server) if stop else lambda seen: None)
        except AssertionError as refusal:  # HTTP 400
            error = str(refusal)
        else:
            error = outcome.error and outcome.error["exception_message"]
        if kind == "bad":
            found.refused += bool(error)
            if not error:
                found.failures.append(f"prompt {number}: wrong, and not refused")
        elif error:
            found.failures.append(f"prompt {number}: {error}")
        elif stop:
            found.interrupted += outcome.interrupted
            if not outcome.interrupted:
                found.failures.append(f"prompt {number}: not interrupted")
        else:
            found.done += 1
        found.memory.append(host.memory_info().rss)
    if picture(server) != before:
        found.failures.append("a plain picture is not what it was before")
    return found


def interrupt(server: Server) -> Callable[[Any], None]:
    """Called after a prompt's first step of progress: cancels it."""
    return lambda seen: server.post("interrupt", {})


def queue() -> Iterator[tuple[str, Prompt]]:
    """Prompts without end, "good" and "bad"."""
    rng, bad = random.Random(0), itertools.cycle(BAD)
    good = itertools.cycle(GOOD)
    for number in itertools.count(1):
        if number % WRONG == 0:
            yield "bad", next(bad)(number)
        else:
            yield "good", next(good)(rng.randrange(1000))


def picture(server: Server) -> bytes:
    """A plain picture, drawn anew: its file's pixels."""
    from PIL import Image

    prompt = plain()
    prompt["save"]["inputs"]["filename_prefix"] = f"plain-{random.random()}"  # not from the cache
    prompt["sampler"]["inputs"]["denoise"] = 1.0
    (item,) = server.run(prompt).outputs["save"]["images"]
    return Image.open(server.output(item)).tobytes()


def main(*, prompts: int = 200, most_growth: float = 1.1) -> None:
    """Run it against the host that the tests use.

    Args:
        prompts: How many.
        most_growth: How much more memory the host may have in the end than once warm.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start(cache="--cache-classic")
        try:
            found = soak(server, prompts)
        finally:
            server.stop()
    emit(
        f"{prompts} prompts: {found.done} drawn, {found.interrupted} interrupted, {found.refused} "
        f"refused, {len(found.failures)} failed; memory × {found.growth:.3f}"
    )
    for failure in found.failures:
        emit(f"  {failure[:300]}")
    if found.failures or found.growth > most_growth:
        raise SystemExit(1)


if __name__ == "__main__":
    command(main)
