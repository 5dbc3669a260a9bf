"""One run of self-correction, on rows whose score is a formula."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from dpt_core import PRESETS, Correction
from dpt_core.backbones.base import Noise
from dpt_core.backbones.stable_diffusion import DiscreteNoise
from dpt_core.corrector import LEAST_SIGNAL, Corrector

STEPS = [999.0, 899.0, 799.0, 699.0, 599.0]
SCHEDULER = SimpleNamespace(alphas_cumprod=torch.linspace(0.999, 0.0047, 1000).double())
PATH = DiscreteNoise(SCHEDULER)
LAGGED = Correction(10.0, 0.0, 1.0, 1, "lagged", "published")


@dataclass
class Rows:
    """Rows whose score is `text · x`: the gradient is the text, wherever it is taken."""

    x: torch.Tensor
    level: float
    text: torch.Tensor
    mask: torch.Tensor | None = None
    reached: bool = True

    def __post_init__(self) -> None:
        self.sigma = torch.full((len(self.x),), self.level)
        self.image = torch.arange(len(self.x))
        self.asked: list[torch.Tensor] = []

    def gradients(self, x):
        self.asked.append(x)
        return (self.text * x.flatten(1)).sum(1), self.text.view_as(x)

    def predictions(self, x):
        return x, *(self.gradients(x) if self.reached else (None, None))


def begun(correction: Correction = LAGGED, listener=None) -> Corrector:
    run = Corrector(correction, PATH, listener)
    run.begin(STEPS)
    return run


def latents(seed: int, rows: int = 1, side: int = 8) -> torch.Tensor:
    return torch.randn(rows, 1, side, side, generator=torch.Generator().manual_seed(seed))


def texts(*values: float, side: int = 8) -> torch.Tensor:
    return torch.stack([torch.full((side * side,), value) for value in values])


def test_each_tile_goes_on_from_its_own_move():
    """Tiles come in another order, one is new, one has another shape: none takes another's move."""
    run, first, second = begun(), latents(0), latents(1)
    strong, weak = Rows(first, 999.0, texts(0.1)), Rows(second, 999.0, texts(0.1))
    weak.text = texts(0.1)
    for rows in (strong, weak):
        assert not run.correct(rows).move.any()  # nothing moved before the first step
    run._now.after[0] *= 3  # so that the two can be told apart
    moves = [run.correct(Rows(x, 899.0, texts(0.1))).move for x in (second, first)]
    torch.testing.assert_close(moves[1], 3 * moves[0])
    new = Rows(latents(2), 899.0, texts(0.1))
    torch.testing.assert_close(run.correct(new).move, 10.0 * new.text.view_as(new.x))
    other_shape = Rows(latents(3, side=4), 899.0, texts(0.1, side=4))
    assert run.correct(other_shape).move.shape == other_shape.x.shape


def test_rows_know_their_text():
    run, x = begun(), latents(0, rows=2)
    run.correct(Rows(x, 999.0, texts(0.1, -0.1)))
    turned = run.correct(Rows(x.flip(0), 899.0, texts(-0.1, 0.1))).move
    assert turned[0].mean() < 0 < turned[1].mean()


def test_the_same_latent_moves_once_in_a_step():
    for mode in ("exact", "lagged", "guidance"):
        run, x = begun(replace(LAGGED, mode=mode)), latents(0)
        run.correct(Rows(x, 999.0, texts(0.1)))
        once = run.correct(Rows(x, 899.0, texts(0.1)))
        again = Rows(x, 899.0, texts(0.1))
        twice = run.correct(again)
        assert not again.asked, mode
        torch.testing.assert_close(twice.move, once.move)
        if mode == "guidance":
            torch.testing.assert_close(twice.clean, once.clean)


def test_a_run_from_noise_moves_from_its_second_step_on_and_one_part_way_at_once():
    rows = Rows(latents(0), 999.0, texts(0.1))
    assert not begun().correct(rows).move.any()
    late = Rows(latents(0), 699.0, texts(0.1))
    torch.testing.assert_close(begun().correct(late).move, 10.0 * late.text.view_as(late.x))


def test_a_run_forgets_the_one_before():
    run, x = begun(), latents(0)
    run.correct(Rows(x, 999.0, texts(0.1)))
    run.begin(STEPS)
    assert not run.correct(Rows(x, 999.0, texts(0.1))).move.any()
    assert run.corrected == {0}


def test_a_pass_that_never_comes_to_the_tap_keeps_the_move():
    run, x = begun(), latents(0)
    run.correct(Rows(x, 999.0, texts(0.1)))
    skipped = run.correct(Rows(x, 899.0, texts(0.1), reached=False)).move
    after = run.correct(Rows(x, 799.0, texts(0.1))).move
    torch.testing.assert_close(after, skipped)
    assert run.corrected == {0, 2}


def test_steps_are_counted_on_from_an_earlier_run():
    run = Corrector(replace(LAGGED, mode="exact", every_n_steps=2), PATH)
    run.begin(STEPS)
    assert [run.is_due(level) for level in STEPS] == [True, False, True, False, True]
    assert run.is_due(850.0) == run.is_due(899.0)  # inside a step, as second-order samplers call
    run.begin(STEPS, offset=3)
    assert [run.is_due(level) for level in STEPS] == [False, True, False, True, False]


