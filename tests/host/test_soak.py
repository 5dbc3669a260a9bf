"""A short soak: `python -m benchmarks.soak` queues hundreds."""

from __future__ import annotations

from benchmarks.soak import BAD, GOOD, WRONG, soak


def test_prompts_good_wrong_and_interrupted_one_after_another(server):
    prompts = WRONG * 3
    found = soak(server, prompts)
    assert not found.failures, found.failures
    assert found.refused == 3 and found.interrupted >= 1
    assert found.done + found.refused + found.interrupted == prompts


def test_every_node_that_draws_or_reads_is_among_them():
    kinds = {each["class_type"] for make in (*GOOD, *BAD) for each in make(1).values()}
    assert kinds >= {
        "DPT_DemoModel", "DPT_LoadAdapter", "DPT_ApplyLoRA", "DPT_TextEncode", "DPT_KSampler",
        "DPT_SelfCorrection", "DPT_SearchKSampler", "DPT_AlignmentScore", "DPT_SelectBest",
        "DPT_GroundPhrase", "DPT_Compare", "DPT_Explain", "DPT_ScenePrompts",
    }  # fmt: skip
