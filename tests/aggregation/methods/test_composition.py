"""What does not go together is refused in one line that names what does."""

from __future__ import annotations

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods import METHODS, able, get
from nomoat.aggregation.methods.composition import Choices
from nomoat.aggregation.methods.plaintext.stacking import MAX_GROWN_RANK
from nomoat.aggregation.methods.server_optimizer import ServerOptimizer

ADAM = ServerOptimizer("fedadam", 0.01)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices("flora"), "flora cannot do secure aggregation; fedavg, .*fedask can"),
        (Choices("nothing"), "there is no method 'nothing'; choose one of fedavg, "),
        (Choices("local-B"), "there is no method 'local-B'"),
        (Choices("fedex", secure=False, mixed_ranks=True), "mixed ranks; .*flexlora can"),
        (Choices("fedask", optimizer=ADAM), "a server optimiser with memory; .*rolora.* can"),
        (Choices("flora", secure=False, optimizer=ADAM), "server optimiser with memory"),
        (
            Choices("flexlora", secure=False, optimizer=ServerOptimizer(learning_rate=0.5)),
            "flexlora makes no mean update .*fedask do",
        ),
        (Choices("fedsvd", keep_moments=True), "optimiser state kept across rounds; .*ffa.* can"),
        (
            Choices("fedplora", mixed_ranks=True, keep_moments=True),
            "fedplora draws other modules .*; fedavg, ffa, rolora.* can",
        ),
        (
            Choices("fedask", optimizer=ServerOptimizer(learning_rate=0.5)),
            "fedask projects the whole step, .*; fedavg, .*fedplora can",
        ),
        (
            Choices("flora", secure=False, rank=MAX_GROWN_RANK + 1),
            "flora keeps what it adds .* at most 512; fedavg, .*flexlora can do 513",
        ),
        (
            Choices("fedask", audit=True),
            "one bound, which those of fedask have not; fedavg, ffa, .*fedrot can be audited",
        ),
        (Choices("fedplora", audit=True), "those of fedplora have not; fedavg, .* can be audited"),
        (Choices("rolora", personal="local-B"), "rolora has no place for; fedavg can"),
        (Choices("fedavg", mixed_ranks=True, personal="local-B"), "--personal adapter can mix"),
    ],
    ids=str,
)
def test_a_refusal_is_one_line_that_names_what_can(choices: Choices, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        choices.check()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_run_somehow_and_with_a_personal_adapter(name: str) -> None:
    method = METHODS[name]
    choices = Choices(name, secure=method.traits.summable, personal="adapter")
    assert choices.check() is method


def test_a_summable_method_takes_mixed_ranks_under_masks() -> None:
    found = able(summable=True, mixed_ranks=True)
    assert "fedplora" in found
    for name in found:
        assert Choices(name, mixed_ranks=True).check().name == name


def test_fedex_goes_on_with_its_factors_so_moments_may_be_kept() -> None:
    Choices("fedex", secure=False, keep_moments=True).check()


def test_personal_b_is_a_method_of_its_own_inside() -> None:
    found = Choices("fedavg", personal="local-B", keep_moments=True, optimizer=ADAM).check()
    assert found.name == "local-B"
    assert get("local-B") is not None  # volunteers are told this name
    assert "local-B" not in METHODS


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "plain", "momentum": 0.5}, "momentum has no effect with plain"),
        ({"kind": "fedadam", "momentum": 0.5}, "momentum has no effect with fedadam"),
        ({"kind": "momentum", "tau": 0.1}, "tau have no effect with momentum"),
        ({"kind": "plain", "betas": (0.5, 0.99)}, "beta1, beta2 and tau have no effect"),
    ],
)
def test_a_parameter_without_effect_is_refused(given: dict, words: str) -> None:
    settings = {"kind": "plain", "learning_rate": None, "momentum": 0.9, "betas": (0.9, 0.99)}
    with pytest.raises(UsageError, match=words):
        ServerOptimizer.of(**{**settings, "tau": 1e-3, **given})


def test_the_usual_learning_rate_is_the_optimisers_own() -> None:
    def usual(kind):
        return ServerOptimizer.of(kind, None, 0.9, (0.9, 0.99), 1e-3)

    assert usual("plain") == ServerOptimizer()
    assert usual("momentum") == ServerOptimizer("momentum", 1.0, 0.9)
    assert usual("fedyogi") == ServerOptimizer("fedyogi", 0.01, 0.9, 0.99, 1e-3)
