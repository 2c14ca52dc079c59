"""The headline and the table of the first screen, on documents made by hand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.reporting.answer import MOST_COLUMNS, RegimeAnswer, answer, grid


def ranking(order, groups, ratio=1.0, scale="130m", corpus="", broken=()):
    losses = [3.0 + 0.01 * place for place in range(len(order))]
    return {"corpus": corpus, "scale": scale, "ratio": ratio, "order": order, "losses": losses, "tie_groups": groups,
            "broken": list(broken)}  # fmt: skip


def level(order, count):
    """A ranking without known noise, whose first ``count`` losses are equal."""
    plain = ranking(order, None)
    return {**plain, "losses": [3.0] * count + plain["losses"][count:]}


def speedup(optimizer, value, low, high, flags=(), ratio=1.0):
    return {"corpus": "", "scale": "130m", "ratio": ratio, "optimizer": optimizer, "speedup": value, "low": low,
            "high": high, "flags": list(flags)}  # fmt: skip


def answered(*rankings, speedups=()):
    return answer({"rankings": list(rankings), "speedups": list(speedups), "baseline": "adamw"})


@pytest.mark.parametrize(
    ("rankings", "headline"),
    [
        ([], "No run has a final loss: nothing to compare yet"),
        ([ranking(["soap"], [1])], "1 optimizer in 1 regime: nothing to compare yet"),
        ([ranking(["soap", "adamw"], [1, 2])], "SOAP has the lowest loss at 130M/1x"),
        ([ranking(["soap", "muon", "adamw"], [1, 1, 2])], "Muon and SOAP tie for the lowest loss at 130M/1x"),
        ([ranking(["soap", "muon"], None)], "SOAP has the lowest loss measured at 130M/1x, the noise being unknown"),
        ([ranking(["soap", "muon"], [1, 2]), ranking(["soap", "muon"], [1, 2], 2.0)],
         "SOAP has the lowest loss in both regimes"),
        ([ranking(["soap", "muon"], [1, 1], ratio) for ratio in (1.0, 2.0, 4.0)],
         "Muon and SOAP tie for the lowest loss in all 3 regimes"),
        ([ranking(["soap", "muon"], [1, 2]), ranking(["muon", "soap"], [1, 2], 2.0)],
         "No optimizer is best everywhere: Muon leads or ties in 1 of 2 regimes and SOAP in 1"),
        ([ranking(["soap", "muon"], [1, 2]), ranking(["muon", "soap"], [1, 1], 2.0)],
         "SOAP is in the leading group in both regimes: alone in 1, tied with Muon in 1"),
        ([ranking(["soap", "muon", "kron"], [1, 1, 2]), ranking(["muon", "soap", "kron"], [1, 1, 1], 2.0)],
         "Muon and SOAP tie for the lowest loss in both regimes, with Kron in 1"),
        ([ranking(["soap", "muon"], [1, 2]), ranking(["soap", "muon"], None, 2.0)],
         "SOAP has the lowest loss in the one regime with several optimizers and known noise"),
        ([ranking(["soap", "muon"], None), ranking(["muon", "soap"], None, 2.0)],
         "Lowest loss measured, the noise being unknown: Muon in 1, SOAP in 1 of 2 regimes"),
        ([level(["lion", "muon", "soap"], 2)],
         "Lion and Muon have the lowest loss measured at 130M/1x, the noise being unknown"),
        ([level(["lion", "muon", "soap"], 2), ranking(["muon", "lion"], None, 2.0)],
         "Lowest loss measured, the noise being unknown: Muon in 2, Lion in 1 of 2 regimes"),
    ],
)  # fmt: skip
def test_the_headline_names_groups_and_never_a_winner_that_is_none(rankings, headline):
    assert answered(*rankings).headline == headline


@pytest.mark.parametrize(
    ("rankings", "headline"),
    [
        ([ranking(["lion", "muon"], [1, 2], broken=["lion"]), ranking(["muon", "lion"], [1, 2], 2.0)],
         "No optimizer is best everywhere: Lion leads or ties in 1 of 2 regimes and Muon in 1; "
         "the loss of Lion at 130M/1x looks broken"),
        ([ranking(["lion", "muon"], None, broken=["lion"])],
         "Lion has the lowest loss measured at 130M/1x, the noise being unknown; the loss of Lion looks broken"),
        ([ranking(["lion", "muon"], [1, 2], ratio, broken=["lion"]) for ratio in (1.0, 2.0)],
         "Lion has the lowest loss in both regimes; 2 of these losses (Lion) look broken"),
        ([ranking(["muon", "soap", "lion"], [1, 2, 3], broken=["lion"])], "Muon has the lowest loss at 130M/1x"),
    ],
)  # fmt: skip
def test_a_headline_that_counts_a_broken_loss_says_so(rankings, headline):
    assert answered(*rankings).headline == headline


NAMES = ["adamw", "muon", "soap", "kron"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.permutations(NAMES), st.integers(1, 4)), min_size=1, max_size=6))
def test_a_lone_name_in_the_headline_leads_alone_everywhere_or_the_headline_says_with_whom_it_ties(drawn):
    rankings = [
        ranking(list(order), [1] * tied + [2] * (4 - tied), float(number + 1))
        for number, (order, tied) in enumerate(drawn)
    ]
    found = answered(*rankings)
    if "has the lowest loss" in found.headline:
        assert all(len(place.leaders) == 1 for place in found.places)
    if any(len(place.leaders) > 1 for place in found.places):
        assert "tie" in found.headline
    for place, given_ in zip(found.places, rankings, strict=True):
        assert place.leaders == tuple(given_["order"][: given_["tie_groups"].count(1)])


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([speedup("soap", 1.234, 1.1, 1.3)], ("1.23\u00d7", "[1.10, 1.30]")),
        (
            [speedup("soap", 1.234, 1.1, 1.3), speedup("muon", 1.31, 1.2, 1.4)],
            ("1.23\u20131.31\u00d7", "within [1.10, 1.40]"),
        ),
        ([speedup("soap", 1.2, None, None)], ("1.20\u00d7", "")),
        ([speedup("soap", 2.0, 1.5, None, ["lower bound", "open above"])], ("\u2265\u00a02.00\u00d7", "[1.50, open]")),
        ([speedup("soap", 1.4, 1.3, 1.7, ["extrapolated"])], ("1.40\u00d7", "[1.30, 1.70]")),
        ([speedup("soap", 0.0, None, None, ["no law"])], ("", "")),
        ([], ("", "")),
    ],
)
def test_speedups_of_a_group_read_as_a_range(rows, shown):
    place = answered(ranking(["soap", "muon", "adamw"], [1, 1, 2]), speedups=rows).places[0]
    assert (place.speedup, place.interval) == shown
    assert place.sure == (not rows or not {"extrapolated", "lower bound", "no law"} & set(rows[0]["flags"]))


@pytest.mark.parametrize(
    ("groups", "headline"),
    [
        (["kron soap", "kron soap", "kron soap scion", "soap", "kron scion muon"],
         "Kron leads or ties in 4 of 5 regimes, SOAP in 4, Scion in 2 and Muon in 1"),
        (["kron soap", "kron soap", "kron soap scion", "soap", "kron scion muon lion"],
         "Kron leads or ties in 4 of 5 regimes, SOAP in 4, Scion in 2 and 2 others in 1 each"),
    ],
)  # fmt: skip
def test_a_single_one_is_named_and_not_counted(groups, headline):
    """Nobody reads "1 others in 1"."""
    everyone = {"kron", "soap", "scion", "muon", "lion", "adamw"}
    rankings = [
        ranking([*group.split(), *sorted(everyone - set(group.split()))],
                [1] * len(group.split()) + [2] * (6 - len(group.split())), float(number + 1))
        for number, group in enumerate(groups)
    ]  # fmt: skip
    assert answered(*rankings).headline == f"No optimizer is best everywhere: {headline}"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([[]], ""),
        ([["extrapolated"]], "extrapolated, no run of AdamW reaches so far"),
        ([["interpolated"]], "on a law through two runs of AdamW alone"),
        ([["lower bound", "open above"], ["interpolated"]],
         "extrapolated, no run of AdamW reaches so far or on a law through two of its runs alone"),
    ],
)  # fmt: skip
def test_an_asterisk_says_why_a_speedup_is_not_measured(flags, words):
    rankings = [ranking(["soap", "adamw"], [1, 2], float(2**number)) for number in range(len(flags))]
    rows = [speedup("soap", 1.4, 1.2, 1.6, own) | {"ratio": float(2**number)} for number, own in enumerate(flags)]
    assert grid(answered(*rankings, speedups=rows), ("130m",)).doubt("AdamW") == words


def test_the_baseline_in_a_group_has_no_speedup_over_itself():
    rows = [speedup("adamw", 1.0, 0.9, 1.1), speedup("soap", 1.1, 1.0, 1.2)]
    place = answered(ranking(["soap", "adamw"], [1, 1]), speedups=rows).places[0]
    assert (place.leaders, place.speedup) == (("soap", "adamw"), "1.10\u00d7")


def test_the_grid_has_a_row_per_scale_and_says_what_it_leaves_out():
    rankings = [ranking(["soap", "muon"], [1, 2], float(ratio), scale) for scale in ("300m", "130m")
                for ratio in range(1, MOST_COLUMNS + 3)]  # fmt: skip
    found = grid(answered(*rankings), ("130m", "300m"))
    assert [name for name, _ in found.rows] == ["130M", "300M"]
    assert len(found.columns) == MOST_COLUMNS
    assert found.hidden == 4
    assert found.columns[0] == "1x" and found.columns[-1] == f"{MOST_COLUMNS + 2}x"


def test_regimes_without_a_result_are_empty_places():
    found = grid(answered(ranking(["soap", "muon"], [1, 2]), ranking(["soap", "muon"], [1, 2], 2.0, "300m")),
                 ("130m", "300m"))  # fmt: skip
    assert [[cell is None for cell in cells] for _, cells in found.rows] == [[False, True], [True, False]]


def test_corpora_are_named_only_where_there_are_several():
    two = answered(ranking(["soap", "muon"], [1, 2]), ranking(["soap", "muon"], [1, 2], corpus="other"))
    assert [name for name, _ in grid(two, ("130m",)).rows] == ["130M", "other 130M"]


def test_without_noise_the_lowest_is_named_as_that():
    place = answered(ranking(["soap", "muon"], None)).places[0]
    assert place.leaders == ()
    assert place.names == ("soap",)


def test_the_answer_is_plain_json(published):
    found = answer(published.document)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["headline"] == found.headline
    assert len(plain["places"]) == 18
    assert set(plain["places"][0]) == set(RegimeAnswer.__dataclass_fields__)


def test_nothing_is_said_of_speedups_and_asterisks_where_none_is_shown():
    bare = grid(answered(ranking(["soap", "adamw"], [1, 2])), ("130m",))
    assert (bare.gains, bare.doubted) == (False, False)
    sure = grid(answered(ranking(["soap", "adamw"], [1, 2]), speedups=[speedup("soap", 1.2, 1.1, 1.3)]), ("130m",))
    assert (sure.gains, sure.doubted) == (True, False)
    far = [speedup("soap", 1.4, 1.3, 1.7, ["extrapolated"])]
    doubted = grid(answered(ranking(["soap", "adamw"], [1, 2]), speedups=far), ("130m",))
    assert (doubted.gains, doubted.doubted) == (True, True)
