"""What a picture costs: floating point operations, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..generation import Sampling
from .arms import Arm, Ways, arm_of, draw
from .models import Measure, Models


def work(models: Models, arm: Arm, prompt: str, measure: Measure) -> int:
    """Floating point operations of one picture of an arm, the choice between candidates included.

    Args:
        models: what draws.
        arm: how.
        prompt: any; its length does not matter.
        measure: how an arm that chooses scores its candidates.
    """
    return count_operations(lambda: draw(models, arm, [prompt], [0], measure))


def equal_candidates(models: Models, corrected: Sampling, prompt: str, measure: Measure) -> int:
    """How many candidates cost about what one corrected picture costs; at least 2."""
    one, pair = (arm_of(name, Ways(corrected)) for name in ("self-correction", "best-of-2"))
    budget = work(models, one, prompt, measure)
    return max(2, round(2 * budget / work(models, pair, prompt, measure)))


def count_operations(run: Callable[[], Any]) -> int:
    """Floating point operations of matrix products and convolutions, forward and backward.

    By the formulas of `torch.utils.flop_counter`, whose own counter watches modules in a way that
    `torch.autograd.grad`, and with it self-correction, does not allow. Attention is computed as
    matrix products meanwhile: there are no formulas for the kernels of CPUs.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
            result = function(*args, **(kwargs or {}))
            if formula := flop_registry.get(function._overloadpacket):
                self.total += formula(*args, **(kwargs or {}), out_val=result)
            return result

    with Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.total
