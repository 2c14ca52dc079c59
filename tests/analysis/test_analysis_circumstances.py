"""What else differs between compared optimizers, in a sentence."""

from __future__ import annotations

from dataclasses import replace

from analysis_samples import result

from tuneopt.analysis.circumstances import WORDS, circumstances, circumstances_sentence
from tuneopt.optim.factory import LOOP


def ran(optimizer: str, ratio: float = 1, **config: object):
    return replace(result(optimizer, ratio, 3.5), config=tuple(sorted(config.items())))


def test_every_hyperparameter_of_the_loop_has_a_word() -> None:
    assert set(WORDS) == set(LOOP)


def test_schedules_that_differ_are_named_with_whose_they_are() -> None:
    winners = [
        ran("adamw", lr_schedule="cosine", warmup=0.1, min_lr_ratio=0),
        ran("muon", lr_schedule="linear", warmup=0, min_lr_ratio=0),
        ran("soap", lr_schedule="cosine", warmup=0.1, min_lr_ratio=0),
    ]
    assert circumstances_sentence(circumstances(winners)) == (
        "The update rules are not all that differs: learning-rate schedule (cosine for AdamW and SOAP, linear for "
        "Muon); warmup (0.1 for AdamW and SOAP, 0 for Muon). Final learning rate is the same for all."
    )


def test_where_all_that_is_known_differs_nothing_is_said_to_be_the_same() -> None:
    found = circumstances([ran("adamw", train_batch_size=256), ran("muon", train_batch_size=512)])
    assert circumstances_sentence(found) == (
        "The update rules are not all that differs: batch size (256 for AdamW, 512 for Muon)."
    )


def test_what_is_equal_is_said_and_what_is_unknown_is_not() -> None:
    alike = [ran("adamw", lr_schedule="cosine"), ran("muon", lr_schedule="cosine")]
    assert circumstances_sentence(circumstances(alike)) == (
        "Besides the update rules nothing is known to differ: learning-rate schedule is the same for all."
    )
    assert circumstances_sentence(circumstances([ran("adamw"), ran("muon")])) == ""
    assert circumstances([ran("adamw", lr_schedule="cosine")]) == (), "nothing is compared"


def test_values_that_differ_between_regimes_alone_are_no_difference() -> None:
    batches = [ran(name, ratio, train_batch_size=8 * ratio) for name in ("adamw", "muon") for ratio in (1, 2)]
    (one,) = circumstances(batches)
    assert not one.differs and dict(one.values)["adamw"] == ("8", "16")


def test_what_no_search_space_knows_is_not_said_to_be_equal() -> None:
    long = [ran("adamw", train_batch_size=512, seq_len=1024), ran("muon", train_batch_size=512, seq_len=4096)]
    assert circumstances_sentence(circumstances(long)) == (
        "Batch size is the same for all. Also different, and not known here to belong to the update rules: seq_len "
        "(1024 for AdamW, 4096 for Muon)."
    )
    tuned = [ran("adamw", learning_rate=0.001, seq_len=1024), ran("muon", learning_rate=0.02, seq_len=1024)]
    assert circumstances_sentence(circumstances(tuned)) == ""


def test_what_some_runs_do_not_say_is_not_the_same_for_all() -> None:
    batches = [ran("adamw", train_batch_size=512), ran("muon", train_batch_size=512), ran("soap")]
    assert circumstances_sentence(circumstances(batches)) == (
        "Besides the update rules nothing is known to differ: batch size is the same wherever the runs say it."
    )


def test_a_schedule_without_a_decay_phase_leaves_no_gap() -> None:
    schedules = [ran("adamw", lr_schedule="cosine"), ran("muon", lr_schedule="linear", decay=0.8),
                 ran("scion", lr_schedule="linear", decay=0.8)]  # fmt: skip
    (_, decay) = circumstances(schedules)
    assert (decay.name, decay.differs, decay.whole) == ("decay", False, True)
