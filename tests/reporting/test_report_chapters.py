"""The chapters of a comparison: what they find, and what they say where nothing fills them."""

import json
import re

import pytest

from tuneopt import analysis
from tuneopt.analysis.costs import Budget
from tuneopt.reporting.blocks import figures_of
from tuneopt.reporting.chapters import cost, fairness, flips, ranking, sensitivity, sources, speedup
from tuneopt.reporting.compare import compare
from tuneopt.reporting.figures.speedups import measured
from tuneopt.reporting.page import build_page
from tuneopt.reporting.sources import gather


def keys(chapter):
    return [figure.key for figure in figures_of(chapter.blocks)]


def tables(blocks):
    for block in blocks:
        if block.kind == "table":
            yield block
        elif block.kind == "fold":
            yield from tables(block.blocks)


def table_of(chapter, title):
    return next(table for table in tables(chapter.blocks) if table.title.startswith(title))


def test_a_full_table_fills_every_chapter(table):
    material = gather(results=table)
    page = build_page(material, compare(material))
    assert [chapter.anchor for chapter in page.chapters] == [
        "speedup", "flips", "ranking", "fairness", "cost", "sensitivity", "details"
    ]  # fmt: skip
    assert page.missing == ()
    found = [figure.key for figure in page.all_figures]
    assert len(found) == len(set(found))
    assert {"guide", "speedup-by-ratio", "speedup-by-size", "flips-by-ratio", "flips-by-size", "speedups", "laws",
            "joint", "residuals", "distances", "losses", "training", "undertuned",
            "regrets", "pareto"} <= set(found)  # fmt: skip


def test_the_first_two_chapters_begin_with_the_figures_that_people_come_for(published):
    first, second = speedup.chapter(published), flips.chapter(published)
    assert [figure.key for figure in first.shown_first] == ["speedup-by-ratio"]
    assert [figure.key for figure in second.shown_first] == ["flips-by-ratio"]


def test_every_speedup_is_counted_and_listed(published):
    chapter = speedup.details(published)
    rivals = [each for each in published.analysis.speedups if each.optimizer != "adamw"]
    assert len(table_of(chapter, "Speedups").rows) == len(rivals) == 132
    above = sum(each.low is not None and each.low > 1 for each in rivals)
    assert f"Of 132 speedups over AdamW, {above} have a 90% interval above 1" in chapter.lead[0]
    known = max((each for each in rivals if measured(each)), key=lambda each: each.speedup)
    assert f"The largest that was measured is {known.speedup:.2f}" in chapter.lead[0]


def test_the_joint_fit_stands_beside_the_speedups_with_its_residuals(published):
    chapter = speedup.details(published)
    assert {"joint", "residuals"} <= set(keys(chapter))
    first = published.analysis.joint[0]
    (words,) = [part.sentences[0] for block in chapter.blocks for part in block.blocks if part.kind == "prose"]
    assert f"{first.rms:.4f} nats" in words
    assert ("too simple" in words) == ("misfit" in first.flags)


