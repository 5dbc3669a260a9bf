"""The nodes in a running ComfyUI, over its HTTP API."""

from __future__ import annotations

import re

import pytest
import requests
from comfy_server import Server
from dpt_pack.nodes.host.aliases import search_aliases
from PIL import Image
from safetensors.torch import load_file

NODES = [
    "DPT_LoadAdapter", "DPT_ApplyLoRA", "DPT_TextEncode", "DPT_SelfCorrection", "DPT_KSampler",
    "DPT_SearchKSampler", "DPT_AlignmentScore", "DPT_SelectBest", "DPT_GroundPhrase",
    "DPT_Compare", "DPT_DemoModel", "DPT_Explain", "DPT_ScenePrompts",
]  # fmt: skip
SAMPLING = {
    "seed": 3, "steps": 4, "cfg": 7.5, "sampler_name": "euler", "scheduler": "normal",
    "denoise": 1.0,
}  # fmt: skip
CORRECTION = {
    "preset": "custom", "strength": 500.0, "start_percent": 0.0, "end_percent": 1.0,
    "every_n_steps": 1, "mode": "exact",
}  # fmt: skip


def node(class_type: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def prompt(adapter: str | None = "tiny.safetensors", **changes) -> dict:
    """A prompt that samples with DPT_KSampler and saves latent, pictures and report."""
    sampler = {
        **SAMPLING, **CORRECTION, "model": ["model", 0], "positive": ["positive", 0],
        "negative": ["negative", 0], "latent_image": ["empty", 0],
    }  # fmt: skip
    nodes = {
        "model": node("Tiny_Model", family="sd15"),
        "positive": node("DPT_TextEncode", clip=["model", 1], text="a red cube"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "adapter": node("DPT_LoadAdapter", adapter_name=adapter),
        "sampler": node("DPT_KSampler", **{**sampler, "adapter": ["adapter", 0], **changes}),
        "latent": node("SaveLatent", samples=["sampler", 0], filename_prefix="latent"),
        "report": node("SaveImage", images=["sampler", 1], filename_prefix="report"),
    }
    if adapter is None:
        del nodes["adapter"], nodes["sampler"]["inputs"]["adapter"]
    return nodes


def latent_of(server, outcome):
    assert outcome.error is None, outcome.error
    (item,) = outcome.outputs["latent"]["latents"]
    return load_file(server.output(item))["latent_tensor"]


def test_nodes_and_their_help(server):
    for name in NODES:
        schema = server.get(f"object_info/{name}")[name]
        assert schema["category"].split("/")[0] == "DPT"
        assert schema["description"]
        inputs = {**schema["input"]["required"], **schema["input"].get("optional", {})}
        untold = [key for key, value in inputs.items() if not value[1].get("tooltip")]
        assert not untold, name
        assert all(schema["output_tooltips"]), name
    files = server.get("object_info/DPT_LoadAdapter")["DPT_LoadAdapter"]["input"]["required"]
    options = files["adapter_name"][1].get("options") or files["adapter_name"][0]
    assert "tiny.safetensors" in options
    assert options[-1] == "the demo model's"


def test_corrected_sampling(server):
    outcome = server.run(prompt())
    latent = latent_of(server, outcome)
    assert latent.isfinite().all() and latent.shape == (2, 4, 16, 16)
    (report,) = outcome.outputs["report"]["images"]
    assert Image.open(server.output(report)).size == (768, 512)
    *steps, last = [text for text in outcome.texts if "step" in text]
    bars = "[▁▂▃▄▅▆▇█]"
    assert re.search(rf"done: -?\d\.\d\d → -?\d\.\d\d, corrected 4 of 4 steps {bars}{{4}}$", last)
    assert re.search(rf"step 4 of 4: score -?\d\.\d\d [↑→↓] {bars}{{4}}$", steps[-1])
    assert [re.search(r"step \d of \d", text)[0] for text in steps] == [
        f"step {step} of 4" for step in range(1, 5)
    ]
    assert outcome.previews
    again = server.run(prompt())
    assert latent.equal(latent_of(server, again))


def test_a_subgraph_shows_what_goes_on_inside(server):
    """The front end calls node 3 of subgraph 5 `5:3`; who looks at 5 sees the curve, too."""
    nodes = prompt()
    nodes["5:3"] = nodes.pop("sampler")
    nodes["latent"]["inputs"]["samples"] = ["5:3", 0]
    del nodes["report"]
    outcome = server.run(nodes)
    assert outcome.error is None, outcome.error
    assert {told["node"] for told in outcome.live} == {"5"}
    *steps, last = [told["text"] for told in outcome.live]
    assert [text.split(":")[0] for text in steps] == [f"step {n} of 4" for n in range(1, 5)]
    assert re.fullmatch(r"done: -?\d\.\d\d → -?\d\.\d\d [▁▂▃▄▅▆▇█]{4}", last)


def plain(**changes) -> dict:
    nodes = prompt(adapter=None)
    inputs = {
        key: value for key, value in nodes["sampler"]["inputs"].items() if key not in CORRECTION
    }
    nodes["sampler"] = node("KSampler", **{**inputs, **changes})
    del nodes["report"]
    return nodes


@pytest.mark.parametrize("off", ["strength", "adapter"])
def test_switched_off_is_the_hosts_ksampler(server, off):
    nodes = prompt(strength=0.0) if off == "strength" else prompt(adapter=None)
    ours, host = server.run(nodes), server.run(plain())
    assert latent_of(server, ours).equal(latent_of(server, host))
    assert not latent_of(server, server.run(prompt())).equal(latent_of(server, host))


def test_self_correction_in_the_hosts_ksampler(server):
    nodes = plain(model=["corrected", 0])
    nodes["adapter"] = node("DPT_LoadAdapter", adapter_name="tiny.safetensors")
    correcting = {**CORRECTION, "model": ["model", 0], "adapter": ["adapter", 0]}
    nodes["corrected"] = node("DPT_SelfCorrection", **correcting)
    ours = latent_of(server, server.run(prompt()))
    assert latent_of(server, server.run(nodes)).equal(ours)


def test_lora(server):
    nodes = prompt(model=["tuned", 0])
    nodes["tuned"] = node("DPT_ApplyLoRA", model=["model", 0], adapter=["adapter", 0], strength=1.0)
    tuned = latent_of(server, server.run(nodes))
    assert not tuned.equal(latent_of(server, server.run(prompt())))


def test_alignment_score(server):
    nodes = {
        key: value for key, value in prompt().items() if key in ("model", "positive", "adapter")
    }
    nodes["images"] = node("EmptyImage", width=128, height=128, batch_size=3, color=255)
    nodes["score"] = node(
        "DPT_AlignmentScore", model=["model", 0], adapter=["adapter", 0], vae=["model", 2],
        images=["images", 0], positive=["positive", 0], timestep=500, draws=2, seed=1,
    )  # fmt: skip
    nodes["show"] = node("PreviewAny", source=["score", 2])
    nodes["list"] = node("PreviewAny", source=["score", 1])
    outcome = server.run(nodes)
    assert outcome.error is None, outcome.error
    lines = outcome.outputs["show"]["text"][0].splitlines()
    assert [line.split(":")[0] for line in lines] == ["image 1", "image 2", "image 3", "mean"]
    assert any("mean" in text for text in outcome.texts)


BROKEN = {
    "no adapter file": (prompt("no_adapter.safetensors"), "cannot be read as a checkpoint"),
    "another family": (prompt("other_family.safetensors"), "expects 40 channels at tap up1"),
}


@pytest.mark.parametrize("case", [*BROKEN, "no text", "no lora"])
def test_errors_reach_the_dialog_and_the_next_prompt_runs(server, case):
    if case == "no text":
        nodes = prompt()
        nodes["model"]["inputs"]["family"] = "sd21"
        nodes["positive"] = node("CLIPTextEncode", clip=["model", 1], text="a red cube")
        message = "encode the prompt with DPT_TextEncode"
    elif case == "no lora":
        nodes = prompt("stage1.safetensors", model=["tuned", 0])
        tuning = {"model": ["model", 0], "adapter": ["adapter", 0], "strength": 1.0}
        nodes["tuned"] = node("DPT_ApplyLoRA", **tuning)
        message = "stage1.safetensors brings no LoRA"
    else:
        nodes, message = BROKEN[case]
    outcome = server.run(nodes)
    assert outcome.error and message in outcome.error["exception_message"]
    assert server.run(prompt()).error is None


def refused(server, **changes) -> str:
    """What the host says of settings before anything runs; nothing where it takes them."""
    answer = requests.post(
        f"http://{server.address}/prompt", json={"prompt": prompt(**changes)}, timeout=60
    )
    if answer.ok:
        return ""
    assert list(answer.json()["node_errors"]) == ["sampler"]
    return answer.text


def test_contradictions_are_refused_while_wiring(server):
    assert "start_percent (0.9) must not exceed" in refused(
        server, start_percent=0.9, end_percent=0.1
    )
    assert "needs mode exact" in refused(server, mode="lagged", inner_steps=2)
    assert "mode must be one of" in refused(server, mode="exactly")
    assert "preset must be one of" in refused(server, preset="fastest")
    assert "bigger than max" in refused(server, strength=1e9)


def test_only_custom_settings_can_contradict(server):
    """Over the API a preset alone is enough, and what stands beside it does not count."""
    wrong = prompt(preset="balanced", start_percent=0.9, end_percent=0.1)
    bare = prompt(preset="balanced")
    for name in CORRECTION.keys() - {"preset"}:
        del bare["sampler"]["inputs"][name]
    ours, theirs = (latent_of(server, server.run(nodes)) for nodes in (wrong, bare))
    assert ours.equal(theirs)


def test_a_wired_setting_is_checked_when_it_is_there(server):
    nodes = prompt(end_percent=0.1, start_percent=["late", 0])
    nodes["late"] = node("PrimitiveFloat", value=0.9)
    outcome = server.run(nodes)
    assert "must not exceed" in outcome.error["exception_message"]


def test_nodes_are_found_by_what_they_are_for(server):
    if not search_aliases("a word"):
        pytest.skip("this ComfyUI knows no search words")
    found = {name: server.get(f"object_info/{name}")[name] for name in NODES}
    about = [name for name, node in found.items() if "prompt adherence" in node["search_aliases"]]
    assert {"DPT_KSampler", "DPT_SelfCorrection", "DPT_SearchKSampler"} < set(about)
    assert all(node["search_aliases"] for node in found.values())


def test_cancelling_stops_within_a_step(server):
    nodes = prompt(steps=60)
    nodes["empty"]["inputs"] |= {"width": 512, "height": 512}
    cancelled = []

    def cancel(seen) -> None:
        if not cancelled and seen.progress[-1][1] >= 2:
            cancelled.append(len(seen.progress))
            server.post("interrupt", {})

    outcome = server.run(nodes, cancel)
    assert outcome.interrupted
    assert len(outcome.progress) - cancelled[0] <= 1
    before = latent_of(server, server.run(prompt()))
    assert before.equal(latent_of(server, server.run(prompt())))


def import_seconds(server: Server) -> float:
    """What importing our pack took, more than an empty one."""
    times = {
        name: float(seconds)
        for seconds, name in re.findall(
            r"([\d.]+) seconds(?: \([^)]*\))?: .*/(\S+)", server.log.read_text()
        )
    }
    return times["dpt-t2i"] - times["empty_pack"]


def test_import_time(server, tmp_path):
    found = [import_seconds(server)]
    while found[-1] > 0.2 and len(found) < 4:  # the machine was busy: the least counts
        again = Server(tmp_path / str(len(found)))
        again.start()
        again.stop()
        found.append(import_seconds(again))
    assert min(found) <= 0.2, found
