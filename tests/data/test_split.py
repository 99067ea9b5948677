import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbkit.data.columns import content_hash
from rbkit.data.corpus import apportion, draw_sources, hold_out, subsample, uniform
from rbkit.errors import InputError

words = st.lists(
    st.text(min_size=1, max_size=8),
    min_size=2,
    max_size=60,
    unique_by=lambda text: tuple(text.split()),  # the hash is blind to whitespace
)


@given(words, st.randoms(use_true_random=False), st.integers(0, 5))
def test_who_is_held_out_depends_on_the_text_and_not_on_its_place(items, random, seed):
    held = dict(zip(items, hold_out(content_hash(items), 0.3, None, seed), strict=True))
    shuffled = random.sample(items, len(items))
    again = dict(zip(shuffled, hold_out(content_hash(shuffled), 0.3, None, seed), strict=True))
    assert held == again
    assert any(held.values())
    assert not all(held.values())


@given(st.integers(0, 3), st.integers(1, 50))
def test_adding_rows_moves_no_other_row(seed, added):
    old = content_hash(f"old {i}" for i in range(200))
    new = content_hash(f"new {i}" for i in range(added))
    before = hold_out(old, 0.2, None, seed)
    after = hold_out(np.concatenate([new, old]), 0.2, None, seed)
    np.testing.assert_array_equal(before, after[added:])


@given(st.integers(0, 3), st.integers(1, 50), st.integers(1, 100))
def test_with_a_size_added_rows_never_bring_a_training_row_into_eval(seed, added, size):
    old = content_hash(f"old {i}" for i in range(200))
    new = content_hash(f"new {i}" for i in range(added))
    before = hold_out(old, 0.2, size, seed)
    after = hold_out(np.concatenate([old, new]), 0.2, size, seed)
    assert before.sum() == after.sum() == size
    assert not np.any(after[:200] & ~before)


@given(st.lists(st.sampled_from(["a b", "a  b", " a b\n", "c", "d", "e"]), min_size=1))
def test_copies_of_a_text_are_never_on_both_sides(items):
    items = [*items, "x", "y"]
    hashes = content_hash(items)
    held = hold_out(hashes, 0.5, None, 0)
    assert not np.isin(hashes[held], hashes[~held]).any()


def test_the_share_is_about_what_was_asked():
    hashes = content_hash(str(i) for i in range(20_000))
    assert abs(hold_out(hashes, 0.1, None, 0).mean() - 0.1) < 0.01


def test_seeds_and_purposes_are_independent():
    hashes = content_hash(str(i) for i in range(5000))
    u = [uniform(hashes, 0, "a"), uniform(hashes, 1, "a"), uniform(hashes, 0, "b")]
    assert np.abs(np.corrcoef(u) - np.eye(3)).max() < 0.05
    assert np.min(u) >= 0
    assert np.max(u) < 1


def test_one_text_cannot_be_split():
    with pytest.raises(InputError, match="two different texts"):
        hold_out(content_hash(["same", "same "]), 0.1, None, 0)


def test_a_size_beyond_the_corpus_is_refused():
    with pytest.raises(InputError, match="eval_size: 3 of 3 examples"):
        hold_out(content_hash(["a", "b", "c"]), 0.1, 3, 0)


@given(
    st.integers(0, 1000),
    st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda shares: sum(shares) > 0.01),
)
def test_apportioned_counts_add_up_and_are_within_one_of_exact(total, shares):
    shares = np.array(shares)
    counts = apportion(total, shares)
    assert counts.sum() == total
    assert np.all(np.abs(counts - total * shares / shares.sum()) < 1 + 1e-6)


@given(st.integers(1, 120), st.integers(0, 3))
def test_a_subsample_keeps_the_mix_of_sources(size, seed):
    codes = np.repeat([0, 1, 2], [100, 50, 10])
    hashes = content_hash(str(i) for i in range(160))
    taken = subsample(np.arange(160), codes, hashes, size, seed)
    counts = np.bincount(codes[taken], minlength=3)
    assert counts.sum() == size == len(set(taken.tolist()))
    assert np.all(np.abs(counts - size * np.array([100, 50, 10]) / 160) <= 1.5)
    if size >= 3:
        assert np.all(counts >= 1)


def test_drawn_sources_have_the_shares_asked_for():
    codes = np.repeat([0, 1], [100, 100])
    hashes = content_hash(str(i) for i in range(200))
    drawn = draw_sources(np.arange(200), codes, hashes, ["a", "b"], {"a": 3, "b": 1}, None, 0)
    assert np.bincount(codes[drawn]).tolist() == [99, 33]  # 100 of a allow 133 in all


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"z": 1.0}, "no source 'z'; the sources are 'a', 'b'"),
        ({"a": -1.0, "b": 2.0}, "are not shares"),
        ({"a": float("nan")}, "are not shares"),
        ({}, "are not shares"),
    ],
)
def test_bad_shares_are_refused(shares, said):
    codes, hashes = np.array([0, 1]), content_hash(["x", "y"])
    with pytest.raises(InputError, match=said):
        draw_sources(np.arange(2), codes, hashes, ["a", "b"], shares, None, 0)


def test_too_few_rows_for_a_share_says_how_many_there_are():
    codes, hashes = np.array([0, 0, 0, 1]), content_hash(["w", "x", "y", "z"])
    with pytest.raises(InputError, match=r"2 held-out examples of source 'b' .* there are 1"):
        draw_sources(np.arange(4), codes, hashes, ["a", "b"], {"a": 0.5, "b": 0.5}, 4, 0)
