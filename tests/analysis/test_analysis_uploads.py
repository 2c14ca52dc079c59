"""Tables as people upload them: what cannot be meant as it stands is doubted or refused, and nobody else is blamed."""

import math
from pathlib import Path
from typing import Any

import pytest
from analysis_samples import load_table

from tuneopt.analysis.document import document
from tuneopt.analysis.inputs import from_rows
from tuneopt.analysis.rows import parse
from tuneopt.analysis.study import analyse
from tuneopt.spec import InputError

SPEEDS = {"adamw": 1.0, "muon": 1.3}


def law(tokens_ratio: float) -> float:
    return 3.0 + 0.5 * tokens_ratio**-0.4


def table(seeds: int = 3, ratios: tuple[float, ...] = (1, 2, 4), **more: Any) -> list[dict[str, Any]]:
    """Two optimizers, with seeds a thousandth of a nat apart."""
    return [{"optimizer": name, "scale": "130m", "ratio": ratio, "seed": seed, "loss": law(ratio * speed) + seed / 1000}
            | more for name, speed in SPEEDS.items() for ratio in ratios for seed in range(seeds)]  # fmt: skip


def warned(rows: list[dict[str, Any]], words: str) -> list[str]:
    return [one for one in analyse(from_rows(rows), draws=50).warnings if words in one]


# ---- A broken seed.


@pytest.mark.parametrize("loss", [0.32, 3.6, 9.9])
def test_a_seed_far_from_the_others_is_named_and_nobody_else_is(loss: float) -> None:
    analysis = analyse(from_rows([*table()[:-1], table()[-1] | {"loss": loss}]), draws=50)
    (told,) = [one for one in analysis.warnings if "broken" in one]
    assert told.startswith("the seeds of muon at 130m/4x end ") and "one of them is a broken run" in told
    assert [one["broken"] for one in document(analysis)["rankings"]] == [[], [], ["muon"]]


def test_seeds_that_scatter_widely_everywhere_are_not_broken() -> None:
    rows = [row | {"loss": row["loss"] + 0.3 * row["seed"]} for row in table()]
    assert not warned(rows, "nats apart") and not warned(table(), "nats apart")


# ---- Another unit.


def test_perplexities_under_the_name_of_a_loss_are_doubted_and_break_nothing() -> None:
    rows = [row | {"loss": math.exp(row["loss"])} for row in table()]
    (doubt,) = warned(rows, "perplexities")
    assert doubt.startswith("every loss is 26.01 or more, which no loss in nats per token is")
    assert not warned(rows, "broken") and not warned([*table(), table()[0] | {"seed": 9, "loss": 14}], "perplexities")


@pytest.mark.parametrize("name", ["hp_vocab_size", "hp_tokenizer", "hp_val_set"])
def test_losses_over_other_tokens_or_texts_are_doubted(name: str) -> None:
    rows = [row | {name: "a" if row["optimizer"] == "muon" else "b"} for row in table()]
    (doubt,) = warned(rows, "measured on")
    assert doubt.startswith(f"losses with another {name[3:]} (b, a) are compared")
    assert not warned([row | {name: "a"} for row in rows], "measured on")
    apart = [row | {"corpus": row[name]} for row in rows]
    assert not warned(apart, "measured on")


def test_seconds_beside_hours_are_doubted() -> None:
    def told(unit: float) -> list[str]:
        return warned([row | {"seconds": row["ratio"] * (3600 if row["optimizer"] == "adamw" else 3600 / unit)}
                       for row in table()], "seconds")  # fmt: skip

    (doubt,) = told(3600)
    assert doubt.startswith("by their seconds muon trains 3,600 times as fast as adamw at 130m/1x")
    assert not told(5)


# ---- Rounded, or no final losses.


@pytest.mark.parametrize(
    ("digits", "said"),
    [(1, "1 digit behind the point: rounding alone moves each by up to 0.05"),
     (2, "2 digits behind the point: rounding alone moves each by up to 0.005"), (4, "")],
)  # fmt: skip
def test_losses_that_were_rounded_more_than_seeds_move_them_are_doubted(digits: int, said: str) -> None:
    rows = [row | {"loss": round(row["loss"], digits)} for row in table()]
    told = [one for one in analyse(from_rows(rows), draws=50, sigma=0.001).warnings if "rounding alone" in one]
    assert [said in one for one in told] == [True] * bool(said)
    assert not [one for one in analyse(from_rows(rows), draws=50, sigma=0.06).warnings if "rounding alone" in one]


