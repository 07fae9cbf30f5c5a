"""Promises that every aggregation method keeps, run over the whole registry."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from nomoat.aggregation.methods import METHODS, PlaintextMethod, SummedMethod, modules
from nomoat.aggregation.methods.base import LocalRound, MethodState, PlaintextReport
from nomoat.aggregation.methods.reference import Player, play_round
from nomoat.aggregation.methods.summed.local_b import LocalB
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, LayerSpec
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.client.session import ClientSession
from nomoat.aggregation.secagg.client.stages import Volunteer
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.parameters import Policy, RosterView, Terms, propose
from nomoat.aggregation.secagg.server.collector import ServerPhase
from nomoat.aggregation.secagg.server.session import ServerSession
from nomoat.aggregation.sums.exact_sum import ExactSum
from nomoat.aggregation.sums.fixed_point import ClipLayout, Contribution

EVERY = {**METHODS, LocalB.name: LocalB()}  # a personal B is a method beside the others
ALL = sorted(EVERY)
SUMMED = sorted(n for n, m in EVERY.items() if isinstance(m, SummedMethod))
ALONE = sorted(METHODS)  # whose community adapter alone is what everyone has
WIDE = 32  # more modules than any layer has rows or columns
RANK = 4


def make_adapter(rank=RANK, seed=0, zero_b=False, rslora=False):
    layers = (LayerSpec("down", 13, 29, rank), LayerSpec("up", 24, 17, rank))
    spec = AdapterSpec(layers, rank, 2.0 * rank, rslora, ("down", "up"))
    rng = np.random.default_rng(seed)
    adapter = Adapter(spec, rng.normal(0, 0.3, spec.size).astype(np.float32))
    if zero_b:
        for _, _, b in adapter.factors():
            b[...] = 0
    return adapter


def drift(seed, size=0.05):
    """A stand-in for training: moves the factors of the round by noise of its own."""

    def train(local):
        moved = Adapter(local.adapter.spec, local.adapter.vector.copy())
        rng = np.random.default_rng(seed)
        for _, a, b in moved.factors():
            for values, trained in ((a, local.factors.a), (b, local.factors.b)):
                values[...] += trained * rng.normal(0, size, values.shape).astype(np.float32)
        return moved

    return train


def stay(local):
    return local.adapter


def cohort(count=5, ranks=(RANK,)):
    rng = np.random.default_rng(7)
    return [
        Player(float(rng.uniform(0.2, 1)), ranks[i % len(ranks)], drift(i), bytes([i]))
        for i in range(count)
    ]


def dense(adapter):
    scale = adapter.spec.scale
    products = [
        scale * b.astype(np.float64) @ a.astype(np.float64) for _, a, b in adapter.factors()
    ]
    return np.concatenate([product.ravel() for product in products])


def own_b(community, mine):
    """What a volunteer has whose B stayed at home: the community's A with its own B."""
    pairs = zip(community.factors(), mine.factors(), strict=True)
    return modules.build(mine.spec, {layer.name: (a, b) for (layer, a, _), (_, _, b) in pairs})


def apart(one, other):
    """Relative distance of two adapters' ΔW."""
    return np.linalg.norm(dense(one) - dense(other)) / (np.linalg.norm(dense(other)) + 1e-12)


@pytest.fixture(params=ALL)
def method(request):
    return EVERY[request.param]


@pytest.fixture(params=[1, 2], ids=["odd", "even"])
def round_number(request):
    return request.param


def test_zero_deltas_leave_the_model_as_it_is(method, round_number):
    state = method.begin(make_adapter())
    players = [replace(player, train=stay) for player in cohort()]
    after = play_round(method, state, players, round_number)
    assert apart(after.adapter, state.adapter) < 1e-5


def test_one_volunteer_alone_gets_exactly_what_it_trained(method, round_number):
    state = method.begin(make_adapter())
    alone = Player(0.3, RANK, drift(1), b"x")
    local = method.start(state.adapter, LocalRound(round_number, RANK, b"x"))
    trained = local.whole(alone.train(local))
    after = play_round(method, state, [alone], round_number).adapter
    model = own_b(after, trained) if method.name == LocalB.name else after
    assert apart(model, trained) < 1e-5
    assert apart(after, state.adapter) > 1e-2


