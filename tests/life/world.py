"""A community's life from one seed: rough chapters, whatever happens in them, then a calm one.

The coordinator, its journal, roster and backups and the volunteers' sessions, diaries and logs are
the real ones; time, the line, disks and owners are scripted. `live` gives the promises that were
broken in the end, each in words.
"""

from __future__ import annotations

import datetime
import random
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from builders import BASE, SPEC, adapter
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.client.doctor.own_records import broken_promises
from nomoat.client.membership import restored
from nomoat.flower.objects import identify
from nomoat.flower.polling_grid import NodeInfo, PollingGrid, Run
from nomoat.flower.process import speak_as_coordinator
from nomoat.flower.replies import UNREACHABLE, error_reply
from nomoat.server.audit.promises import audit
from nomoat.server.backup import begun as progress
from nomoat.server.backup.making import make
from nomoat.server.backup.moving import move_records
from nomoat.server.backup.restoring import finish, restore
from nomoat.server.community.folder import Folder, create
from nomoat.server.community.journal import CommunityJournal
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.community.versions import ROLLED_BACK, Provenance
from nomoat.server.fleet.sealed_grid import Addressee, CommunitySigner, SealedGrid
from nomoat.server.host import back_off_s
from nomoat.server.recovery.gathering import Gathering
from nomoat.server.release.rolling_back import go_back, heed, overruled
from nomoat.server.rounds.coordinator import Coordinator
from nomoat.server.rounds.federation import Federation, FederationCheckpoint
from nomoat.server.rounds.ports import Clock, Fleet
from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.watching import RoundProgress
from nomoat.server.succession import rotation
from tests.life.people import Person
from tests.life.succession import (
    Ordered,
    Theft,
    ask_for_key,
    committed,
    not_heeded,
    order,
    rotated,
    steal,
)

NAMES = ("ada", "bob", "cy", "dee", "eve")
LEAST = 3
PATIENCE_S, LOOK_S = 60.0, 2.0
PASSPHRASE = "a life of words"
TRIES, CALM_COMMITS = 8, 2
LIFE = (
    *("back up", "restore", "roll back", "move", "settings", "clock", "upgrade", "nothing"),
    *("rotate", "thief"),
)
DAY_S = 86_400.0
NewDatabase = Callable[[], str | None]  # another one each time; None: a file in the folder


class KeyAsked(BaseException):
    """Another key waits: `up` closes the community between two rounds, and opens it anew."""


class Ended(BaseException):
    """The coordinator's process ends: killed, stopped by its operator, or at a chapter's end."""


def settings(minimum: int = LEAST) -> Settings:
    return Settings(
        community=CommunitySettings(name="town"),
        base=BaseModelSettings(model="m", folder=Path("m"), hash=BASE.hex(), bytes=1),
        rounds=CommunityRoundSettings(
            seed="00" * 32, min_volunteers=minimum, allow_weak=True, max_rounds=1_000_000
        ),
    )


def template(root: Path) -> Path:
    """A community's folder to copy: certificates take longer to make than a life."""
    folder = Folder(root)
    create(folder, settings(), datetime.datetime.now(datetime.UTC), b"\7" * 32)
    community = OpenCommunity.open(root)
    first = Provenance(0, "fedavg", (), None, None, "the base model")
    community.versions.add(adapter(0), first, 1)
    community.registrar.database.close()
    return root


