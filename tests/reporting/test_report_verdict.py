import pytest
from report_samples import make_sweep, noise, run_sweep, smooth_loss

from tuneopt.ledger import Ledger
from tuneopt.reporting.study import read_study
from tuneopt.reporting.verdict import Doubt, certificate_sentence, certificate_state, key_numbers, mean, sweep_verdict


def the_view(path, sweep=None, loss=smooth_loss, **rest):
    ledger = Ledger(path)
    run_sweep(ledger, sweep or make_sweep("adamw"), loss, **rest)
    return read_study(ledger).views[0]


def told(verdict):
    return {warning.doubt: warning.text for warning in verdict.warnings}


def test_the_verdict_gives_the_loss_with_its_error_and_the_gain(view):
    verdict = sweep_verdict(view)
    assert verdict.state == "certified"
    assert verdict.report.value == pytest.approx(view.state.best.report_loss)
    assert verdict.report.error == pytest.approx(view.state.best.report_error)
    assert verdict.gain.value > 0
    first, second = verdict.sentences
    assert verdict.report.text in first
    assert "more than noise explains" in first
    assert "no more than noise explains" not in first
    assert "The certificate is complete" in second
    assert f"{view.state.certificate.resolution:.4f} nats, with 95% confidence" in second
    assert verdict.warnings == ()


def test_the_tiles_show_losses_with_errors_certificate_and_cost(view):
    shown = {tile.name: tile for tile in key_numbers(view, sweep_verdict(view))}
    assert shown["Certificate"].value == "certified"
    assert shown["Resolution"].value == f"{view.state.certificate.resolution:.4f}"
    assert "asked 0.05" in shown["Resolution"].note
    assert shown["Report loss"].value == f"{view.state.best.report_loss:.4f}"
    assert shown["Report loss"].error == f"\u00b1\u00a0{view.state.best.report_error:.4f}"
    assert shown["Tolerance"].value == f"{view.state.tolerance:.4f}"
    assert f"noise {view.state.sigma:.4f}" in shown["Tolerance"].note
    assert shown["Trials"].value == str(len(view.records))


def test_a_start_that_is_best_has_no_gain(tmp_path):
    sweep = make_sweep("adamw")
    start = dict(sweep.space.start)
    view = the_view(tmp_path, sweep, lambda spec: 3.0 + 0.1 * sum(spec.config[n] != start[n] for n in start))
    verdict = sweep_verdict(view)
    assert verdict.gain is None
    assert "no change of the starting configuration won" in verdict.sentences[0]
    assert {tile.name: tile.value for tile in key_numbers(view, verdict)}["Gain over the start"] == "none"


def test_a_gain_of_the_chosen_seed_alone_is_called_noise(tmp_path):
    sweep = make_sweep("adamw")
    rate = sweep.space.value(sweep.space.start, "learning_rate")

    def loss(spec):
        lucky = spec.seed == sweep.seed and spec.config["learning_rate"] == 2 * rate
        return 3.0 + 0.03 * spec.seed - 0.2 * lucky + 2.0 * (spec.config["learning_rate"] > 2 * rate)

    view = the_view(tmp_path, sweep, loss)
    assert view.moved
    assert "no more than noise explains" in sweep_verdict(view).sentences[0]


def test_noise_that_hides_the_star_makes_the_certificate_blind(tmp_path):
    """Nothing but noise: a green word would take what was not seen for what is not there."""
    view = the_view(tmp_path, loss=lambda spec: 6.0 + noise(spec, 0.5))
    verdict = sweep_verdict(view)
    certificate = view.state.certificate
    assert (verdict.state, certificate.complete) == ("blind", True)
    assert "The certificate is blind" in verdict.sentences[1] == told(verdict)[Doubt.CERTIFICATE]
    assert f"{certificate.resolution:.4f}" in verdict.sentences[1]
    assert {tile.name: tile.value for tile in key_numbers(view, verdict)}["Certificate"] == "blind"


def test_an_unfinished_sweep_says_so_first(tmp_path):
    view = the_view(tmp_path, waves=1)
    verdict = sweep_verdict(view)
    assert certificate_state(view) == verdict.state == "running"
    assert f"{len(view.state.pending)} trial" in certificate_sentence(view)
    assert "not finished" in told(verdict)[Doubt.CERTIFICATE]


def test_a_sweep_in_which_everything_diverged_reports_no_loss(tmp_path):
    view = the_view(tmp_path, loss=lambda spec: None)
    verdict = sweep_verdict(view)
    assert verdict.report is None
    assert "no loss to report" in verdict.sentences[0]
    assert "diverged" in told(verdict)[Doubt.DIVERGED]
    assert {tile.name: tile.value for tile in key_numbers(view, verdict)}["Report loss"] == "\u2013"


def test_one_seed_says_nothing_about_noise(tmp_path):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("adamw", replicates=1), waves=2)  # further seeds come when the search has ended
    verdict = sweep_verdict(read_study(ledger).views[0])
    assert "one seed only" in verdict.sentences[0]
    assert "single runs say nothing about the noise" in verdict.sentences[0]
    assert "the noise is a guess" in told(verdict)[Doubt.NOISE]


def test_doubts_about_where_and_on_what_it_ran_are_told(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = make_sweep("adamw", ratio=8)
    run_sweep(ledger, sweep, waves=1, environment={"torch": "2.12.0", "commit": "abc+"})
    run_sweep(ledger, sweep, environment={"torch": "2.13.0", "commit": "abc+"})
    warnings = told(sweep_verdict(read_study(ledger).views[0]))
    assert "2 versions of torch (2.12.0 and 2.13.0)" in warnings[Doubt.TORCH]
    assert "uncommitted changes" in warnings[Doubt.UNCOMMITTED]
    assert "passes 2.6 times over the training text" in warnings[Doubt.EPOCHS]


def test_unproven_trials_are_told_and_never_win(tmp_path):
    failed = {"passed": False, "checks": []}
    view = the_view(tmp_path, proof=failed)
    verdict = sweep_verdict(view)
    assert verdict.report is None
    assert "lacked a passed proof" in told(verdict)[Doubt.PROOF]


def test_a_mean_needs_two_values_for_an_error():
    assert mean([]) is None
    assert mean([2.0]).error is None
    pair = mean([1.0, 3.0])
    assert (pair.value, pair.error, pair.seeds) == (2.0, pytest.approx(1.0), 2)
