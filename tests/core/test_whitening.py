"""Training in whitened coordinates changes how the input map learns, not what it is."""

import pytest
import torch

from dpt_core import AdapterConfig, DiscriminativeAdapter
from dpt_core.training.whitening import whitened_input

STRENGTHS = torch.tensor([30.0, 10.0, 5.0, 3.0])


@pytest.fixture(params=[1, 2])
def adapter(request):
    torch.manual_seed(0)
    config = AdapterConfig(
        in_channels=4, text_width=8, patch=request.param, width=16, heads=2, feed_forward=32
    )
    return DiscriminativeAdapter(config)


@pytest.fixture
def features():
    """Correlated: a strong direction and faint ones, none along a channel."""
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.randn(4, 4))[0]
    return torch.einsum("dc,nchw->ndhw", turn * STRENGTHS, torch.randn(200, 4, 8, 8))


def test_entering_and_leaving_changes_nothing(adapter, features):
    before = {key: value.clone() for key, value in adapter.state_dict().items()}
    with whitened_input(adapter, features):
        torch.testing.assert_close(adapter.input_proj.weight, before["input_proj.weight"])
    after = adapter.state_dict()
    assert set(after) == set(before)
    torch.testing.assert_close(dict(after), before)
    assert isinstance(adapter.input_proj.weight, torch.nn.Parameter)


def test_faint_directions_learn_as_fast_as_strong_ones(adapter, features):
    """The energy of the cells is to go: half a step of gradient descent halves the whole map."""
    before = adapter.input_proj.weight.detach().clone()
    with whitened_input(adapter, features):
        trained = adapter.input_proj.parametrizations.weight.original
        cells = torch.nn.functional.conv2d(
            features, adapter.input_proj.weight, stride=adapter.config.patch
        )
        (gradient,) = torch.autograd.grad(cells.square().sum(1).mean() / 2, trained)
        trained.data -= 0.5 * gradient
    atol = {1: 1e-3, 2: 3e-3}[adapter.config.patch]  # of more weights more are tiny
    torch.testing.assert_close(adapter.input_proj.weight, before / 2, rtol=0.1, atol=atol)


def test_a_fresh_map_gives_cells_of_unit_variance(adapter, features):
    with whitened_input(adapter, features, fresh=True):
        pass
    cells = adapter.input_proj(features)
    assert cells.var().item() == pytest.approx(1, abs=0.05)
    assert not adapter.input_proj.bias.any()


def test_leaving_by_an_error_still_restores_the_plain_map(adapter, features):
    with pytest.raises(RuntimeError, match="stop"), whitened_input(adapter, features):
        raise RuntimeError("stop")
    assert "input_proj.weight" in adapter.state_dict()