class World(PollingGrid):
    """The grid, and everything that happens to who stands at its ends."""

    def __init__(self, seed: int, made: Path, root: Path, database: NewDatabase) -> None:
        self.rng, self.root, self.now = random.Random(seed), root, 1e6
        self.rough, self.polls, self.homes = True, 0, 0
        self.commits = self.tries = 0
        self.behind = 0.0  # of this clock, seconds
        self.happened: list[str] = []
        self.broken: list[str] = []  # promises, on the way
        self.backup: Path | None = None
        self.backup_keys = 0  # changes of the key before it
        self.order: Ordered | None = None  # a rollback that waits
        self.orders = 0
        self.theft: Theft | None = None
        self.deceivable: list[Person] = []  # kept away from a thief that they would believe
        self.stranger: Path | None = None  # the thief's folder, while it is up in the town's place
        self._pending: dict[str, tuple[float, Message]] = {}
        self.database = database
        shutil.copytree(made, self.home)
        if (url := database()) is not None:
            move_records(self.home, url, "first", datetime.datetime.now(datetime.UTC))
        self.community: OpenCommunity | None = OpenCommunity.open(self.home)
        public = self.public = self.community.registrar.key.public
        self.people = {
            name: Person(name, root, lambda: self.community, public, self.rng.getrandbits(32))
            for name in NAMES
        }
        for person in self.people.values():
            person.clock = self._time
            person.admit(self.community)
            person.begin()

    @property
    def home(self) -> Path:
        return self.stranger or self.root / f"community-{self.homes}"

    # --- Flower's Grid

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=n, owner_name=name) for n, name in enumerate(NAMES, 1)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(self.rng.randbytes(16).hex())
            identify(message, ids[-1])
            self._pending[ids[-1]] = (self.now + self.rng.random() * 20, message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._weather()
        replies = []
        for asked in message_ids:
            due, message = self._pending.get(asked, (float("inf"), None))
            if message is None or due > self.now:
                continue
            person = self.people[NAMES[message.metadata.dst_node_id - 1]]
            if person.away and self.now - due < PATIENCE_S:
                continue
            del self._pending[asked]
            reply = None if person.away else self._answered(person, message)
            gone = error_reply(asked, message.metadata.dst_node_id, UNREACHABLE)
            replies.append(gone if reply is None else reply)
        return replies

    def _answered(self, person: Person, message: Message) -> Message | None:
        """Its answer; None if its process dies before or after it has made one."""
        fate = self.rng.random() if self.rough else 1.0
        if fate < 0.008:
            self._tell(f"{person.name} dies before it answers")
            person.start()
            return None
        reply = person.answer(message, Context(1, 1, {}, RecordDict(), {}))
        if fate < 0.016:
            self._tell(f"{person.name} dies after it answered")
            person.start()
            return None
        return reply

    # --- what happens by itself

    def _tell(self, what: str) -> None:
        self.happened.append(f"{self.now - 1e6:.0f} s: {what}")

    def _weather(self) -> None:
        """Time passes, owners and machines do as they please; a chapter may end."""
        self.now += LOOK_S
        self.polls += 1
        if not self.rough:
            return
        if self.rng.random() < 0.08:
            person = self.rng.choice(list(self.people.values()))
            match self.rng.randrange(6):
                case 0:
                    person.paused = self.rng.random() < 0.3
                case 1:
                    person.away = self.rng.random() < 0.3 or person in self.deceivable
                case 2:
                    person.disk.full[0] = self.rng.random() < 0.3
                case 3:
                    person.edit(self.rng.getrandbits(32))
                case 4 if self.rng.random() < 0.2:
                    self.now += self.rng.choice([65.0, 3600.0])
                    self._tell("the coordinator's machine slept")
                case _:
                    person.start()
            self._tell(f"{person.name}: paused {person.paused}, away {person.away}")
        if self.community is not None and self.stranger is None and self.rng.random() < 0.01:
            self._ask(self.community)
        if self.rng.random() < 0.004 or self.polls > 400:
            self._tell("the coordinator ends")
            raise Ended

    def _ask(self, community: OpenCommunity) -> None:
        """What its operator asks of a community that is up."""
        if self.rng.random() < 0.3:
            rotation.ask(community.folder, self.rng.randbytes(32))
            self._tell("another key is asked for")
            return
        newest = community.versions.get(None).version.number
        self.order = order(community, self.rng.randint(0, newest), int(self.now))
        self.orders += 1
        self._tell(f"{self.order}")

    def _heed(self, checkpoint: FederationCheckpoint | None = None) -> FederationCheckpoint:
        """Between two rounds: orders take effect."""
        assert self.community is not None
        heed(self.community, int(self.now))
        if self.order is not None and self.stranger is None:
            fault = not_heeded(self.community, self.order)
            self.broken += [] if fault is None else [fault]
            self.order = None
        return checkpoint if checkpoint is None else self.journal.standing(checkpoint)

    def willing(self, _grid: Grid) -> dict[str, int]:
        """Volunteers who would be asked: online, not paused, in good standing."""
        assert self.community is not None
        approved = set(self.community.registrar.roster().approved().values())
        return {
            name: number
            for number, name in enumerate(NAMES, 1)
            if name in approved and not (self.people[name].away or self.people[name].paused)
        }

    def before_round(self, grid: Grid, _number: int) -> None:
        assert self.community is not None
        least = self.community.settings.rounds.least_present
        while True:
            if rotation.is_asked(self.community.folder):
                raise KeyAsked
            self._heed()
            if len(self.willing(grid)) >= least:
                return
            self._weather()

    def withdraw(self, message_ids: Collection[str]) -> None:
        for message_id in message_ids:
            self._pending.pop(message_id, None)

    def progress(self, progress: RoundProgress) -> None:
        """Watch nothing."""

    def ended(self, record: RoundRecord) -> None:
        self._tell(f"round {record.round}: {record.committed} ({record.reason})")
        assert self.community is not None
        if record.committed and record.round and self.order is not None:
            self.broken.append(f"round {record.round} was taken after {self.order}")
        for person in self.people.values():
            if record.committed and not person.away and self.rng.random() < 0.7:
                person.follow(self.community)
        if not self.rough:
            self.tries += 1
            self.commits += record.committed
            if self.commits >= CALM_COMMITS or self.tries >= TRIES:
                raise Ended

    # --- its coordinator and its operator

    def host(self) -> None:
        """Run the coordinator until its process ends."""
        while self._asked_for_a_key():
            killed = self.rough and self.rng.random() < 0.5
            self._rotate(killed=killed)
            if killed:
                return

    def _rotate(self, *, killed: bool) -> None:
        """Change the key; a copy of the folder may have been taken before."""
        if self.rng.random() < 0.5:
            self.theft = steal(self.home, self.root / "stolen")
        rotated(self.home, int(self.now), killed=killed)
        self._tell(f"its key is changed (killed: {killed}, stolen: {self.theft is not None})")

    def _asked_for_a_key(self) -> bool:
        """Run it until its process ends, or until another key waits."""
        community = self.community = OpenCommunity.open(self.home)
        community.registrar.mend(5)
        community.versions.sweep()
        speak_as_coordinator(1, 1)
        self.polls, self._pending = 0, {}
        training = TrainSettings(local_steps=1)
        federation = replace(
            Federation("fedavg", 1_000_000, training, BASE, b"s" * 32, clip=1.0, spares=True),
            min_reports=community.settings.rounds.least_reports,
            train_deadline_s=120.0,
            aggregate_deadline_s=240.0,
            evaluate_deadline_s=60.0,
        )
        self.journal = CommunityJournal(
            *(community.versions, SPEC, "fedavg", lambda: int(self.now)),
            overruled=lambda: overruled(community),
        )
        coordinator = Coordinator(
            federation,
            community.initial(),
            self.journal,
            self,
            Fleet(self.willing, community.secagg_roster, self.before_round, None, self.withdraw),
            Clock(lambda: self.now, self._pass),
            credit=lambda number, earned: community.credit(number, earned, int(self.now)),
            session_id=lambda _round, _exchange: self.rng.randbytes(32),
            standing=community.versions.standing,
            back_off_s=back_off_s,
            ordered=self._heed,
        )
        signer = CommunitySigner(
            community.registrar.key, BASE, lambda: self.rng.randbytes(16), self.public
        )
        try:
            coordinator.run(SealedGrid(self, signer, self._addressee))
        except Ended:
            return False
        except KeyAsked:
            return True
        finally:
            community.registrar.database.close()
            self.community = None
        return False

    def _addressee(self, node: int) -> Addressee:
        return Addressee(NAMES[node - 1], self.people[NAMES[node - 1]].identity.public)

    def _time(self) -> float:
        return self.now

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def operate(self) -> None:
        """What its operator and its members do while the coordinator is down."""
        community = self.community = OpenCommunity.open(self.home)
        member = self.people[self.rng.choice(NAMES)]
        what = self.rng.choice(LIFE)
        self._tell(what)
        self.now, self.behind = self.now + self.behind, 0.0
        if what == "back up":
            self.backup = self.root / "town.backup"
            self.backup_keys = len(community.registrar.keys.changes)
            make(community, self.backup, PASSPHRASE, int(self.now))
        elif what == "roll back":
            newest = community.versions.get(None).version.number
            go_back(community, self.rng.randint(0, newest), "", int(self.now))
            self.order, self.orders = None, self.orders + 1
        elif what == "clock":  # of an empty battery: behind for a chapter, then set right
            self.behind = self.rng.choice([3600.0, DAY_S])
            self.now -= self.behind
        elif what == "upgrade":  # every process begins anew from what its folder holds
            for person in self.people.values():
                person.start()
        elif what == "move":
            member.admit(community)
            member.heed()
            member.move(community)
        elif what == "settings":
            path = community.folder.settings
            text, minimum = path.read_text(), self.rng.choice([3, 4])
            was = community.settings.rounds.min_volunteers
            path.write_text(text.replace(f"min_volunteers = {was}", f"min_volunteers = {minimum}"))
        known = len(community.registrar.keys.changes)
        community.registrar.database.close()
        self.community = None
        if what == "rotate":
            ask_for_key(self.home, self.rng.randbytes(32))
            self._rotate(killed=self.rng.random() < 0.3)
        elif what == "thief" and self.theft is not None:
            self._another(self.theft)
        elif what == "restore" and self.backup is not None and self.backup_keys < known:
            old = self.root / "old"
            restore(self.backup, old, PASSPHRASE, int(self.now), 0)
            self._another(Theft(old, self.backup_keys))
        elif what == "restore" and self.backup is not None:
            self.homes, self.order = self.homes + 1, None
            wait_s = self.rng.choice([0, 60])
            restore(self.backup, self.home, PASSPHRASE, int(self.now), wait_s, self.database())
            if wait_s:
                self._ask_members()

    def _another(self, theft: Theft) -> None:
        """Somebody brings up a community of before its key was changed, in its place."""
        if self.rng.random() < 0.5:
            ask_for_key(theft.home, self.rng.randbytes(32))
            rotated(theft.home, int(self.now), killed=False)
        knew = [p for p in self.people.values() if len(p.folder.keys().changes) > theft.changes]
        self._tell(f"it is in other hands; {[person.name for person in knew]} know a later key")
        was = {person: person.away for person in self.people.values()}
        trained = {person: len(person.trainer.trained) for person in knew}
        before, self.stranger = committed(theft.home), theft.home
        self.deceivable = [person for person in was if person not in knew]
        for person in was:
            person.away = person in self.deceivable
        self.host()
        self.community = OpenCommunity.open(theft.home)
        for person in knew:
            if len(person.trainer.trained) > trained[person]:
                self.broken.append(f"{person.name} trained for a thief")
            if "takes back or forks" not in (said := person.believes()):
                self.broken.append(f"{person.name} says of a thief: {said!r}")
        self.community.registrar.database.close()
        if committed(theft.home) > before:
            self.broken.append("a round of a thief's was committed")
        for person, away in was.items():
            person.away = away
        self.community = self.stranger = self.theft = None
        self.deceivable = []
        shutil.rmtree(theft.home)

    def _asking(self) -> tuple[OpenCommunity, Gathering]:
        """Begin to ask, or ask on, as each start of `nomoat up` does."""
        community = OpenCommunity.open(self.home)
        begun = progress.read(community.folder)
        assert begun is not None
        community.registrar.database.closed = ""
        return community, Gathering(community, begun)

    def _ask_members(self) -> None:
        """Most members tell what they hold; its process may be killed, and starts again."""
        community, gathering = self._asking()
        told = [person for person in self.people.values() if self.rng.random() < 0.7]
        for person in self.rng.sample(told, len(told)):
            person.give_back(gathering)
            if self.rng.random() < 0.2:
                self._tell("it is killed while members tell what they hold")
                community.registrar.database.close()
                community, gathering = self._asking()
        finish(community, gathering.begun, int(self.now))
        self._tell(f"{[p.name for p in told]} told: {community.versions.get(None).version.note}")
        community.registrar.database.close()
        back = {record.digest for record in (gathering.state.base.record, *gathering.state.records)}
        self.community = OpenCommunity.open(self.home)
        for person in told:
            known = person.lineage.known
            if known is not None and known.record.digest in back:
                asked = restored.waiting(person.folder, person.line)
                self.broken += [f"{person.name}'s owner was asked: {asked}"] if asked else []
        self.community.registrar.database.close()
        self.community = None

    def calm(self) -> None:
        """Everybody comes back, and has the time it takes; owners say what is asked of them."""
        self.rough = False
        self.now += 2 * DAY_S
        community = self.community = OpenCommunity.open(self.home)
        for person in self.people.values():
            person.paused = person.away = person.disk.full[0] = False
            person.admit(community)
            person.start()
            person.heed()
        community.registrar.database.close()
        self.host()


def live(
    seed: int,
    made: Path,
    root: Path,
    chapters: int = 4,
    database: NewDatabase = lambda: None,
) -> list[str]:
    """Live one life; the promises that are broken in the end, with what happened before."""
    world = World(seed, made, root, database)
    world.host()
    for _ in range(chapters - 1):
        world.operate()
        world.host()
    world.calm()
    broken = list(world.broken)
    if world.commits < CALM_COMMITS:
        broken.append(f"{world.commits} commits in {world.tries} tries, all willing")
    community = world.community = OpenCommunity.open(world.home)
    notes = [each.version.note for each in community.versions.database.versions()]
    if sum(note.startswith(ROLLED_BACK) for note in notes) > world.orders:
        broken.append(f"{world.orders} orders to go back: {notes}")
    broken += [fault for fault in audit(community) if fault is not None]
    for person in world.people.values():
        person.fetch_receipts()
        broken += [
            f"{person.name}: {fault}"
            for fault in broken_promises(person.folder, person.identity.public)
        ]
    rows = community.registrar.database._all(
        "SELECT length(record) + length(checkpoint) FROM rounds WHERE committed = 0"
    )
    broken += [f"an abandoned round takes {size} bytes" for (size,) in rows if size > 4096]
    community.registrar.database.close()
    return [f"seed {seed}: {fault}" for fault in broken] + (world.happened if broken else [])
