"""Options that several commands share. Each group makes a settings object of the core."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from ..correction import CUSTOM, PRESETS, Correction
from ..evaluation import defaults
from ..search import Search

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

DemoArchitecture = Annotated[
    Literal["unet", "dit"],
    Parameter(help="The demo's UNet, or its transformer (dit)."),
]

BALANCED = next(iter(PRESETS))

PRESET_HELP = (
    f"How to correct: {', '.join(PRESETS)}. Settings given beside it take the place of the "
    f"preset's own; {CUSTOM} is {BALANCED} under another name."
)


def _options_of(name: str, settings: type, origin: str, several: bool = False, *first: Any) -> type:
    """Options of every setting of a dataclass, none of which is given by default.

    Args:
        name: of the class that is made.
        settings: a dataclass of :func:`~dpt_core.settings.setting` fields.
        origin: where the value of what is not given comes from, for people.
        several: each may be given several times.
        first: fields before them.
    """
    made: list[Any] = list(first)
    for each in fields(settings):
        kind = type(each.default)
        kind = list[kind] if several else kind
        help = f"{each.metadata['help']} [{origin}: {each.default}]"
        shown = Parameter(help=help, show_default=False)
        made.append((each.name, Annotated[kind | None, shown], field(default=None)))
    # The module's name lets cyclopts find the annotations.
    base = make_dataclass(name, made, frozen=True, namespace={"__module__": __name__})
    return Parameter(name="*")(base)


_PRESET = ("preset", Annotated[str, Parameter(help=PRESET_HELP)], BALANCED)

CorrectionOptions = _options_of("CorrectionOptions", Correction, BALANCED, False, _PRESET)
"""`preset` and every field of :class:`~dpt_core.correction.Correction`, None where not given."""

SweepOptions = _options_of("SweepOptions", Correction, BALANCED, True, _PRESET)
"""The same with lists of values."""

SearchOptions = _options_of("SearchOptions", Search, "of a search")
"""Every field of :class:`~dpt_core.search.Search`, None where not given."""


def search_of(options: Any) -> Search | None:
    """The search that options describe; None where none of them is given.

    Raises:
        ValueError: the settings cannot be.
    """
    settings = given(options)
    return Search(**settings) if settings else None


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
        guidance: Guidance scale, at least 1; 1 for distilled models, which need none. Flux is told
            it.
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
