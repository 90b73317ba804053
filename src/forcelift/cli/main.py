"""The command `forcelift`: options of all commands, the list of commands, and how the process ends."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn

import click

from forcelift.allocators import choose_allocators
from forcelift.cli.lazy import LazyCommand, LazyGroup
from forcelift.cli.lean import defer_imports
from forcelift.errors import ExitCode, ForceliftError
from forcelift.version import __version__

COMMANDS: Final = {
    "demo": LazyCommand(module="forcelift.cli.demo", name="demo", help="Move real flights data into a simulated org"),
    "init": LazyCommand(module="forcelift.cli.init", name="init", help="Draft a plan from source and org"),
    "check": LazyCommand(module="forcelift.cli.check", name="check", help="Look whether all is ready for a load"),
    "estimate": LazyCommand(module="forcelift.cli.estimate", name="estimate", help="Tell what a load takes, how long"),
    "backup": LazyCommand(module="forcelift.cli.backup", name="backup", help="Copy the plan's tables beforehand"),
    "rehearse": LazyCommand(module="forcelift.cli.rehearse", name="rehearse", help="Load a twin to foretell faults"),
    "profile": LazyCommand(module="forcelift.cli.profile", name="profile", help="Find what would fail, beforehand"),
    "prepare": LazyCommand(module="forcelift.cli.prepare", name="prepare", help="Switch automations off for a load"),
    "restore": LazyCommand(module="forcelift.cli.prepare", name="restore", help="Put back what was switched off"),
    "checklist": LazyCommand(
        module="forcelift.cli.check", name="checklist", help="Show what is done before, during, after"
    ),
    "run": LazyCommand(module="forcelift.cli.run", name="run", help="Load the plan's tables into the org"),
    "status": LazyCommand(module="forcelift.cli.status", name="status", help="Show what became of each batch's rows"),
    "stop": LazyCommand(module="forcelift.cli.stop", name="stop", help="Stop a running batch; it can be resumed"),
    "rollback": LazyCommand(module="forcelift.cli.rollback", name="rollback", help="Undo what a batch did to the org"),
    "pause": LazyCommand(module="forcelift.cli.steer", name="pause", help="Pause a running batch until `resume`"),
    "resume": LazyCommand(module="forcelift.cli.steer", name="resume", help="Let a paused batch go on"),
    "throttle": LazyCommand(module="forcelift.cli.steer", name="throttle", help="Let a running batch have fewer jobs"),
    "validate": LazyCommand(module="forcelift.cli.validate", name="validate", help="Prove what the org has"),
    "report": LazyCommand(module="forcelift.cli.final_report", name="report", help="Write the final report of a batch"),
    "failed": LazyCommand(module="forcelift.cli.failed", name="failed", help="Look at refused rows, and mend them"),
    "signoff": LazyCommand(module="forcelift.cli.signoff", name="signoff", help="Sign off, before and after"),
    "approve": LazyCommand(module="forcelift.cli.signoff", name="approve", help="Consent to what destroys, as second"),
    "explain": LazyCommand(module="forcelift.cli.explain", name="explain", help="Explain an error code or message"),
    "config": LazyCommand(module="forcelift.cli.config", name="config", help="Look at the settings"),
    "audit": LazyCommand(module="forcelift.cli.audit", name="audit", help="Look after the audit database"),
    "twin": LazyCommand(module="forcelift.cli.twin", name="twin", help="Simulate a Salesforce org on this machine"),
}  # fmt: skip


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `forcelift demo`. Each command has its own --help with an example.",
)
@click.version_option(__version__, prog_name="forcelift")
@click.option(
    "--debug",
    is_flag=True,
    envvar="FORCELIFT_DEBUG",
    show_envvar=True,
    help="Print the traceback of an error",
)
def cli(debug: bool) -> None:
    """Move very large database tables into Salesforce, and account for every row"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    # What libraries define while they are imported stays: to look it through for garbage takes a fifth of a short
    # command's time. Later there are few objects, as rows are held in columns, and few of them are garbage in rings.
    gc.set_threshold(200_000, 20, 100)
    choose_allocators()  # before a command imports what reads it
    defer_imports()
    os.umask(0o077)  # what a migration writes is for the user who runs it, whichever library writes it
    words = list(sys.argv[1:] if arguments is None else arguments)
    leave(int(run_command(words)))


def leave(code: int) -> NoReturn:
    """End the process with this code, without taking the interpreter apart: that is a seventh of a short command.

    Whatever asked to be called at the end is called, and what was written is written out. While a thread is at work
    that the interpreter would wait for, the process ends the usual way, which waits.
    """
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.exit(code)
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):  # nobody reads any more, and nobody is left to tell
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run_command(words: list[str]) -> int:
    """Run one command line; errors are shown on stderr. Returns the exit code."""
    try:
        result = cli.main(args=words, prog_name="forcelift", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nobody is left to tell, and the interpreter must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except ForceliftError as error:
        from forcelift.cli.screens import show_error

        show_error(error, debug=_is_debug(words))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last door: a fault of ours is shown as such, with its traceback kept
        from forcelift.cli.screens import show_fault

        show_fault(error, debug=_is_debug(words), words=words)
        return ExitCode.BUG
    return result if isinstance(result, int) else ExitCode.DONE


def _is_debug(words: Sequence[str]) -> bool:
    return "--debug" in words or bool(os.environ.get("FORCELIFT_DEBUG"))
