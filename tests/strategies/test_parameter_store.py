import jax
import numpy as np
import optax
import pytest

from jaxdna.strategies.parameter_store import Gate, Store, assign, choose, merge, paths_of, take


def gradient(seed):
    return {"layer": {"kernel": np.random.default_rng(seed).normal(size=(3, 2)).astype("f4")}}


def store(folder, parts=1, every=3, step=0):
    optimizer = optax.sgd(0.5, momentum=0.9)
    made = Store(optimizer, folder / "store", every)
    start = jax.tree.map(np.zeros_like, gradient(0))
    made.load(start, jax.tree.map(np.asarray, optimizer.init(start)), step, parts)
    return made


def kernel(store_):
    return store_.pull()[1]["layer"]["kernel"]


def test_a_push_is_one_update_and_a_repeated_push_is_none(tmp_path):
    one = store(tmp_path)
    assert one.push(0, 0, 0, gradient(1))
    np.testing.assert_array_equal(kernel(one), -0.5 * gradient(1)["layer"]["kernel"])
    before = kernel(one)
    assert one.push(0, 0, 0, gradient(2))  # the answer was lost, the worker asks again
    assert one.push(-1, 0, 0, gradient(2))  # a step of an earlier call
    np.testing.assert_array_equal(kernel(one), before)
    assert (one.version, dict(one.staleness)) == (1, {0: 1})


def test_parts_make_one_update_in_one_order_whoever_comes_first(tmp_path):
    early, late = store(tmp_path / "a", parts=3), store(tmp_path / "b", parts=3)
    for part in (0, 1, 2):
        assert early.push(0, part, 0, gradient(part)) == (part == 2)
    for part in (2, 0, 0, 1):
        assert late.push(0, part, 0, gradient(part)) == (part == 1)
    np.testing.assert_array_equal(kernel(early), kernel(late))
    assert early.version == late.version == 1


def test_staleness_counts_the_updates_between_pull_and_push(tmp_path):
    one = store(tmp_path, step=100)
    first, _ = one.pull()
    second, _ = one.pull()
    one.push(100, 0, first, gradient(0))
    one.push(101, 0, second, gradient(1))
    third, _ = one.pull()
    assert (first, second, third) == (100, 100, 102)
    one.push(102, 0, third, gradient(2))
    assert dict(one.staleness) == {0: 2, 1: 1}


def test_a_store_comes_back_from_its_checkpoint_with_fewer_than_every_updates_lost(tmp_path):
    for pushes in range(8):
        one = store(tmp_path, every=3)
        history = [kernel(one)]
        for step in range(pushes):
            one.push(step, 0, step, gradient(step))
            history.append(kernel(one))
        again = Store(optax.sgd(0.5, momentum=0.9), tmp_path / "store", 3)
        again.restore()
        assert pushes - 3 < again.version <= pushes
        np.testing.assert_array_equal(kernel(again), history[again.version])
        # It goes on as if the lost pushes had never come, and knows those it has.
        again.push(0, 0, 0, gradient(99))
        assert again.version == pushes // 3 * 3 + (pushes < 3)


@pytest.mark.parametrize(("workers", "bound"), [(1, 0), (3, 2), (3, 1), (4, 3), (4, 9), (8, 4)])
def test_the_gate_keeps_every_gradient_within_the_bound(workers, bound):
    """Workers of random speed against a count of updates: the bound holds and is reached."""
    rng = np.random.default_rng(workers * 100 + bound)
    gate, version, pulled, oldest = Gate(bound), 0, {}, 0
    for ticket in range(3000):
        while len(pulled) < workers and gate.open():
            gate.begin((ticket, len(pulled)))
            pulled[ticket, len(pulled)] = version
        assert pulled, "nobody may pull and nobody is on the way"
        chosen = list(pulled)[0 if rng.random() < 0.05 else -1]  # the first is slow
        oldest = max(oldest, version - pulled.pop(chosen))
        lost = rng.random() < 0.01
        gate.end(chosen, pushed=not lost)
        version += not lost
    assert oldest == (min(bound, workers - 1) if workers == 1 else bound)


def test_variables_are_shared_by_size_and_come_together_again():
    params = {
        "conv": {"kernel": np.arange(6.0), "bias": np.arange(2.0)},
        "dense": {"kernel": np.arange(3.0), "bias": np.arange(1.0)},
    }
    sizes = {path: leaf.size for path, leaf in paths_of(params).items()}
    shares = assign(sizes, 2)
    assert shares == [["conv/kernel"], ["dense/kernel", "conv/bias", "dense/bias"]]
    assert choose(params, shares[0]).keys() == {"conv"}
    state = optax.adam(0.1).init(params)
    parts = [take(state, params, share) for share in shares]
    assert sum(leaf.size for leaf in jax.tree.leaves(parts[0])) == 2 * 6 + 1
    jax.tree.map(np.testing.assert_array_equal, merge(parts, state, params), state)
