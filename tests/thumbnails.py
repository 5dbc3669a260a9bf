"""Make the thumbnails of workflows that need no download from what they draw.

    .venv/bin/python tests/thumbnails.py ["DPT demo - no download" …]

Square: what DPT Compare shows, else the pictures of each node that shows some, under its title.
Thumbnails of workflows that need a real model are pictures of the graph, from `tests/browser`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

ROOT = Path(__file__).resolve().parent.parent
SIZE = 640
GAP = 10
TITLE = 26
BACKGROUND, INK = (32, 32, 36), (235, 235, 235)
RESAMPLING = Image.Resampling.LANCZOS
SHOWS = ("SaveImage", "PreviewImage", "DPT_Compare")


Line = list[tuple[str, Image.Image]]
"""Pictures side by side, each with the title above it, or none."""


def lines_of(shown: list[tuple[str, list[Image.Image]]]) -> list[Line]:
    """Title and pictures of each node, four pictures a line; two single ones share a line."""
    lines: list[Line] = []
    for title, pictures in shown:
        named = list(zip([title, *[""] * len(pictures)], pictures, strict=False))
        if len(pictures) == 1 and lines and len(lines[-1]) == 1:
            lines[-1] += named
        else:
            lines += [named[start : start + 4] for start in range(0, len(named), 4)]
    return lines


def compose(lines: list[Line]) -> Image.Image:
    """Lines of pictures, from the top, in a square."""
    square = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    draw, font = ImageDraw.Draw(square), ImageFont.load_default(18)
    heights = [height_of(line, SIZE / min(2, len(lines))) for line in lines]
    titles = [TITLE if any(title for title, _ in line) else 0 for line in lines]
    free = SIZE - sum(titles) - (len(lines) + 1) * GAP
    scale = min(1.0, free / sum(heights))
    top = GAP + max(0, free - sum(heights)) // 2
    for line, height, title_height in zip(lines, heights, titles, strict=True):
        height = int(height * scale)
        shown = [ImageOps.contain(picture, (SIZE, height), RESAMPLING) for _, picture in line]
        left = (SIZE - sum(picture.width + GAP for picture in shown) + GAP) // 2
        for (title, _), picture in zip(line, shown, strict=True):
            draw.text((left, top), title, fill=INK, font=font)
            square.paste(picture, (left, top + title_height))
            left += picture.width + GAP
        top += title_height + height + GAP
    return square


def height_of(line: Line, most: float) -> int:
    """Pixels of a line that fills the width."""
    ratio = sum(picture.width / picture.height for _, picture in line)
    return int(min(most, (SIZE - (len(line) + 1) * GAP) / ratio))


def needs_no_download(prompt: dict) -> bool:
    return any(node["class_type"] == "DPT_DemoModel" for node in prompt.values())


def main(names: list[str]) -> None:
    """Run workflows in a ComfyUI and write their thumbnails."""
    sys.path.append(str(ROOT / "tests" / "host"))
    from comfy_server import Server

    paths = {path.stem: path for path in sorted((ROOT / "api_workflows").glob("*.json"))}
    prompts = {name: json.loads(path.read_text()) for name, path in paths.items()}
    chosen = names or [name for name, prompt in prompts.items() if needs_no_download(prompt)]
    with tempfile.TemporaryDirectory() as base:
        server = Server(Path(base))
        server.start()
        try:
            for name in chosen:
                outcome = server.run(prompts[name])
                if outcome.error:
                    raise RuntimeError(f"{name}: {outcome.error}")
                shown = {node["class_type"]: number for number, node in prompts[name].items()}
                nodes = prompts[name].items()
                if whole := shown.get("DPT_Compare"):
                    nodes = [(whole, {**prompts[name][whole], "_meta": {"title": ""}})]
                shown = [
                    (node["_meta"]["title"], [Image.open(server.output(item)).convert("RGB")
                                              for item in outcome.outputs[number]["images"]])
                    for number, node in nodes
                    if node["class_type"] in SHOWS
                ]  # fmt: skip
                compose(lines_of(shown)).save(ROOT / "workflows" / f"{name}.jpg", quality=88)
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
