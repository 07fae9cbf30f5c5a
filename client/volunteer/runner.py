"""Taking part in several communities at once, in one process: each in a thread, one base in memory.

What happens in one community does not reach the others: a coordinator that refuses, a full disk, a
`finish`. Each has its own log, told apart by the names of threads.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from logging.handlers import RotatingFileHandler

from nomoat.aggregation.errors import NomoatError
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.training.shared_workers import SharedWorkers
from nomoat.client.volunteer.assemble import volunteer
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.telling.owner_lines import nobody
from nomoat.storage.log_lines import PlainFormatter

LOG_BYTES, LOG_FILES = 1 << 20, 3
LOOK_S = 0.2
SHAPE = "%(asctime)s %(levelname)s %(message)s"

log = logging.getLogger(__name__)


def take_part(
    home: Home,
    folders: Sequence[CommunityFolder],
    stop: threading.Event,
    say: Callable[[str], None] = nobody,
) -> None:
    """Volunteer in every community until `stop` is set, or each of them has ended by itself.

    say: is given a line for each event, with the community's name where there are several.
    Raises what ended the first that did not end well, once all have ended.
    """
    workers = SharedWorkers()
    level = logging.ERROR if len(folders) > 1 else logging.INFO  # one alone says it by ending
    several = len(folders) > 1
    parts = [
        _CommunityThread(home, folder, workers, level, _named(folder, say) if several else say)
        for folder in folders
    ]
    for part in parts:
        part.start()
    while any(part.is_alive() for part in parts):
        if stop.wait(LOOK_S):
            for part in parts:
                part.stop()
            for part in parts:
                part.join()
    for part in parts:
        if part.problem is not None:
            raise part.problem


def _named(folder: CommunityFolder, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(f"{folder.name()}: {line}")


class _CommunityThread(threading.Thread):
    """One community's volunteer. Its threads' names begin with its id, by which logs are told."""

    def __init__(
        self,
        home: Home,
        folder: CommunityFolder,
        workers: SharedWorkers,
        level: int,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name=folder.root.name, daemon=True)
        self.ended = threading.Event()
        self.stopping = False
        self.problem: BaseException | None = None
        self._home = home
        self._folder = folder
        self._workshop = workers
        self._level = level
        self._say = say

    def run(self) -> None:
        """Volunteer; keep what went wrong."""
        try:
            while self._volunteer():  # anew, under the terms that its owner has agreed to
                self.ended = threading.Event()
                if self.stopping:
                    break
        except NomoatError as problem:
            log.log(self._level, "%s: %s", self._folder.root.name, problem)
            self.problem = problem
        except Exception as problem:  # a bug: raised again in the main thread
            log.log(self._level, "%s", self._folder.root.name, exc_info=problem)
            self.problem = problem
        finally:
            self.ended.set()  # its governor and follower end with it

    def stop(self) -> None:
        """End it, also if it is about to begin anew."""
        self.stopping = True
        self.ended.set()

    def _volunteer(self) -> bool:
        """Volunteer until it ends; True if it is to begin anew."""
        kit = Kit.of(self._home, self._folder, self._folder.load())
        return bool(volunteer(kit, self.ended, self._workshop, self._say))


def keep_logs(folders: Sequence[CommunityFolder]) -> None:
    """Everything into a file of each community, rotated; what matters to the terminal as well."""
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, ends nothing
    logging.getLogger("nomoat").setLevel(logging.INFO)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    for handler in (terminal, *map(_file, folders)):
        handler.setFormatter(PlainFormatter(SHAPE))
        root.addHandler(handler)


def _file(folder: CommunityFolder) -> logging.Handler:
    folder.root.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(folder.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, delay=True)
    main = threading.main_thread().name
    file.addFilter(lambda r: (r.threadName or main).split("/")[0] in (main, folder.root.name))
    return file
