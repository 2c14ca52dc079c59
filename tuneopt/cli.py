"""The command line: which commands there are, and how each one ends. Heavy imports wait until a command runs."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from types import FrameType
from typing import Annotated, Any

import typer

from tuneopt import __version__
from tuneopt.commands import compare, corpora, ledgers, listings, models, reports, studies, sweeps
from tuneopt.commands.options import BAD_INPUT, DONE, INTERRUPTED, UNANSWERED, CommandApp, StoppedError
from tuneopt.errors import TRIAL_LOG, InputError, in_words, of_missing, of_system, staying, visible, working_folder
from tuneopt.ledger.place import ASKING
from tuneopt.paths import check_text
from tuneopt.streams import open_closed, results, take_for_good
from tuneopt.training.launch import RankFailedError

app = CommandApp(
    name="tuneopt",
    help="Fair comparisons of language-model pretraining optimizers, on a laptop or a Ray cluster.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        results().write(f"tuneopt {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What every command has in common; typer shows the app's own help instead of this."""


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
app.command()(listings.predict)
app.command()(models.export)
app.add_typer(listings.scales, name="scale")
app.add_typer(models.app, name="model")
app.add_typer(ledgers.app, name="ledger")
app.add_typer(corpora.app, name="data")
app.add_typer(studies.app, name="study")

_asked_to_end = False
"""Whether a signal has asked this command to end. A library may turn that into an error of its own: one that was
building a class in Rust called the class broken."""

MISTAKE = 1
"""Exit code of what should not happen: a mistake of tuneopt itself."""


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit code 2, never in a traceback.

    A polite end (SIGTERM from batch systems and container engines, SIGHUP from a terminal that closes) counts as
    Ctrl-C.
    """
    global _asked_to_end
    open_closed()
    take_for_good()
    _asked_to_end = False
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Who ignores SIGHUP on purpose (nohup) goes on when the terminal closes.
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), _interrupt)
    code = _run()
    if any(thread.name == ASKING for thread in threading.enumerate()):
        # pyarrow waits at exit for what it asked of a store that is silent, for minutes.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    """The exit code of the command: every exception that gets here is turned into a sentence here, and nowhere else."""
    try:
        for argument in sys.argv[1:]:
            check_text(argument, "the argument")
        with staying():
            code: Any = app(standalone_mode=False)
        open_closed()
        sys.stdout.flush()  # at exit it would fail without a word
    except InputError as error:
        return _interrupted() if _asked_to_end else _refuse(str(error))
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a command that only holds others: what it holds, in full
            sys.stderr.write(error.message + "\n")
            return BAD_INPUT
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _refuse(message.rstrip(".") + "; see `tuneopt --help`") if message else BAD_INPUT
    except (StoppedError, typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except RankFailedError as error:
        _refuse(str(error))
        return UNANSWERED
    except BrokenPipeError as error:
        return _unread(error)
    except OSError as error:
        _forget_stdout()
        return _refuse(str(of_system(error)))
    except SystemExit as error:  # commands return their exit codes: it is a file of the user's that ends the program
        if isinstance(error.__context__, BrokenPipeError):  # or typer, which turns that error into an exit code of 1
            return _unread(error.__context__)
        return _refuse(f"a file that was named asked the program to end (SystemExit: {error}); take that out of it")
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if _asked_to_end:
            return _interrupted()
        if isinstance(error, MemoryError) and not _log_of_trial(error):
            return _refuse("there is not enough memory for this; end other programs, raise the limit (`ulimit -v`), or "
                           "ask for less at once, and run the same command again")  # fmt: skip
        lacking = of_missing(error) if isinstance(error, ModuleNotFoundError) else None
        if lacking is not None:
            return _refuse(str(lacking))
        return _failed(error)
    return code if isinstance(code, int) else DONE


def _unread(error: BrokenPipeError) -> int:
    """The exit code where who read the result has seen enough, such as `head`; a trial's own pipe is another matter."""
    if _log_of_trial(error):
        return _failed(error)
    _forget_stdout()
    return DONE


def _forget_stdout() -> None:
    """Let Python's own flush at exit find nothing to fail on, when stdout may be what failed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        real = sys.__stdout__
        if real is not None and sys.stdout is real:
            os.dup2(os.open(os.devnull, os.O_WRONLY), real.fileno())


def _interrupt(signum: int, frame: FrameType | None) -> None:
    global _asked_to_end
    _asked_to_end = True
    raise KeyboardInterrupt


def _interrupted() -> int:
    """Say that the command was asked to end, and how to go on; returns the exit code."""
    _refuse(f"interrupted; what was finished is stored. Go on with: {shlex.join(['tuneopt', *sys.argv[1:]])}")
    return INTERRUPTED


def _refuse(sentence: str) -> int:
    if not working_folder() and "working folder" not in sentence:  # then no relative path leads anywhere
        sentence += " (the working folder was deleted; change to one that is there)"
    open_closed()
    with contextlib.suppress(OSError):  # stderr may be as full or as closed as stdout
        sys.stderr.write("tuneopt: " + visible(" ".join(sentence.split())) + "\n")
        sys.stderr.flush()
    return BAD_INPUT


def _log_of_trial(error: BaseException) -> str:
    """The place of the log where the traceback is of what a trial's code raised, such as an optimizer from outside."""
    return next((note for note in getattr(error, "__notes__", ()) if note.startswith(TRIAL_LOG)), "")


def _failed(error: BaseException) -> int:
    """Say what a trial's code raised, with its log, or that the mistake is ours; returns the exit code.

    A sweep goes on without such a trial and ends without a certificate: `train` ends as that sweep would.
    """
    note = _log_of_trial(error)
    _refuse(f"the trial failed ({in_words(error)[:300]}); {note}" if note else _mistake(error))
    return UNANSWERED if note else MISTAKE


def _mistake(error: BaseException) -> str:
    """The sentence for an exception that nobody expected; its traceback goes into a file, which developers need."""
    what = in_words(error)[:300]
    try:
        handle, name = tempfile.mkstemp(prefix="tuneopt-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError:  # no place is left for it: then it is shown
        traceback.print_exception(error)
        return f"this should not have happened ({what}); please report it with the lines above"
    return f"this should not have happened ({what}); please report it with the traceback in {name}"