def test_the_steps_between_two_gradients_keep_the_last_move():
    run = begun(replace(LAGGED, every_n_steps=2))
    assert all(run.is_due(level) for level in STEPS)
    assert [run.is_read(level) for level in STEPS] == [True, False, True, False, False]
    moves, asked = [], []
    for level, value in zip(STEPS, (0.1, 0.1, 0.3, 0.3, 0.3), strict=True):
        rows = Rows(latents(0), level, texts(0.1))
        rows.gradients = lambda x, rows=rows, value=value: (
            rows.asked.append(x), (x.flatten(1).sum(1), torch.full_like(x, value)),
        )[1]  # fmt: skip
        todo = run.correct(rows)
        moves.append(float(todo.move.mean()))
        asked.append(bool(rows.asked))
        assert (todo.prediction is None) != asked[-1]  # without a gradient one plain pass does
    assert asked == [True, False, True, False, False]
    assert moves == pytest.approx([0.0, 1.0, 1.0, 2.0, 2.0])
    assert run.corrected == set(range(len(STEPS))) and len(run.scores) == 2


def test_nobody_takes_the_gradient_that_nothing_follows():
    run = begun(replace(LAGGED, end_percent=0.5))
    due = [level for level in STEPS if run.is_due(level)]
    assert [run.is_read(level) for level in due] == [True] * (len(due) - 1) + [False]


def test_a_single_corrected_step_tells_its_score():
    run = begun(replace(LAGGED, end_percent=0.05))
    rows = Rows(latents(0), 999.0, texts(0.1))
    todo = run.correct(rows)
    assert todo.move.any() and todo.prediction is None
    assert len(rows.asked) == len(run.scores) == 1 and run.corrected == {0}


def test_nothing_moves_under_the_mask():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    for mode in ("exact", "guidance"):
        todo = begun(replace(LAGGED, mode=mode)).correct(
            Rows(latents(0), 999.0, texts(0.1), mask=mask)
        )
        moved = todo.clean if mode == "guidance" else todo.move
        assert moved[..., :4].all() and not moved[..., 4:].any(), mode


def test_guidance_stays_bounded_where_no_signal_is_left():
    path = DiscreteNoise(SimpleNamespace(alphas_cumprod=torch.zeros(1000).double()))
    run = Corrector(replace(LAGGED, mode="guidance"), path)
    run.begin(STEPS)
    clean = run.correct(Rows(latents(0), 999.0, texts(0.1))).clean
    torch.testing.assert_close(clean, torch.full_like(clean, 10.0 * 0.1 / LEAST_SIGNAL))


def test_the_listener_hears_each_picture_once():
    heard = []
    run = begun(replace(LAGGED, mode="exact"), lambda *told: heard.append(told))
    rows = Rows(latents(0, rows=4), 899.0, texts(0.1, 0.1, 0.2, 0.2))
    rows.image = torch.tensor([0, 1, 0, 1])  # two chunks of two pictures
    scores, _ = rows.gradients(rows.x)
    run.correct(rows)
    ((step, steps, means),) = heard
    assert (step, steps) == (1, len(STEPS))
    torch.testing.assert_close(means, (scores[:2] + scores[2:]) / 2)


def test_a_noise_path_leads_back():
    sigma = torch.tensor([999.0, 500.0, 3.0])
    alpha, noise = PATH.weights(sigma)
    torch.testing.assert_close(alpha.square() + noise.square(), torch.ones_like(alpha))
    assert [PATH.sigma(float(level)) for level in PATH.level(sigma)] == sigma.tolist()
    known = Noise.of(PATH, sigma, torch.zeros(3, 1, 2, 2))
    torch.testing.assert_close(known.variance + known.signal.square(), torch.ones(3, 1, 1, 1))
    ratio = (noise / alpha).float()  # of flow-like latents: x = x₀ + ratio·ε
    flow = SimpleNamespace(weights=lambda sigma: (torch.ones_like(ratio), ratio))
    torch.testing.assert_close(Noise.of(flow, sigma, torch.zeros(3, 1)).variance.flatten(),
                               known.variance.flatten())  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_made_anew(name):
    wanted = PRESETS[name]
    assert Correction.chosen(name) == wanted == replace(wanted)


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"strength": float("nan")}, "strength must be a number from 0 to 10000; got nan"),
        ({"strength": float("inf")}, "strength"),
        ({"strength": -1.0}, "strength"),
        ({"strength": "40"}, "strength"),
        ({"end_percent": float("nan")}, "end_percent"),
        ({"end_percent": 5.0}, "end_percent must be a number from 0 to 1; got 5.0"),
        ({"every_n_steps": 0}, "every_n_steps must be a whole number from 1"),
        ({"every_n_steps": 1.5}, "every_n_steps"),
        ({"every_n_steps": True}, "every_n_steps"),
        ({"inner_steps": 21, "mode": "exact"}, "inner_steps"),
        ({"start_percent": 0.7}, "must not exceed end_percent"),
        ({"mode": "x"}, "mode must be one of exact, lagged, guidance"),
        ({"step": None}, "step must be one of"),
        ({"inner_steps": 2}, "needs mode exact"),
    ],
)
def test_settings_that_cannot_be(settings, told):
    with pytest.raises(ValueError, match=told):
        Correction(**settings)
    with pytest.raises(ValueError, match="preset must be one of balanced"):
        Correction.chosen("best")
