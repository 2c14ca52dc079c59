"""The sentences about a sweep, and the warnings of a page: every branch says what the numbers say."""

from dataclasses import replace

import pytest

from tuneopt.reporting.page import all_warnings
from tuneopt.reporting.verdict import Doubt, SweepWarning, certificate_sentence, certificate_state, sweep_verdict
from tuneopt.search.descent import BLIND, CERTIFIED, Certificate

SEEN = Certificate(True, 0.003, (), 0, resolution=0.04, confidence=0.95, asked=0.05, seeds_needed=0, state=CERTIFIED)
COARSE = replace(SEEN, resolution=0.2, seeds_needed=30, state=BLIND)


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (SEEN, "no coordinate stands on an edge of its grid"),
        (SEEN, "at the asked resolution of 0.05 nats"),
        (SEEN, "none lowers the select loss by more than 0.0400 nats, with 95% confidence"),
        (replace(SEEN, edges=("beta1",)), "beta1 stands on an edge that may not be extended"),
        (replace(SEEN, edges=("beta1", "warmup")), "beta1 and warmup stand on edges that may not be extended"),
        (COARSE, "none lowers the select loss by more than 0.2000 nats, with 95% confidence"),
        (COARSE, "coarser than the asked 0.05 nats; about 30 further runs with other seeds would reach it"),
        (replace(COARSE, seeds_needed=None), "thousands of further runs"),
        (replace(COARSE, edges=("beta1",)), "beta1 stands on an edge that may not be extended"),
        (replace(SEEN, state=BLIND), "Most changes differ from it by less than that"),
        (Certificate(False, 0.003, ("beta1",), 0), "There is no certificate: beta1 still stands on an edge"),
        (Certificate(False, 0.003, (), 2), "2 trials of the star could not be run"),
    ],
)
def test_the_certificate_in_words(view, certificate, words):
    changed = replace(view, state=replace(view.state, descent=replace(view.state.descent, certificate=certificate)))
    assert words in certificate_sentence(changed)
    assert certificate_state(changed) == certificate.state
    assert ("is complete, at the asked" in certificate_sentence(changed)) == (certificate.state == CERTIFIED)


def test_a_certificate_of_an_unconfirmed_winner_does_not_count_yet(view):
    waiting = replace(view.state, finished=False, finishing=False, pending=view.state.needed[:1])
    changed = replace(view, state=waiting)
    assert certificate_state(changed) == "running"
    assert "1 trial of the current wave is still to run" in certificate_sentence(changed)


BEWARE = SweepWarning(Doubt.EDGE, "beware")


def test_warnings_name_few_sweeps_count_many_and_come_before_the_analysis(study, material, comparison):
    plain = {view.id: replace(sweep_verdict(view), warnings=()) for view in study.views}
    analysed = replace(comparison, document={**comparison.document, "warnings": ["from the analysis"]})
    first, second = study.views[:2]

    def told(views):
        verdicts = plain | {view.id: replace(plain[view.id], warnings=(BEWARE,)) for view in views}
        return all_warnings(material, analysed, verdicts)

    assert told([]) == ("from the analysis",)
    assert told([first, second]) == ("AdamW at nano-65k/1x and SOAP at nano-65k/1x: beware", "from the analysis")
    assert told(study.views[:5])[0] == "5 sweeps: beware"
    assert told(study.views)[0] == "every sweep: beware"


def with_certificate(view, certificate, commits=()):
    """A sweep whose certificate says that, and whose first trials ran on these source commits."""
    state = replace(view.state, descent=replace(view.state.descent, certificate=certificate))
    records = dict(view.records)
    for trial, commit in zip(records, commits, strict=False):
        records[trial] = replace(records[trial], environment={**records[trial].environment, "commit": commit})
    return replace(view, state=state, records=records)


def test_blind_certificates_are_one_warning_that_says_between_what_they_see(study, material, comparison):
    certificates = [COARSE, SEEN, replace(COARSE, resolution=0.31), replace(SEEN, state=BLIND), COARSE, SEEN]
    views = tuple(map(with_certificate, study.views, certificates))
    verdicts = {view.id: sweep_verdict(view) for view in views}
    assert all(certificate_state(view) != CERTIFIED or view.state.certificate == SEEN for view in views)

    told = all_warnings(replace(material, study=replace(study, views=views)), comparison, verdicts)

    (shared,) = [warning for warning in told if "certificates are blind" in warning]
    assert shared.startswith("AdamW at nano-65k/1x, AdamW at nano-65k/2x and Muon at nano-65k/4x: the certificates")
    assert "more than 0.2000 to 0.3100 nats, and were asked for 0.05" in shared
    # One that saw what it was asked for, and is blind because effects are smaller, says something else.
    assert sum("certificate is blind" in warning for warning in told) == 1


def test_one_blind_certificate_speaks_for_itself(study, material, comparison):
    views = (with_certificate(study.views[0], COARSE), *study.views[1:])
    verdicts = {view.id: sweep_verdict(view) for view in views}

    told = all_warnings(replace(material, study=replace(study, views=views)), comparison, verdicts)

    assert any(certificate_sentence(views[0]) in warning for warning in told)
    assert not any("certificates are blind" in warning for warning in told)


@pytest.mark.parametrize(
    ("commits", "words"),
    [
        ([("a1", "b2"), ("a1", "b2")], "and SOAP at nano-65k/1x: the trials ran on 2 source commits (a1 and b2)"),
        ([("a1", "b2"), ("b2", "c3")], "and SOAP at nano-65k/1x: the trials of a sweep ran on several source commits "
                                       "(a1, b2 and c3)"),
        ([("a1", "b2"), ("c3", "c3")], "AdamW at nano-65k/1x: the trials ran on 2 source commits (a1 and b2)"),
    ],
)  # fmt: skip
def test_commits_of_several_sweeps_are_one_warning(study, material, comparison, commits, words):
    views = tuple(
        with_certificate(view, SEEN, (own * len(view.records))[: len(view.records)])
        for view, own in zip(study.views, [*commits, ("c3",), ("c3",), ("c3",), ("c3",)], strict=True)
    )
    verdicts = {view.id: sweep_verdict(view) for view in views}

    told = all_warnings(replace(material, study=replace(study, views=views)), comparison, verdicts)

    (found,) = [warning for warning in told if "source commits" in warning]
    assert found.endswith(words)
