"""`python -m nomoat` and the `nomoat` command: errors become one line and an exit code."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # also what typer ends with on Ctrl-C


def main() -> None:
    """Run the command line; never a traceback for what a person can mend."""
    from nomoat.aggregation.errors import NomoatError

    try:
        from nomoat.cli import app

        app(prog_name="nomoat")
    except NomoatError as problem:
        sys.stderr.write(f"nomoat: {problem}\n")
        sys.exit(problem.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        sys.stderr.write("nomoat: interrupted; what was finished is kept\n")
        sys.exit(INTERRUPTED)
    except OSError as problem:  # a full disk, a folder that may not be written
        sys.stderr.write(f"nomoat: {problem}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
