"""What correction leaves behind: nothing."""

from __future__ import annotations

import pytest
import torch
from comfy.model_management import InterruptProcessingException
from dpt_pack.dpt_core.correction import MODES, PRESETS, Correction
from dpt_pack.nodes.host.correction import with_self_correction
from runs import corrected, distance, sample
from tiny_models import tiny_adapter, tiny_model


def everything(model) -> dict[str, tuple[int, bytes]]:
    """Address and bytes of every parameter and buffer."""
    tensors = {**dict(model.model.named_parameters()), **dict(model.model.named_buffers())}
    return {
        name: (id(tensor), tensor.data_ptr(), tensor.cpu().numpy().tobytes())
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("adapter, strength", [(True, 0.0), (False, 0.5)])
def test_off_is_the_unmodified_model(adapter, strength):
    model = tiny_model("sd15")
    adapter = tiny_adapter() if adapter else None
    assert with_self_correction(model, adapter, Correction(strength)) is model


@pytest.mark.parametrize("mode", MODES)
def test_a_run_changes_nothing(mode):
    model, adapter = tiny_model("sd15"), tiny_adapter()
    plain, before = sample(model), everything(model)
    adapter_before = everything(adapter.patcher)
    moved, scores = corrected(model, adapter, mode=mode)
    first = sample(moved)
    assert distance(first, plain) > 1e-3
    assert torch.equal(sample(moved), first)
    assert torch.equal(sample(model), plain)
    assert everything(model) == before
    assert everything(adapter.patcher) == adapter_before
    assert len(scores) == 2 * (4 - (mode == "lagged"))
    assert not any("forward" in vars(module) for module in model.model.modules())


def test_an_interrupted_run_changes_nothing():
    model, adapter = tiny_model("sd15"), tiny_adapter()
    plain, before = sample(model), everything(model)

    def interrupt(step, steps, scores) -> None:
        if step == 2:
            raise InterruptProcessingException

    moved = with_self_correction(model, adapter, PRESETS["published"], interrupt)
    with pytest.raises(InterruptProcessingException):
        sample(moved)
    assert torch.equal(sample(model), plain)
    assert everything(model) == before
    again, _ = corrected(model, adapter)
    fresh, _ = corrected(tiny_model("sd15"), adapter)
    assert torch.equal(sample(again), sample(fresh))


def test_the_input_model_is_not_changed():
    model, adapter = tiny_model("sd15"), tiny_adapter()
    options = repr(model.model_options)
    corrected(model, adapter)
    assert repr(model.model_options) == options
    assert not any(model.wrappers.values())


def test_a_second_correction_replaces_the_first():
    model, adapter = tiny_model("sd15"), tiny_adapter()
    first, first_scores = corrected(model, adapter, 1.0)
    second, scores = corrected(first, adapter)
    alone, _ = corrected(model, adapter)
    assert torch.equal(sample(second), sample(alone))
    assert scores and not first_scores
