"""All commands, and how each of them ends."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from . import say
from .convert import convert
from .demo import demo
from .evaluate import app as evaluate
from .generate import generate
from .score import score
from .train import app as train

STOPPED = 130
"""Exit code after Ctrl-C, as shells expect."""

app = App(
    "dpt",
    help=(
        "Discriminative probing and tuning for text-to-image generation.\n\n"
        'Begin with: dpt demo "a red circle left of a blue square"\n\n'
        "dpt COMMAND --help shows a command's options, with examples."
    ),
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative_iterable=()),
)
for command in (demo, generate, score, convert):
    app.command(command)
app.command(evaluate)
app.command(train)


def run(words: Sequence[str]) -> int:
    """Run a command; what a user can change is said in a line and never as a traceback.

    Args:
        words: the command line after `dpt`.

    Returns:
        The exit code: 0, 2 for what a user can change, 130 after a stop.
    """
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except KeyboardInterrupt as stopped:
        say(str(stopped) or "stopped")
        return STOPPED
    except CycloptsError as error:
        say(f"{error} `dpt {' '.join(_command(words))} --help` lists what there is.")
        return 2
    except (OSError, ValueError, ImportError, FloatingPointError) as error:
        say(str(error))
        return 2
    return 0


def _command(words: Sequence[str]) -> list[str]:
    """The words that name a command."""
    names, _, _ = app.parse_commands(words)
    return list(names)
