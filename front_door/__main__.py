"""`python -m nomoat` and the `nomoat` command: errors become one line and an exit code."""

from __future__ import annotations

import sys

from nomoat import terminal

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

        app(prog_name="nomoat")
    except NomoatError as problem:
        terminal.error(f"nomoat: {problem}")
        return problem.exit_code
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            return end.code
        terminal.error("nomoat: interrupted; what was finished is kept")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has enough
        return 1
    except OSError as problem:  # a full disk, a folder that may not be written
        terminal.error(f"nomoat: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    main()