def test_rank_one_community_works(method, round_number):
    state = method.begin(make_adapter(rank=1))
    after = play_round(method, state, cohort(ranks=(1,)), round_number)
    assert np.isfinite(after.adapter.vector).all()
    assert apart(after.adapter, state.adapter) > 1e-3


def test_a_rank_above_a_layers_width_works(method, round_number):
    state = method.begin(make_adapter(rank=WIDE))
    after = play_round(method, state, cohort(ranks=(WIDE,)), round_number)
    assert after.rank == WIDE
    assert np.isfinite(after.adapter.vector).all()
    assert apart(after.adapter, state.adapter) > 1e-3
    players = [replace(player, train=stay) for player in cohort(ranks=(WIDE,))]
    still = play_round(method, state, players, round_number)
    assert apart(still.adapter, state.adapter) < 1e-5


def test_order_of_volunteers_does_not_matter(method, round_number):
    state = method.begin(make_adapter())
    players = cohort()
    forward = play_round(method, state, players, round_number)
    backward = play_round(method, state, players[::-1], round_number)
    if method.traits.summable:
        assert forward.adapter.digest == backward.adapter.digest
    assert apart(forward.adapter, backward.adapter) < 1e-6


def test_splitting_a_volunteer_into_two_halves_changes_nothing(method, round_number):
    state = method.begin(make_adapter())
    first, *others = cohort()
    half = replace(first, weight=first.weight / 2)
    whole = play_round(method, state, [first, *others], round_number)
    split = play_round(method, state, [half, *others, half], round_number)
    assert apart(split.adapter, whole.adapter) < 1e-6


def test_scaling_all_weights_changes_nothing(method, round_number):
    state = method.begin(make_adapter())
    players = cohort()
    lighter = [replace(player, weight=player.weight / 8) for player in players]
    one = play_round(method, state, players, round_number)
    other = play_round(method, state, lighter, round_number)
    assert apart(one.adapter, other.adapter) < 1e-6


def test_weights_count(method):
    state = method.begin(make_adapter())
    first, second = cohort(2)
    heavy = [replace(first, weight=1.0), replace(second, weight=1e-4)]
    after = play_round(method, state, heavy, 1)
    alone = play_round(method, state, [first], 1)
    even = play_round(method, state, [first, second], 1)
    assert apart(after.adapter, alone.adapter) < 1e-3
    assert apart(even.adapter, alone.adapter) > 1e-2


