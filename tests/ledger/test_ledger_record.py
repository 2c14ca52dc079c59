import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_samples import CORPUS, make_record, make_spec

from tuneopt.ledger.record import CurvePoint, TrialRecord, finite
from tuneopt.spec import SCALES, InputError, Regime, TrialSpec

loss = st.floats(-50, 50)
amount = st.floats(0, 1e18)
count = st.integers(0, 2**62)
text = st.text(max_size=12)
word = text.filter(str.isprintable)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
curve_point = st.builds(CurvePoint, count, count, amount, st.none() | loss, st.none() | loss, st.none() | loss, amount)
specs = st.builds(
    lambda optimizer, extra, batch, scale, ratio, seed: TrialSpec(
        optimizer, TrialSpec.freeze({**extra, "train_batch_size": batch}), Regime(scale, ratio, CORPUS), seed
    ),
    word,
    st.dictionaries(word, loss | word | st.booleans() | st.integers(-9, 9), max_size=4),
    st.integers(1, 8),
    st.sampled_from(list(SCALES.values())),
    st.floats(0.25, 64),
    st.integers(0, 9),
)


@st.composite
def records(draw: st.DrawFn) -> TrialRecord:
    diverged = draw(st.booleans())
    return make_record(
        draw(specs),
        None if diverged else draw(loss),
        curve=tuple(draw(st.lists(curve_point, max_size=4))),
        initial_loss=draw(st.none() | loss if diverged else loss),
        report_loss=None if diverged else draw(loss),
        tokens=draw(count),
        flops=draw(amount | st.integers(0, 10**24)),
        seconds={part: draw(amount) for part in ("train", "eval", "startup", "checkpoint")},
        peak_bytes=draw(st.none() | count),
        proof=draw(st.none() | st.dictionaries(text, plain, max_size=3)),
        routing=tuple(draw(st.lists(st.dictionaries(text, plain, max_size=2), max_size=2))),
        environment=draw(st.dictionaries(text, plain, max_size=3)),
        notes=tuple(draw(st.lists(text, max_size=2))),
    )


@settings(deadline=None, max_examples=60)
@given(records())
def test_json_round_trip_is_exact(record: TrialRecord) -> None:
    line = record.to_json()
    assert "\n" not in line
    assert TrialRecord.from_json(line) == record
    assert TrialRecord.from_json(line.encode()).to_json() == line


def test_lists_become_tuples_and_non_finite_proof_numbers_become_words() -> None:
    record = make_record(
        routing=[{"rule": "adamw"}], notes=["a"], proof={"passed": False, "measured": (math.nan, -math.inf)}
    )
    assert record.routing == ({"rule": "adamw"},)
    assert record.notes == ("a",)
    assert record.proof == {"passed": False, "measured": ["nan", "-inf"]}
    assert TrialRecord.from_json(record.to_json()) == record


def test_comparable_needs_completion_and_a_passed_proof() -> None:
    assert make_record().comparable
    assert not make_record(loss=None).comparable
    assert not make_record(proof={"passed": False, "checks": []}).comparable
    assert not make_record(proof=None).comparable
    assert make_record(proof=None).proof_passed is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_finite_gives_none_for_what_is_no_number(value: float | None) -> None:
    assert finite(value) is None
    assert finite(2) == 2.0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"select_loss": math.nan}, "select_loss"),
        ({"report_loss": math.inf}, "report_loss"),
        ({"select_loss": None}, "select_loss"),
        ({"initial_loss": None}, "initial_loss"),
        ({"status": "complete"}, "did you mean 'completed'"),
        ({"status": "diverged"}, "select_loss"),
        ({"trial": "0" * 16}, "hash"),
        ({"tokens": -1}, "tokens"),
        ({"tokens": 1.5}, "tokens"),
        ({"steps": True}, "steps"),
        ({"epochs": math.nan}, "epochs"),
        ({"flops": "many"}, "flops"),
        ({"seconds": {"train": 1.0}}, "eval, startup, checkpoint"),
        ({"seconds": {"train": -1.0, "eval": 0.0, "startup": 0.0, "checkpoint": 0.0}}, "seconds train"),
        ({"started": "yesterday"}, "ISO-8601"),
        ({"ended": "2026-01-31T12:00:00"}, "UTC"),
        ({"ended": "2026-01-31T12:00:00+02:00"}, "UTC"),
        ({"proof": [1]}, "proof"),
        ({"routing": [1]}, "routing"),
        ({"environment": {"object": object()}}, "plain JSON"),
        ({"notes": "one"}, "notes"),
        ({"curve": ({"step": 1},)}, "CurvePoint"),
        ({"schema": 2}, "upgrade"),
        ({"schema": 0}, "schema"),
    ],
)
def test_construction_refuses(changes: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        make_record(**changes)
    assert "\n" not in str(caught.value)


def test_a_specification_without_a_batch_size_is_refused() -> None:
    bare = dataclasses.replace(make_spec(), hyperparameters=(("learning_rate", 0.1),))
    with pytest.raises(InputError, match="train_batch_size"):
        dataclasses.replace(make_record(), trial=bare.id, spec=bare)


@pytest.mark.parametrize("field", ["train_loss", "select_loss", "report_loss", "learning_rate", "seconds"])
def test_a_curve_point_holds_no_nan(field: str) -> None:
    point = CurvePoint(1, 2, 0.1, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(InputError, match=field):
        dataclasses.replace(point, **{field: math.nan})


def altered(**changes: object) -> str:
    return json.dumps({**json.loads(make_record().to_json()), **changes})


def without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(make_record().to_json()).items() if key != name})


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "truncated"),
        (make_record().to_json()[:-40], "truncated"),
        ("[1]", "object"),
        ('{"schema": 1, "schema": 1}', "twice"),
        (b"\xff\xfe\x00", "truncated"),
        ("[" * 100_000, "truncated"),
        (altered(schema=99), "upgrade"),
        (altered(schema="1"), "no known schema"),
        (altered(schema=True), "no known schema"),
        (altered(tokken=1), "did you mean 'tokens'"),
        (altered(curve={}), "curve"),
        (altered(curve=[{"step": 1}]), "curve point lacks"),
        (altered(curve=[3]), "curve point"),
        (altered(spec=3), "spec"),
        (altered(spec={"optimizer": "adamw"}), "specification"),
        (altered(select_loss=None), "select_loss"),
        (make_record().to_json().replace("3.5,", "NaN,", 1), "NaN"),
        (make_record().to_json().replace("3.5,", "1e999,", 1), "finite"),
        *((without(name), name) for name in ("schema", "trial", "spec", "curve", "select_loss", "proof", "notes")),
    ],
)
def test_decoding_refuses(line: str | bytes, word: str) -> None:
    with pytest.raises(InputError, match=word):
        TrialRecord.from_json(line)


def test_a_changed_specification_no_longer_matches_the_id() -> None:
    tree = json.loads(make_record().to_json())
    tree["spec"]["seed"] = 7
    with pytest.raises(InputError, match="hash"):
        TrialRecord.from_json(json.dumps(tree))


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_no_damage_gets_through_as_another_exception(data: st.DataObject) -> None:
    line = make_record().to_json()
    at = data.draw(st.integers(0, len(line) - 1))
    damaged = line[:at] + data.draw(st.text(max_size=3)) + line[at + data.draw(st.integers(0, 5)) :]
    try:
        record = TrialRecord.from_json(damaged)
    except InputError:
        return
    assert record.trial == record.spec.id
