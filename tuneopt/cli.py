"""The command line: which commands there are, and how bad input ends. Heavy imports wait until a command runs."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from tuneopt.commands import compare, corpora, ledgers, listings, models, predict, reports, studies, sweeps
from tuneopt.commands.options import BAD_INPUT, DONE, INTERRUPTED
from tuneopt.errors import InputError, NoRoomError, no_room, visible
from tuneopt.train.launch import RankFailedError

app = typer.Typer(
    name="tuneopt",
    help="Fair comparisons of language-model pretraining optimizers, on a laptop or a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    compare.compare,
    sweeps.tune,
    sweeps.train,
    reports.report,
    listings.optimizers,
    listings.space,
    listings.doctor,
):
    app.command()(command)
app.command()(predict.predict)
app.command()(models.export)
app.add_typer(ledgers.app, name="ledger")
app.add_typer(corpora.app, name="data")
app.add_typer(studies.app, name="study")


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit code 2, never in a traceback.

    A polite end (SIGTERM, as batch systems and container engines send it) counts as Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = _refuse(str(error))
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        code = _refuse(message.rstrip(".") + "; see `tuneopt --help`") if message else BAD_INPUT
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except RankFailedError as error:
        _refuse(str(error))
        code = 1
    except OSError as error:
        if not no_room(error):
            raise
        code = _refuse(str(NoRoomError(error.filename or "what this command writes")))
    sys.exit(code if isinstance(code, int) else DONE)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _refuse(sentence: str) -> int:
    sys.stderr.write("tuneopt: " + visible(" ".join(sentence.split())) + "\n")
    return BAD_INPUT