def test_the_moments_of_a_log_are_no_runs_that_ended_there() -> None:
    def told(steps: list[int]) -> list[str]:
        rows = [row | {"steps": one, "batch_tokens": 524288, "loss": law(one / 5000)}
                for row in table(1, (1,)) for one in steps]  # fmt: skip
        return warned(
            [{key: cell for key, cell in row.items() if key != "ratio"} for row in rows], "the log of one run"
        )

    (doubt,) = told([*range(500, 5001, 500)])
    assert "equal distances of steps (adamw up to 10, muon up to 10)" in doubt
    assert not told([1000, 2000, 4000, 8000, 16000, 32000]) and not told([1000, 2000, 3000, 4000])


# ---- Unequal tuning.


def test_a_baseline_with_far_fewer_configurations_than_its_rival_is_named() -> None:
    def told(own: int, rivals: int) -> list[str]:
        rows = [row | {"hp_lr": 0.001 * (place + 1)} for row in table(1)
                for place in range(own if row["optimizer"] == "adamw" else rivals)]  # fmt: skip
        return warned(rows, "far more")

    (doubt,) = told(1, 8)
    assert doubt.startswith("adamw was run with 1 configuration at 130m/1x, 130m/2x and 130m/4x, and others with far")
    assert "(muon up to 8)" in doubt
    assert "at most 2 configurations" in told(2, 8)[0] and not told(2, 6) and not told(8, 1)


# ---- What is refused.


@pytest.mark.parametrize("name", ["Total", "Grand total", "mean", "Std"])
def test_a_row_that_sums_up_others_is_no_optimizer(name: str) -> None:
    with pytest.raises(InputError, match=rf"^row 19 of the results is called '{name}', as what sums up other rows is"):
        parse([*table(), table()[0] | {"optimizer": name}])


def test_a_budget_in_millions_of_tokens_is_named() -> None:
    rows = [{key: cell for key, cell in row.items() if key != "ratio"} | {"tokens": row["ratio"] * 2600}
            for row in table()]  # fmt: skip
    with pytest.raises(InputError, match="row 1 of the results has a budget of 2600 tokens; write the count itself"):
        parse(rows)


def test_an_endless_time_to_a_target_has_its_cure() -> None:
    rows = [{"optimizer": name, "workload": "wmt", "target_seconds": time} for name, time in (("a", "9"), ("b", "inf"))]
    with pytest.raises(
        InputError, match=r"row 2 .* target_seconds must be a finite number, not 'inf'; leave it empty wh"
    ):
        parse(rows)


@pytest.mark.parametrize("title", ["My runs,,,", ",,Results,"])
def test_a_line_above_the_names_of_the_columns_is_called_that(tmp_path: Path, title: str) -> None:
    with pytest.raises(InputError, match="the first line of the results does not name every column"):
        load_table(tmp_path, "a.csv", f"{title}\noptimizer,scale,ratio,loss\nadamw,130m,1,3.5\n")


def test_a_loss_that_any_speedup_would_explain_has_none() -> None:
    """One seed far below puts the mean under the law's floor, and its noise says that it may lie anywhere."""
    rows = table(ratios=(1, 2, 4, 8))
    for row in rows:
        if (row["optimizer"], row["ratio"], row["seed"]) == ("muon", 4, 1):
            row["loss"] = 0.32
    analysis = analyse(from_rows(rows), draws=200)
    (odd,) = [one for one in analysis.speedups if "no law" in one.flags]
    assert (odd.optimizer, odd.regime.ratio) == ("muon", 4)
    assert (odd.speedup, odd.low, odd.high) == (0, None, None)
    assert not any(0 < one.speedup < 0.5 for one in analysis.speedups)


# ---- Cells as people write them.


def test_a_ratio_may_be_written_as_what_it_is() -> None:
    rows = [
        row | {"ratio": f"{row['ratio']}{mark}"} for row, mark in zip(table(), ["x", "X", "\u00d7"] * 6, strict=True)
    ]
    assert {run.regime.ratio for run in from_rows(rows).runs} == {1, 2, 4}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"loss": "3.45 \u00b1 0.01"}, "write the mean alone, and its spread in a column std"),
        ({"n": 3}, "is of 3 parameters; .* or drop a column that counts something else, such as --columns drop=n"),
    ],
)
def test_a_cell_that_cannot_be_read_says_what_to_write(cell: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_rows([row | cell for row in table()])
