"""The sentences of the first screen, on documents made by hand: every branch says what the numbers say."""

from dataclasses import dataclass, replace

import pytest

from tuneopt.analysis.runs import RegimeKey
from tuneopt.report.compare import Comparison
from tuneopt.report.page import all_warnings
from tuneopt.report.standing import SENTENCES, standing
from tuneopt.report.verdict import certificate_sentence, certificate_state
from tuneopt.search.descent import Certificate


@dataclass(frozen=True)
class Names:
    """As much of a study as the sentences look at."""

    optimizers: tuple[str, ...]


def ranking(order, losses, groups, ratio=1.0, sigma=0.001, corpus="mine"):
    return {
        "corpus": corpus, "scale": "130m", "ratio": ratio, "order": order, "losses": losses, "tie_groups": groups,
        "sigma": sigma, "sigma_source": "measured",
    }  # fmt: skip


def speedup(optimizer, value, low, high, flags=(), ratio=1.0):
    return {
        "corpus": "mine", "scale": "130m", "ratio": ratio, "optimizer": optimizer, "speedup": value, "low": low,
        "high": high, "flags": list(flags), "tie_group": 1,
    }  # fmt: skip


def comparison(*rankings, speedups=(), warnings=()):
    return Comparison(
        {"rankings": list(rankings), "speedups": list(speedups), "warnings": list(warnings), "baseline": "adamw"},
        {},
        (),
    )


NAMES = Names(("adamw", "muon", "soap"))


def test_one_winner_in_one_regime_is_the_headline():
    words = standing(NAMES, comparison(ranking(["soap", "adamw"], [3.0, 3.1], [1, 2])))
    assert words.headline == "soap has the lowest loss at 130m/1x"
    assert words.sentences == (
        "130m/1x: soap leads at 3.0000 nats per token; behind: adamw +0.1000 nats (noise between seeds 0.0010).",
    )


def test_a_tie_is_never_a_lone_winner():
    words = standing(NAMES, comparison(ranking(["soap", "muon", "adamw"], [3.0, 3.001, 3.1], [1, 1, 2])))
    assert words.headline == "soap and muon tie for the lowest loss at 130m/1x"
    assert "soap and muon cannot be told apart" in words.sentences[0]


def test_without_noise_no_one_wins():
    words = standing(NAMES, comparison(ranking(["soap", "muon"], [3.0, 3.5], None, sigma=None)))
    assert words.headline == "soap has the lowest loss measured at 130m/1x, the noise being unknown"
    assert "no noise is known" in words.sentences[0]


def test_leaders_that_differ_between_regimes_leave_the_headline_neutral():
    words = standing(
        NAMES,
        comparison(ranking(["soap", "muon"], [3.0, 3.5], [1, 2]), ranking(["muon", "soap"], [2.9, 3.0], [1, 2], 2.0)),
    )
    assert words.headline == "3 optimizers in 2 regimes"
    assert len(words.sentences) == 2


def test_the_same_leader_everywhere_is_the_headline():
    pairs = [ranking(["soap", "muon"], [3.0, 3.5], [1, 2], float(ratio)) for ratio in range(1, 4)]
    assert standing(NAMES, comparison(*pairs)).headline == "soap has the lowest loss in all 3 regimes"
    assert standing(NAMES, comparison(*pairs[:2])).headline == "soap has the lowest loss in both regimes"


def test_many_regimes_are_left_to_the_table():
    pairs = [ranking(["soap", "muon"], [3.0, 3.5], [1, 2], float(ratio)) for ratio in range(1, SENTENCES + 3)]
    words = standing(NAMES, comparison(*pairs)).sentences
    assert len(words) == SENTENCES + 1
    assert words[-1] == "2 more regimes in the table below."


def test_corpora_are_named_only_where_there_are_several():
    one = comparison(ranking(["soap"], [3.0], [1]))
    two = comparison(ranking(["soap"], [3.0], [1]), ranking(["soap"], [3.0], [1], corpus="other"))
    key = RegimeKey("mine", "130m", 1.0)
    assert one.label(key) == "130m/1x"
    assert two.label(key) == "mine 130m/1x"


def test_speedups_are_told_at_the_largest_ratio_and_only_from_a_law():
    rows = [
        speedup("adamw", 1.0, 1.0, 1.0, ratio=8.0),
        speedup("soap", 1.3, 1.2, 1.4, ratio=8.0),
        speedup("muon", 1.4, 1.3, 1.5, ratio=8.0),
        speedup("soap", 1.9, 1.8, 2.0, ratio=1.0),
    ]
    words = standing(NAMES, comparison(ranking(["soap", "muon"], [3.0, 3.5], [1, 2]), speedups=rows)).sentences
    assert words[-1] == "Speedup over adamw at 130m, 8x: muon 1.40 [1.30, 1.50], soap 1.30 [1.20, 1.40]."
    interpolated = [speedup("soap", 1.3, 1.2, 1.4, ["interpolated"])]
    alone = standing(NAMES, comparison(ranking(["soap", "muon"], [3.0, 3.5], [1, 2]), speedups=interpolated))
    assert not any("Speedup" in sentence for sentence in alone.sentences)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (Certificate(True, 0.003, (), 0), "no coordinate stands on an edge of its grid"),
        (Certificate(True, 0.003, ("beta1",), 0), "beta1 stands on an edge that may not be extended"),
        (Certificate(True, 0.003, ("beta1", "warmup"), 0), "beta1 and warmup stand on edges"),
        (Certificate(False, 0.003, ("beta1",), 0), "There is no certificate: beta1 still stands on an edge"),
        (Certificate(False, 0.003, (), 2), "2 trials of the star could not be run"),
    ],
)
def test_the_certificate_in_words(view, certificate, words):
    changed = replace(view, state=replace(view.state, descent=replace(view.state.descent, certificate=certificate)))
    assert words in certificate_sentence(changed)
    assert certificate_state(changed) == ("complete" if certificate.complete else "incomplete")


def test_a_certificate_of_an_unconfirmed_winner_does_not_count_yet(view):
    changed = replace(view, state=replace(view.state, finished=False, pending=view.state.needed[:1]))
    assert certificate_state(changed) == "running"
    assert "1 trial of the current wave is still to run" in certificate_sentence(changed)


def test_warnings_name_few_sweeps_count_many_and_come_before_the_analysis(study):
    from tuneopt.report.verdict import sweep_verdict

    plain = {view.id: replace(sweep_verdict(view), warnings=()) for view in study.views}
    analysed = comparison(warnings=["from the analysis"])
    first, second = study.views[:2]

    def told(views):
        verdicts = plain | {view.id: replace(plain[view.id], warnings=("beware",)) for view in views}
        return all_warnings(study, analysed, verdicts)

    assert told([]) == ("from the analysis",)
    assert told([first, second]) == ("adamw at nano-65k/1x and soap at nano-65k/1x: beware", "from the analysis")
    assert told(study.views[:5])[0] == "5 sweeps: beware"
    assert told(study.views)[0] == "every sweep: beware"
