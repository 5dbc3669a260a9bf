"""Prompts of named benchmarks, and planning with thousands of them."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest

from dpt_core.evaluation.arms import Arm
from dpt_core.evaluation.benchmarks import NSS1K, open_prompts
from dpt_core.evaluation.run import RunFolder, missing
from dpt_core.generation import Sampling
from dpt_core.training.data.examples import DataError


def test_named_benchmarks_say_their_categories(tmp_path):
    lines = ["a red car", "", "a blue car", "a cat", "a dog"]
    (tmp_path / "ABC-6K.txt").write_text("\n".join(lines))
    prompts = open_prompts("abc-6k", tmp_path).prompts
    assert [prompt.text for prompt in prompts] == [line for line in lines if line]
    assert [prompt.category for prompt in prompts] == ["caption", "swapped"] * 2
    assert prompts[0].seed == prompts[1].seed != prompts[2].seed == prompts[3].seed
    assert prompts[1:3] == [prompts[1], prompts[2]] and prompts[-1].index == 3
    again = open_prompts("abc-6k", tmp_path / "ABC-6K.txt", seed=1, limit=2).prompts
    assert len(again) == 2 and again[0].seed != prompts[0].seed
    entries = [{"captions": f"caption {place} "} for place in range(943)]
    path = tmp_path / "COCO-NSS1K.json"
    path.write_text(json.dumps(entries))
    prompts = open_prompts("coco-nss1k", path).prompts
    found = [prompt.category for prompt in prompts]
    assert found == [name for name, count in NSS1K.items() for _ in range(count)]
    assert prompts[355].text == "caption 355"
    assert len(open_prompts("shapes", limit=6).prompts) == 6


def test_published_files(shared_prompts):
    numbers = {"cc-500": 602, "abc-6k": 6434, "coco-nss1k": 943}
    for source, number in numbers.items():
        assert len(open_prompts(source, shared_prompts).prompts) == number
    # What the order of COCO-NSS1K rests on: ids rise in two of its parts, and only in whole ones.
    ids = [each["img_id"] for each in json.loads((shared_prompts / "COCO-NSS1K.json").read_text())]
    falls = [place for place in range(1, 943) if ids[place] < ids[place - 1]]
    assert falls[0] == 155 and {555, 743} <= set(falls)
    assert not any(555 < place < 743 for place in falls)


@pytest.fixture
def shared_prompts():
    folder = Path(__file__).resolve().parents[3] / "shared" / "prompts"
    if not folder.is_dir():
        pytest.skip("the benchmarks' prompts (../shared/prompts) are not beside this checkout")
    return folder


def test_bad_prompts(tmp_path):
    (tmp_path / "ABC-6K.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match="even number of lines; got 3"):
        open_prompts("abc-6k", tmp_path)
    (tmp_path / "COCO-NSS1K.json").write_text("[]")
    with pytest.raises(DataError, match="the 943 entries"):
        open_prompts("coco-nss1k", tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    for source, path, message in (
        ("cc-500", None, "give the path of CC-500.txt"),
        ("cc-500", tmp_path, "expected a data file at .*CC-500.txt"),
        ("other", None, "cc-500, abc-6k, coco-nss1k, shapes or a text file"),
        (str(tmp_path / "empty.txt"), None, "a prompt per line; got none"),
        (str(tmp_path / "empty.txt"), tmp_path, "'.*empty.txt' is none of them"),
    ):
        with pytest.raises(ValueError, match=message):
            open_prompts(source, path)


def test_six_thousand_prompts_plan_and_resume_in_little_memory(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"prompt {place} {'with many words ' * 20}\n" for place in range(6000)))
    arms = [Arm(name, name, Sampling()) for name in ("a", "b", "c", "d")]
    start = time.perf_counter()
    tracemalloc.start()
    prompts = open_prompts(str(path)).prompts
    folder = RunFolder(tmp_path / "run", {}, arms)
    planned = sum(len(batch) for _, _, batch in missing(arms, range(6000), folder, 8))
    for arm in arms[:3]:
        for batch in range(750):
            folder.write_rows(arm, batch, [{"index": batch}])
    left = [batch[0].index for _, _, batch in missing(arms, prompts, folder, 8)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert planned == 24_000 and left == list(range(0, 6000, 8))
    assert peak < 1_000_000  # the file has 2 MB, its prompts as objects more
    assert time.perf_counter() - start < 20
