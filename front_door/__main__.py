"""`python -m nomoat` and the `nomoat` command: errors become one line and an exit code."""

from __future__ import annotations

import re
import sys

import click

from nomoat import terminal

UNANSWERED = "nobody answered the question, so nothing was done; a script answers with options"
INTERRUPTED_WORDS = "interrupted; what was finished is kept"
INTERRUPTED = 130  # also what typer ends with on Ctrl-C


def main() -> None:
    """Run the command line; never a traceback for what a person can mend."""
    terminal.prepare()
    terminal.plain_help_unless_drawn()
    code = _run()
    sys.exit(code if terminal.flushed() else code or 1)


def _run() -> int | str | None:
    """Run the command line; its exit code, after the line that explains one."""
    from nomoat.aggregation.errors import NomoatError

    try:
        from nomoat.cli import app

        return _ended(app(prog_name="nomoat", standalone_mode=False))
    except click.ClickException as problem:
        return _misused(problem)
    except SystemExit as end:
        return _ended(end.code)
    except BrokenPipeError:  # whoever read the output has enough
        return 1
    except (NomoatError, OSError, click.Abort, KeyboardInterrupt) as problem:
        return _failed(problem)


def _failed(problem: BaseException) -> int | str | None:
    """Say in one line what a person can mend."""
    from nomoat.aggregation.errors import NomoatError

    asked = isinstance(problem, click.Abort)
    if asked:
        terminal.error("")  # the question's line ends
    if isinstance(problem, KeyboardInterrupt) or isinstance(problem.__context__, KeyboardInterrupt):
        return _ended(INTERRUPTED)
    terminal.error(f"nomoat: {UNANSWERED if asked else problem}")
    return problem.exit_code if isinstance(problem, NomoatError) else 1


def _ended(code: int | str | None) -> int | str | None:
    """Return the exit code a command ended with, after a line if that was Ctrl-C."""
    if code == INTERRUPTED:
        terminal.error(f"nomoat: {INTERRUPTED_WORDS}")
    return code


def _misused(problem: click.ClickException) -> int:
    """Say in one line what cannot be typed so; a group without a command shows its help."""
    if isinstance(problem, click.exceptions.NoArgsIsHelpError):
        problem.show()
        return problem.exit_code
    said = " ".join(problem.format_message().split()).rstrip(".")
    said = re.sub(r"(Did you mean [^?]*\?)(?: \1)+", r"\1", said)  # click says it, typer again
    context = problem.ctx if isinstance(problem, click.UsageError) else None
    see = f" (see {context.command_path} --help)" if context is not None else ""
    terminal.error(f"nomoat: {said}{see}")
    return problem.exit_code


if __name__ == "__main__":
    main()
