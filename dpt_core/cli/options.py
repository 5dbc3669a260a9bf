"""Options that several commands share. Each group makes a settings object of the core."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ..correction import CUSTOM, PRESETS, Correction
from ..evaluation import defaults

if TYPE_CHECKING:
    from ..evaluation.models import Measure
    from ..generation import Sampling

Natural = Annotated[int, Parameter(validator=Number(gte=0))]
Positive = Annotated[int, Parameter(validator=Number(gte=1))]

Adapter = Annotated[Path, Parameter(help="A DPT checkpoint: .safetensors or published .bin.")]
Lora = Annotated[float, Parameter(help="Strength of the checkpoint's LoRA; 0 is off.")]
Device = Annotated[
    str, Parameter(help="Where to compute: auto (a GPU if there is one), cpu, cuda, mps.")
]
DemoWeights = Annotated[
    Path | None, Parameter(help="Folder with the demo model's files, if not those that ship.")
]

BALANCED = next(iter(PRESETS))

PRESET_HELP = (
    f"How to correct: {', '.join(PRESETS)}. Settings given beside it take the place of the "
    f"preset's own; {CUSTOM} is {BALANCED} under another name."
)


def _correction_options(name: str, several: bool) -> type:
    """Options of every setting of a correction, none of which is given by default.

    Args:
        name: of the class.
        several: each may be given several times.
    """
    made: list[Any] = [("preset", Annotated[str, Parameter(help=PRESET_HELP)], BALANCED)]
    for each in fields(Correction):
        kind = type(each.default)
        kind = list[kind] if several else kind
        help = f"{each.metadata['help']} [{BALANCED}: {each.default}]"
        shown = Parameter(help=help, show_default=False)
        made.append((each.name, Annotated[kind | None, shown], field(default=None)))
    # The module's name lets cyclopts find the annotations.
    base = make_dataclass(name, made, frozen=True, namespace={"__module__": __name__})
    return Parameter(name="*")(base)


CorrectionOptions = _correction_options("CorrectionOptions", several=False)
"""`preset` and every field of :class:`~dpt_core.correction.Correction`, None where not given."""

SweepOptions = _correction_options("SweepOptions", several=True)
"""The same with lists of values."""


def given(options: Any) -> dict[str, Any]:
    """Options that were given, of a group where None stands for the others."""
    return {name: value for name, value in vars(options).items() if value is not None}


def correction_of(options: Any) -> Correction:
    """The correction that options describe: a preset, with what is given beside it.

    Raises:
        ValueError: there is no such preset, or the settings cannot be.
    """
    settings = given(options)
    return replace(Correction.chosen(settings.pop("preset")), **settings)


@Parameter(name="*")
@dataclass(frozen=True)
class SamplingOptions:
    """How pictures are drawn.

    Attributes:
        steps: Denoising steps.
        guidance: Classifier-free guidance scale, above 1.
    """

    steps: Positive = 20
    guidance: float = 7.5

    def sampling(self, correction: Correction | None) -> Sampling:
        """The settings of the core.

        Raises:
            ValueError: the guidance is out of range.
        """
        from ..generation import Sampling

        return Sampling(self.steps, self.guidance, correction)


@Parameter(name="*")
@dataclass(frozen=True)
class DemoSamplingOptions(SamplingOptions):
    """As the demo model is drawn from best."""

    steps: Positive = defaults.STEPS
    guidance: float = defaults.GUIDANCE


@Parameter(name="*")
@dataclass(frozen=True)
class MeasureOptions:
    """How finished pictures are scored.

    Attributes:
        timestep: Noise level at which is scored, 0 to 999.
        draws: Noise draws that a score is averaged over.
    """

    timestep: Annotated[int, Parameter(validator=Number(gte=0, lte=999))] = 500
    draws: Positive = 4

    def measure(self, **more: Any) -> Measure:
        """The settings of the core."""
        from ..evaluation.models import Measure

        return Measure(self.timestep, self.draws, **more)