def test_without_a_baseline_the_chapter_says_what_a_speedup_needs(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('[{"optimizer": "a", "scale": "130m", "ratio": 1, "loss": 3.1}, '
                    '{"optimizer": "b", "scale": "130m", "ratio": 1, "loss": 3.2}]')  # fmt: skip
    chapter = speedup.chapter(compare(gather(results=path)))
    assert chapter.blocks == ()
    assert "needs AdamW at two ratios" in chapter.lead[0]


def test_a_table_of_one_seed_each_has_residuals_without_a_band_of_noise(tmp_path):
    losses = {1: 3.5, 2: 3.4, 4: 3.32}
    rows = [{"optimizer": name, "scale": "nano-65k", "ratio": ratio, "loss": loss - lower}
            for name, lower in (("adamw", 0.0), ("muon", 0.02)) for ratio, loss in losses.items()]  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    residuals = [figure for figure in figures_of(speedup.details(compare(gather(results=path))).blocks)
                 if figure.key == "residuals"]  # fmt: skip
    assert residuals and "noise" not in residuals[0].reading
    assert all(shape["type"] != "rect" or shape["xref"] == "paper" for shape in residuals[0].plot["layout"]["shapes"])


def test_tie_groups_are_those_of_the_document(published):
    table = table_of(ranking.chapter(None, published), "Tie groups")
    assert table.columns[1:] == tuple(published.label(regime) for regime in published.rankings)
    for column, row in enumerate(published.rankings.values(), start=1):
        shown = {line[0]: line[column] for line in table.rows}
        for name, group in zip(row["order"], row["tie_groups"], strict=True):
            assert shown[name] == str(group)


def test_flips_are_told_with_their_significance_and_their_place(published):
    chapter = flips.chapter(published)
    sure = [flip for flip in published.document["flips"] if flip["significant"]]
    table = table_of(chapter, "Flips that noise does not explain")
    assert [(row[1], row[2]) for row in table.rows] == [tuple(flip["pair"]) for flip in sure]
    assert all("\u2192" in row[3] for row in table.rows)
    others = table_of(chapter, "Flips within noise")
    assert len(table.rows) + len(others.rows) == len(published.document["flips"])
    assert any("curve" in sentence for sentence in chapter.lead)


@pytest.mark.parametrize(("ratios", "said"), [((1,), "is not known"), ((1, 4), "No pair of optimizers changes")])
def test_an_order_that_nobody_saw_twice_is_not_said_to_hold(tmp_path, ratios, said):
    rows = [
        {"optimizer": name, "scale": "130m", "ratio": ratio, "loss": 3 - 0.1 * ratio - better, "sigma": 0.001}
        for name, better in (("adamw", 0.0), ("muon", 0.02)) for ratio in ratios
    ]  # fmt: skip
    rows.append({"optimizer": "adamw", "scale": "130m", "ratio": 2, "loss": 2.8, "sigma": 0.001})
    path = tmp_path / "few.json"
    path.write_text(json.dumps(rows))
    assert said in flips.chapter(compare(gather(results=path))).lead[0]


def test_a_cut_in_mid_training_is_charged_with_what_it_throws_away(foreign):
    chapter = flips.chapter(foreign)
    rows = [row for row in table_of(chapter, "What a cut").rows if row[1] == "optimizers" and row[3] == "20%"]
    assert rows
    assert {row[7] for row in rows} == {"soap"}
    assert all(float(row[8]) > 0 for row in rows)
    during = [flip for flip in foreign.analysis.flips if flip.kind == "training"]
    assert "soap" in {flip.pair[1] for flip in during}
    assert any("of training" in row[3] for row in table_of(chapter, "Flips that noise").rows)


def test_an_under_tuned_baseline_manufactures_a_speedup(foreign):
    chapter = fairness.chapter(foreign)
    assert "undertuned" in keys(chapter)
    known = [each for each in foreign.analysis.undertuned if each.gpt3 and each.manufactured]
    assert known
    assert f"{max(each.manufactured for each in known):.2f}" in chapter.lead[0]
    assert "6e-4" in chapter.lead[0]


def test_blind_runs_are_shown_as_a_matrix_or_a_table(foreign):
    chapter = fairness.chapter(foreign)
    regimes = {cell.regime for cell in foreign.analysis.transfer if cell.status in ("trial", "diverged")}
    drawn = sum(key.startswith("transfer") for key in keys(chapter))
    listed = {row[0] for table in tables(chapter.blocks) if table.title.startswith("Blind") for row in table.rows}
    assert drawn + len(listed) == len(regimes) > 0


def test_unequal_budgets_are_said(foreign, published):
    assert any("Tuning budgets differ" in sentence for sentence in fairness.chapter(foreign).lead)
    assert any("is not known" in sentence for sentence in fairness.chapter(published).lead)


def test_coordinates_tell_what_changes_with_the_regime(published, foreign):
    words = " ".join(sensitivity.chapter(published).lead)
    assert "Tuned values differ between regimes for" in words and "That they have to is not shown" in words
    assert "needs stars" in words
    fitted = [law for law in published.analysis.hyper_laws if law.b is not None]
    by_size = sum(law.b_low > 0 or law.b_high < 0 for law in fitted if law.b_low is not None)
    count = by_size or "none"
    assert re.search(rf"Of {len(fitted)} laws fitted to tuned values, {count} shows? that model size matters", words)
    assert keys(sensitivity.chapter(published)) == ["exponents"]
    assert "regrets" in keys(sensitivity.chapter(foreign))
    assert not any("needs stars" in sentence for sentence in sensitivity.chapter(foreign).lead)


def test_cost_ranks_by_every_measure_and_asks_for_what_is_missing(foreign, published):
    chapter = cost.chapter(foreign)
    row = next(row for row in table_of(chapter, "Rankings by cost").rows if row[1] == "soap")
    assert row[2].endswith("(1)")
    assert row[3].endswith("(3)")
    slower = next(each for each in foreign.analysis.costs if each.optimizer == "soap")
    assert slower.speedup_seconds == pytest.approx(slower.speedup / 1.6, rel=1e-6)
    assert "remain above 1 in seconds" in chapter.lead[0]
    assert cost.chapter(published).blocks == ()


def test_provenance_names_sources_trials_and_the_command_behind_each_figure(table):
    material = gather(results=table)
    found = compare(material)
    before = build_page(material, found).chapters
    chapter = sources.chapter(material, found, before, 0)
    figures = table_of(chapter, "How each figure")
    assert len(figures.rows) == sum(len(keys(part)) for part in before)
    assert all(row[2].startswith(f"tuneopt report --results {table.name}") for row in figures.rows)
    assert all(callable(getattr(analysis, row[4].removeprefix("tuneopt.analysis."))) for row in figures.rows)
    trials = table_of(chapter, "Trials and configuration")
    assert {name for row in trials.rows for name in row[3].split(", ")} == {
        trial for result in found.analysis.winners for trial in result.trials
    }


def test_the_speedups_stand_once_before_the_flips_and_by_size_in_a_fold(published):
    """Figures on the page as it opens: the flips would start on the third screen behind a second one of speedups."""
    blocks = speedup.chapter(published).blocks
    assert [block.key for block in blocks if block.kind == "figure"] == ["speedup-by-ratio"]
    (fold,) = [block for block in blocks if block.kind == "fold"]
    assert fold.title == fold.blocks[0].title and fold.blocks[0].key == "speedup-by-size"


def test_budgets_are_compared_where_optimizers_meet():
    """A baseline that is trained longer for its law has few configurations there, which is no unequal tuning."""

    def spent(optimizer, ratio, configurations):
        return Budget(optimizer, "nano-65k", ratio, configurations, 0, 0, 1, None, None, "text", configurations)

    own = [spent("adamw", 0.5, 20), spent("adamw", 1.0, 3), spent("soap", 0.5, 20)]
    assert fairness.configurations_sentence(own) == "Every optimizer was given 20 configurations in a regime."
