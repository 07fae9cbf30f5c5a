"""One set of settings: the same defaults and the same options, wherever they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.messages import TrainSettings
from nomoat.server.cli.community import init_options
from nomoat.server.community.settings import (
    BaseModelSettings,
    CommunityRoundSettings,
    CommunitySettings,
    Settings,
)
from nomoat.server.rounds.machines.patience import Patience
from nomoat.server.rounds.settings import (
    AdapterSettings,
    RoundSettings,
    ServerOptimizerSettings,
    TrainingSettings,
)
from nomoat.simulations.cli.simulate import simulate_options
from nomoat.simulations.scenario import DataSettings, Scenario
from nomoat.storage.settings import load

BASE, SEED = b"\xab" * 32, b"\xcd" * 32
SHARED = (AdapterSettings, TrainingSettings, RoundSettings, ServerOptimizerSettings)


def test_a_simulation_and_a_deployment_run_the_same_federation_at_the_defaults() -> None:
    made = Settings(
        community=CommunitySettings(name="x"),
        base=BaseModelSettings(model="x", folder=Path("m"), hash=BASE.hex(), bytes=1),
        rounds=CommunityRoundSettings(seed=SEED.hex()),
    )
    deployed, simulated = made.federation(), Scenario().chosen.federation(BASE, SEED)
    only_deployed = {
        f"{phase}_deadline_s": getattr(deployed, f"{phase}_deadline_s")
        for phase in ("train", "aggregate", "evaluate")
    }
    only_deployed["patience"] = Patience()  # a simulated volunteer waits for a worker, perhaps
    only_deployed["spares"] = True  # it waits for volunteers; a simulation draws who drops out
    assert deployed == replace(simulated, rounds=deployed.rounds, **only_deployed)
    assert made.adapter.model_dump() == AdapterSettings().model_dump()
    assert {name: getattr(Scenario(), name) for name in AdapterSettings.model_fields} == (
        made.adapter.model_dump()
    )


def test_the_defaults_of_training_are_the_protocols() -> None:
    assert TrainingSettings().settings("none") == TrainSettings()


def test_both_command_lines_have_every_setting_of_the_set() -> None:
    shared = {name for kind in SHARED for name in kind.model_fields}
    simulate = {option.name for option in simulate_options()}
    init = {option.name for option in init_options()}
    assert shared <= simulate
    assert shared <= init
    assert simulate == set(Scenario.model_fields)
    assert set(DataSettings.model_fields) <= simulate
    assert set(CommunityRoundSettings.model_fields) - init == {"seed"}  # a number there, too


def test_an_option_that_is_not_given_decides_nothing() -> None:
    assert {option.default for option in (*simulate_options(), *init_options())} == {None}


OLD = """
[community]
name = "before"
[base]
model = "m"
folder = "m"
hash = "{hash}"
bytes = 5
[adapter]
rank = 4
alpha = 8.0
targets = "q_proj,v_proj"
[rounds]
min_volunteers = 5
min_reports = 0
server_lr = 0.0
seed = "{seed}"
[training]
batch_size = 16
learning_rate = 0.01
weight_cap = 1048576
"""


def test_a_community_of_before_keeps_the_settings_it_was_made_with(tmp_path: Path) -> None:
    file = tmp_path / "community.toml"
    file.write_text(OLD.format(hash=BASE.hex(), seed=SEED.hex()))
    settings = load(Settings, file)
    assert settings.adapter.targets == ("q_proj", "v_proj")
    federation = settings.federation()
    training = federation.training
    assert (training.batch_size, training.learning_rate) == (16, 0.01)
    assert federation.min_reports == 5
    assert federation.optimizer.learning_rate == 1.0


def test_noise_that_cannot_work_is_refused_with_what_would() -> None:
    from nomoat.server.community.settings import (
        BaseModelSettings,
        CommunityRoundSettings,
        CommunitySettings,
        PrivacySettings,
        Settings,
    )

    def made(participants: int, **changes: object) -> Settings:
        rounds = {"seed": "00" * 32, "min_volunteers": participants, "norm_bound": 1.0}
        return Settings(
            community=CommunitySettings(name="town"),
            base=BaseModelSettings(model="m", folder=Path("m"), hash="ab" * 32, bytes=1),
            rounds=CommunityRoundSettings(**{**rounds, **changes}),
            privacy=PrivacySettings(epsilon=8.0, participations=6),
        )

    made(1000).check_privacy(117_120, bounded=True)
    assert made(1000).federation().noise_multiplier == pytest.approx(1.6, rel=1e-2)
    terms = made(1000).privacy_terms()
    assert (terms.epsilon, terms.participations, terms.audit_words) == (8.0, 6, 0)
    for settings, bounded, why in (
        (made(1000, secure=False), True, "under masks"),
        (made(1000, audit=True), True, "exclude each other"),
        (made(1000, method="fedask"), True, "twice"),
        (made(1000), False, "norm_bound"),
        (made(30), True, "none is claimed"),
        (made(560), True, r"rank of \d or less, or sums of 7\d\d volunteers"),
    ):
        with pytest.raises(UsageError, match=why):
            settings.check_privacy(117_120, bounded)
    settings = made(30).model_copy(update={"privacy": PrivacySettings()})
    settings.check_privacy(117_120, bounded=False)
    assert settings.federation().noise_multiplier == 0.0
    audited = settings.model_copy(
        update={"rounds": settings.rounds.model_copy(update={"audit": True})}
    )
    audited.check_privacy(117_120, bounded=True)
    with pytest.raises(UsageError, match=r"rounds.audit: needs rounds.norm_bound, or rows"):
        audited.check_privacy(117_120, bounded=False)
