"""The order of documents, against a reference that goes document by document and knows no blocks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.data.recipe import mixture as module
from tuneopt.data.recipe.mixture import Mixture, SourcePosition
from tuneopt.data.recipe.units import EQUAL, SELECT, TRAIN, Rows, Unit
from tuneopt.spec import InputError

Document = tuple[int, int]  # fate and tokens


class Shelf:
    """Stands in for the staging area: units are lists of blocks of documents, in memory."""

    def __init__(self, sources: list[list[list[list[Document]]]]) -> None:
        self.sources = sources

    def unit(self, source: int, number: int) -> Unit | None:
        return Unit(source, number, None) if number < len(self.sources[source]) else None

    def file(self, unit: Unit) -> Unit:
        return unit

    def start_over(self, source: int) -> None:
        pass

    def rows(self, unit: Unit):  # type: ignore[no-untyped-def]
        for block in self.sources[unit.source][unit.number]:
            lengths = np.array([tokens for _, tokens in block], np.int64)
            yield Rows(
                np.array([fate for fate, _ in block], np.uint8),
                lengths * 4,
                np.arange(len(block), dtype=np.uint64),
                np.zeros(lengths.sum(), np.uint16),
                np.cumsum(lengths),
                np.zeros(0, np.uint64),
                np.zeros(len(block), np.int64),
            )


def mixed(
    sources: list[list[list[list[Document]]]],
    weights: list[int],
    limit: int | None,
    exhausted: str,
    room: int,
    monkeypatch: pytest.MonkeyPatch,
    standing: list[SourcePosition] | None = None,
) -> tuple[list[tuple[int, int, int]], Mixture]:
    """Documents in order as (source, fate, tokens)."""
    shelf = Shelf(sources)
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_rows", shelf.rows)
        mixture = Mixture(
            shelf, [Fraction(weight) for weight in weights], list("abcdef"), (TRAIN,), limit, exhausted,
            standing or [SourcePosition() for _ in sources],
        )  # type: ignore[arg-type]  # fmt: skip
        found: list[tuple[int, int, int]] = []
        while (run := mixture.draw(room)) is not None:
            lengths = np.diff(run.ends, prepend=0)
            assert int(lengths.sum()) == len(run.tokens)
            counted = lengths[run.fates == TRAIN]
            assert counted[:-1].sum() < room  # only the last document may reach it
            found += [(run.source, fate, n) for fate, n in zip(run.fates.tolist(), lengths.tolist(), strict=True)]
    return found, mixture


def reference(
    sources: list[list[Document]], weights: list[int], limit: int | None, exhausted: str
) -> list[tuple[int, int, int]]:
    """The rule as it is written: the source with the fewest tokens for its weight gives its next document."""
    taken, places, live, out = [0] * len(sources), [0] * len(sources), set(range(len(sources))), []
    while live and (limit is None or sum(taken) < limit):
        source = min(live, key=lambda index: (Fraction(taken[index], weights[index]), index))
        if places[source] == len(sources[source]):
            if exhausted == "stop":
                break
            if exhausted == "leave":
                live.remove(source)
                continue
            places[source] = 0
        fate, tokens = sources[source][places[source]]
        places[source] += 1
        out.append((source, fate, tokens))
        if fate == TRAIN:
            taken[source] += tokens
    return out


def fated(documents: list[tuple[bool, int, int]]) -> list[Document]:
    return [(TRAIN, tokens) if plain else (fate, 0 if fate == EQUAL else tokens) for plain, fate, tokens in documents]


DOCUMENTS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([SELECT, EQUAL]), st.integers(1, 9)), max_size=14
).map(fated)  # fmt: skip


def cut(documents: list[Document], data: st.DataObject) -> list[list[list[Document]]]:
    """Units of blocks; some units may be empty."""

    def parts(whole: list, most: int) -> list:  # type: ignore[type-arg]
        edges = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=most)))
        return [whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True)]

    return [[block for block in parts(unit, 2) if block] for unit in parts(documents, 3)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(DOCUMENTS, min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.none() | st.integers(1, 60),
    st.sampled_from(["stop", "leave", "repeat"]),
    st.integers(1, 30),
    st.data(),
)
def test_the_order_is_that_of_the_rule_however_text_is_cut(
    documents: list[list[Document]], weights: list[int], limit: int | None, exhausted: str, room: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    if exhausted == "repeat":
        limit = limit or 40
        documents = [each if any(fate == TRAIN for fate, _ in each) else [*each, (TRAIN, 3)] for each in documents]
    weights = weights[: len(documents)]
    with pytest.MonkeyPatch.context() as patch:
        found, mixture = mixed([cut(each, data) for each in documents], weights, limit, exhausted, room, patch)
    expected = reference(documents, weights, limit, exhausted)
    assert found == expected
    assert mixture.taken == sum(tokens for _, fate, tokens in found if fate == TRAIN)


@settings(max_examples=100, deadline=None)
@given(st.lists(DOCUMENTS, min_size=2, max_size=3), st.integers(0, 20), st.data())
def test_going_on_from_any_standing_is_the_same(
    documents: list[list[Document]], stop: int, data: st.DataObject
) -> None:
    weights = [2, 3, 1][: len(documents)]
    cuts = [cut(each, data) for each in documents]
    with pytest.MonkeyPatch.context() as patch:
        whole, _ = mixed(cuts, weights, None, "leave", 5, patch)
        head, mixture = mixed(cuts, weights, stop, "leave", 5, patch)
        copies = [SourcePosition(**each.to_dict()) for each in mixture.positions]
        tail, _ = mixed(cuts, weights, None, "leave", 5, patch, copies)
    assert head + tail == whole


def test_no_source_strays_from_its_share_by_more_than_a_document() -> None:
    rng = np.random.default_rng(0)
    documents = [[(TRAIN, int(n)) for n in rng.integers(1, 50, 3000)] for _ in range(3)]
    weights = [380, 25, 6]
    with pytest.MonkeyPatch.context() as patch:
        found, _ = mixed([[[each]] for each in documents], weights, 30_000, "stop", 10**9, patch)
    taken = np.zeros(3)
    for source, _, tokens in found:
        taken[source] += tokens
        shares = taken / np.array(weights)
        assert shares.max() - shares.min() <= 50 / min(weights) + 50 / max(weights)
    assert taken / taken.sum() == pytest.approx(np.array(weights) / sum(weights), abs=0.003)


def test_a_source_without_training_text_cannot_repeat() -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="source a has no document left"):
        mixed([[[[(SELECT, 3)]]]], [1], 10, "repeat", 5, patch)


@pytest.mark.parametrize(
    ("exhausted", "limit", "why"),
    [
        ("stop", None, "source b ran out"),
        ("leave", None, "every source"),
        ("stop", 6, "6 tokens"),
        ("repeat", 99, "99"),
    ],
)
def test_the_end_has_a_reason(exhausted: str, limit: int | None, why: str) -> None:
    sources = [[[[(TRAIN, 2)] * 10]], [[[(TRAIN, 2)] * 3]]]
    with pytest.MonkeyPatch.context() as patch:
        _, mixture = mixed(sources, [1, 1], limit, exhausted, 4, patch)
    assert why in mixture.ended
    # 3 documents of 2 tokens an epoch; 50 of the 99 tokens are asked of source b, 8 whole epochs and a bit
    assert mixture.positions[1].epoch == (8 if exhausted == "repeat" else 0)