@pytest.mark.parametrize("name", [n for n in ALL if EVERY[n].traits.exact])
def test_methods_called_exact_commit_the_mean_of_products(name, round_number):
    """Where the rank allows: two volunteers of rank 2 in a community of rank 4."""
    method = EVERY[name]
    adapter = make_adapter()
    for _, a, b in adapter.factors():
        a[2:], b[:, 2:] = 0, 0
    state = MethodState(adapter, RANK)

    def train(seed):
        def two_modules(local):
            moved = drift(seed)(local)
            for _, a, b in moved.factors():
                a[2:], b[:, 2:] = 0, 0
            return moved

        return two_modules

    players = [Player(0.5, RANK, train(1)), Player(0.25, RANK, train(2))]
    local = method.start(adapter, LocalRound(round_number, RANK))
    wanted = (2 * dense(local.whole(train(1)(local))) + dense(local.whole(train(2)(local)))) / 3
    got = dense(play_round(method, state, players, round_number).adapter)
    assert np.linalg.norm(got - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_dropouts_leave_the_round_of_those_who_stayed(method, round_number):
    state = method.begin(make_adapter())
    players = cohort()
    after = play_round(method, state, players[:3], round_number)
    everyone = play_round(method, state, players, round_number)
    assert apart(after.adapter, everyone.adapter) > 1e-3
    # Who leaves between two exchanges leaves no trace but a basis that is wider than needed.
    if method.traits.exchanges > 1:
        leavers = [*players[:1], *(replace(p, exchanges=1) for p in players[1:2])]
        stayed = play_round(method, state, leavers, round_number)
        alone = play_round(method, state, players[:1], round_number)
        assert apart(stayed.adapter, alone.adapter) < 1e-4


@pytest.mark.parametrize("name", [n for n in ALL if EVERY[n].traits.mixed_ranks])
def test_mixed_ranks_train_and_keep_the_communitys_rank(name, round_number):
    method = EVERY[name]
    state = method.begin(make_adapter())
    after = play_round(method, state, cohort(6, ranks=(1, 2, 4)), round_number)
    assert after.rank == RANK
    assert method.traits.grows or after.adapter.spec == state.adapter.spec
    assert np.isfinite(after.adapter.vector).all()
    assert apart(after.adapter, state.adapter) > 1e-3


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", [n for n in ALL if EVERY[n].traits.mixed_ranks])
def test_a_volunteer_of_lower_rank_means_the_same_by_its_update(name, rslora):
    """Trap 4: with one α for all ranks, a rank-2 and a rank-4 volunteer's BA differ in scale."""
    method = EVERY[name]
    state = method.begin(make_adapter(rslora=rslora))
    player = Player(1.0, 2, drift(3), b"seed")
    local = method.start(state.adapter, LocalRound(1, 2, b"seed"))
    assert local.adapter.spec.rank == 2
    assert local.adapter.spec.scale == pytest.approx(state.adapter.spec.scale, rel=1e-10)
    trained = player.train(local)
    wanted = dense(trained) + (0 if local.frozen is None else dense(local.frozen))
    got = dense(play_round(method, state, [player], 1).adapter)
    assert np.linalg.norm(got - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_every_module_can_still_learn_after_a_round(method, round_number):
    """A module with A = B = 0 has no gradient, ever; the SVD of a fresh adapter gives just that."""
    state = method.begin(make_adapter(zero_b=True))
    players = [replace(player, train=stay) for player in cohort()]
    after = play_round(method, state, players, round_number)
    for _, a, b in after.adapter.factors():
        sizes = np.linalg.norm(a[: after.rank], axis=1) + np.linalg.norm(b[:, : after.rank], axis=0)
        assert sizes.min() > 0.1


@pytest.mark.parametrize("name", ALONE)
def test_five_rounds_stay_finite_and_move(name):
    method = METHODS[name]
    state = method.begin(make_adapter(zero_b=True))
    first = state.adapter
    for number in range(1, 6):
        state = play_round(method, state, cohort(), number)
    assert np.isfinite(state.adapter.vector).all()
    assert np.linalg.norm(dense(state.adapter) - dense(first)) > 0.1


def test_state_survives_a_checkpoint(method):
    state = play_round(method, method.begin(make_adapter()), cohort(), 1)
    again = MethodState.from_arrays(state.adapter.spec, state.to_arrays())
    assert again.rank == state.rank
    one, other = (play_round(method, s, cohort(), 2) for s in (state, again))
    assert one.adapter.digest == other.adapter.digest


def test_functions_leave_their_arguments_alone(method, round_number):
    state = method.begin(make_adapter())
    state.adapter.vector.setflags(write=False)
    before = state.adapter.digest
    play_round(method, state, cohort(), round_number)
    assert Adapter(state.adapter.spec, state.adapter.vector).digest == before


def test_uploads_have_the_length_of_their_manifest(method, round_number):
    state = method.begin(make_adapter())
    spec = state.adapter.spec
    for rank in (2, RANK) if method.traits.mixed_ranks else (RANK,):
        local = method.start(state.adapter, LocalRound(round_number, rank, b"s"))
        vector = method.upload(local, drift(1)(local), round_number)
        assert vector.dtype == np.float32
        assert vector.size == method.manifest(spec, round_number, 1, rank).size


@pytest.mark.parametrize("name", SUMMED)
def test_the_server_learns_only_a_sum(name, round_number):
    """Any reports with the same weighted sum give the same next adapter."""
    method = EVERY[name]
    if method.traits.exchanges > 1:
        pytest.skip("its second report depends on the first reply")
    state = method.begin(make_adapter())
    reports = []
    for player in cohort(3):
        local = method.start(state.adapter, LocalRound(round_number, player.rank, player.seed))
        reports.append(method.upload(local, player.train(local), round_number))
    swapped = [reports[0] + reports[1] / 2, reports[1] / 2, reports[2]]
    results = []
    for vectors in (reports, swapped):
        total = ExactSum.empty(vectors[0].size)
        for vector in vectors:
            total.add(vector, 0.5)
        update = method.update(state, total.mean(), round_number)
        results.append(method.commit(state, update, round_number).adapter)
    assert apart(results[0], results[1]) < 1e-6


def backwards(work, *pieces):
    """A map that takes its pieces from last to first, as a pool of threads might."""
    return [work(*piece) for piece in reversed(list(zip(*pieces, strict=False)))]


@pytest.mark.parametrize("name", SUMMED)
def test_layers_may_be_worked_on_in_any_order(name, round_number):
    method = EVERY[name]
    state = method.begin(make_adapter())
    adapters = []
    for run in (map, backwards):
        reply = None
        for exchange in range(1, method.traits.exchanges + 1):
            size = method.manifest(state.adapter.spec, round_number, exchange).size
            mean = np.random.default_rng(exchange).normal(0, 0.05, size).astype(np.float32)
            if exchange < method.traits.exchanges:
                reply = method.reply(state, mean, round_number, exchange, run)
        update = method.update(state, mean, round_number)
        adapters.append(method.commit(state, update, round_number, reply, run).adapter)
    assert adapters[0].vector.tobytes() == adapters[1].vector.tobytes()
    assert apart(adapters[0], state.adapter) > 1e-3


def test_a_foreign_adapter_is_refused(method):
    state = method.begin(make_adapter())
    local = method.start(state.adapter, LocalRound(1, RANK))
    with pytest.raises(Exception, match="not the one that was started from"):
        method.upload(local, make_adapter(rank=2), 1, 1)


def test_a_rank_out_of_range_is_refused(method):
    state = method.begin(make_adapter())
    for rank in (0, RANK + 1):
        with pytest.raises(Exception, match="is not in 1"):
            method.start(state.adapter, LocalRound(1, rank))


@pytest.mark.parametrize("name", [n for n in ALL if isinstance(EVERY[n], PlaintextMethod)])
def test_plaintext_methods_refuse_nothing_and_bad_weights(name):
    method = EVERY[name]
    state = method.begin(make_adapter())
    good = state.adapter.vector
    for uploads in (
        (),
        (PlaintextReport(0.0, good, RANK),),
        (PlaintextReport(float("nan"), good, RANK),),
    ):
        with pytest.raises(Exception, match="positive weight"):
            method.commit_each(state, uploads, 1)


def test_a_traits_claim_is_not_empty(method):
    assert method.summary
    assert "arXiv:" in method.source
    assert method.traits.summable == isinstance(method, SummedMethod)


def masked_mean(method, state, round_number, exchange, reports, *, diaries, gone=()):
    """The mean of the vectors as secure aggregation's own machines find it.

    diaries: public key → the marks its owner has made, which grow. gone: places of those who fall
    silent when the first masked reports are asked for, and are not asked again.
    """
    manifest = method.manifest(state.adapter.spec, round_number, exchange)
    keys = sorted((SigningKey(bytes([i + 1]) * 32) for i in range(len(reports))), key=_public)
    roster = RosterView(b"r" * 32, {key.public: f"v{i}" for i, key in enumerate(keys)})
    digest = state.adapter.digest
    terms = Terms(round_number, exchange, b"b" * 32, digest, manifest, roster)
    clips = method.clips(state.adapter, round_number, exchange, 0.3)
    offer = propose(bytes([exchange]) * 32, terms, clips, (2, len(keys)))
    policy = Policy(2, allow_weak=True)
    clients = {}
    for i, (key, vector) in enumerate(zip(keys, reports, strict=True)):
        contribution, secrets = Contribution(vector), SessionSecrets(bytes([i]) * 32)
        segments = ClipLayout(manifest, clips).segments(0, manifest.size)
        assert all((np.abs(vector[where]) <= clip).all() for where, clip in segments)  # wide enough
        clients[key.public] = ClientSession(
            Volunteer(key, terms, policy, tuple(diaries[key.public]), contribution, secrets)
        )
    server = ServerSession(offer, manifest, roster)
    silent = {keys[place].public for place in gone}
    step = server.open([k.public for k in keys if exchange == 1 or k.public not in silent])
    while not server.over:
        for public, message in step.outgoing.items():
            if server.phase is ServerPhase.MASKED and public in silent:
                continue
            taken = clients[public].receive(message)
            diaries[public] += taken.persist
            if taken.outgoing is not None:
                server.receive(public, taken.outgoing)
        step = server.close()
    assert step.result is not None, step.reason
    return step.result.mean


def _public(key):
    return key.public


def masked_round(method, state, players, round_number, gone=()):
    """play_round() through secure aggregation's machines; `gone` vanish from every exchange."""
    starts = [
        method.start(state.adapter, LocalRound(round_number, p.rank, p.seed)) for p in players
    ]
    trained = [player.train(local) for player, local in zip(players, starts, strict=True)]
    reply, diaries = None, defaultdict(list)
    for exchange in range(1, method.traits.exchanges + 1):
        reports = [
            method.upload(local, adapter, round_number, exchange, reply)
            for local, adapter in zip(starts, trained, strict=True)
        ]
        mean = masked_mean(
            method, state, round_number, exchange, reports, diaries=diaries, gone=gone
        )
        if exchange < method.traits.exchanges:
            reply = method.reply(state, mean, round_number, exchange)
    return method.commit(state, method.update(state, mean, round_number), round_number, reply)


@pytest.mark.parametrize("ranks", [(RANK,), (1, 2, RANK)], ids=["equal ranks", "mixed ranks"])
@pytest.mark.parametrize("name", SUMMED)
def test_the_masked_sum_is_the_plain_sum(name, ranks, round_number):
    """Through secure aggregation's real machines, every exchange, at the clips a federation has."""
    method = EVERY[name]
    state = method.begin(make_adapter())
    players = [replace(player, weight=1.0) for player in cohort(4, ranks)]
    masked = masked_round(method, state, players, round_number)
    plain = play_round(method, state, players, round_number)
    assert apart(masked.adapter, plain.adapter) < 1e-4
    assert apart(masked.adapter, state.adapter) > 1e-3


@pytest.mark.parametrize("name", SUMMED)
def test_a_masked_sum_without_those_who_vanish_is_the_plain_sum_of_the_others(name, round_number):
    method = EVERY[name]
    state = method.begin(make_adapter())
    players = [replace(player, weight=1.0) for player in cohort(6)]
    masked = masked_round(method, state, players, round_number, gone=(2,))
    plain = play_round(method, state, players[:2] + players[3:], round_number)
    everyone = play_round(method, state, players, round_number)
    assert apart(masked.adapter, plain.adapter) < 1e-4
    assert apart(plain.adapter, everyone.adapter) > 1e-3


def turned(train, turn):
    """Training that ends with the same BA in other coordinates: (B·G, G⁻¹·A) in every layer."""

    def trained(local):
        moved = train(local)
        for _, a, b in moved.factors():
            g = turn(a.shape[0])
            a[...], b[...] = np.linalg.solve(g, a.astype(np.float64)), b.astype(np.float64) @ g
        return moved

    return trained


def invertible(seed):
    def draw(rank):
        rng = np.random.default_rng(seed)
        return np.eye(rank) + 0.4 * rng.normal(size=(rank, rank))

    return draw


def orthogonal(seed):
    return lambda rank: np.linalg.qr(np.random.default_rng(seed).normal(size=(rank, rank)))[0]


ROTATIONS = {
    **dict.fromkeys(("flora", "flexlora", "fedask"), invertible),
    "fedrot": orthogonal,
}


def rotated(name, kind):
    """(as trained, and with each volunteer's factors in coordinates of its own), next adapters."""
    method = EVERY[name]
    state = method.begin(make_adapter())
    players = cohort()
    others = [replace(p, train=turned(p.train, kind(i))) for i, p in enumerate(players)]
    return [play_round(method, state, some, 1).adapter for some in (players, others)]


@pytest.mark.parametrize("name", ROTATIONS)
def test_methods_that_claim_it_do_not_care_for_a_volunteers_coordinates(name):
    """Products of factors are all that flora, flexlora and fedask see; fedrot turns them back."""
    one, other = rotated(name, ROTATIONS[name])
    assert apart(one, other) < 1e-4


def test_averaging_factors_does_care():
    """Trap 3's root: what the test above would find in a method that averages A and B."""
    one, other = rotated("fedavg", orthogonal)
    assert apart(one, other) > 0.1


def test_a_personal_b_is_in_no_report_and_the_communitys_b_stands(round_number):
    method = LocalB()
    state = method.begin(make_adapter())
    local = method.start(state.adapter, LocalRound(round_number, RANK))
    trained = drift(1)(local)
    report = method.upload(local, trained, round_number)
    assert report.size == sum(layer.a.size for layer in state.adapter.spec.layers)
    other = Adapter(trained.spec, trained.vector.copy())
    for _, _, b in other.factors():
        b[...] += 1.0
    assert np.array_equal(method.upload(local, other, round_number), report)
    after = play_round(method, state, cohort(3), round_number).adapter
    for (_, a, b), (_, a0, b0) in zip(after.factors(), state.adapter.factors(), strict=True):
        assert np.array_equal(b, b0)
        assert not np.array_equal(a, a0)
