"""Trackers' exports, headers and units: what nobody chose is told from what was tuned, and what it says is doubted."""

import json
from pathlib import Path

import pytest
from analysis_samples import load_table as load
from analysis_samples import losses

from tuneopt.spec import InputError

HEAD = "optimizer,scale,ratio,loss\n"
TWO = HEAD + "adamw,130m,1,3.53\nmuon,130m,1,3.49\n"

# ---- What a tracker writes without anybody's choice.

EXPORT = "config.optimizer,config.output_dir,config.lr,scale,config.seed,ratio,loss,State\n"


@pytest.mark.parametrize("folder", ["out/{optimizer}/{seed}", "out/{seed}"])
def test_a_text_that_names_each_run_hides_no_replicates(tmp_path: Path, folder: str) -> None:
    rows = [f"{name},{folder.format(optimizer=name, seed=seed)},0.01,130m,{seed},1,3.5{seed},finished\n"
            for name in ("adamw", "muon") for seed in range(3)]  # fmt: skip
    table = load(tmp_path, "a.csv", EXPORT + "".join(rows))
    assert len({run.setting for run in table.runs}) == 2
    assert any("(output_dir)" in note for note in table.notes)
    kept = load(tmp_path, "a.csv", EXPORT + "".join(rows), {"hp_output_dir": "config.output_dir"})
    assert len({run.setting for run in kept.runs}) == 6 and not any("output_dir" in note for note in kept.notes)


@pytest.mark.parametrize("values", [["relu", "relu", "gelu"], ["relu", "gelu", None], [1, 2, 3], ["1", "2", "3"]])
def test_settings_that_are_shared_or_numbers_are_hyperparameters(tmp_path: Path, values: list[object]) -> None:
    rows = [{"optimizer": "adamw", "scale": "130m", "ratio": 1, "loss": 3.5, "config": {"x": value, "lr": place + 1}}
            for place, value in enumerate(values)]  # fmt: skip
    table = load(tmp_path, "a.json", json.dumps(rows))
    assert not table.notes and sum("x" in dict(run.config) for run in table.runs) == len([*filter(None, values)])
    rows = [row | {"config": {"lr_schedule": word}} for row, word in zip(rows, ("a", "b", "c"), strict=True)]
    assert {dict(run.config)["lr_schedule"] for run in load(tmp_path, "a.json", json.dumps(rows)).runs} == set("abc")


def test_a_label_inside_of_a_configuration_is_left_aside_too(tmp_path: Path) -> None:
    rows = [{"optimizer": "adamw", "scale": "130m", "ratio": 1, "loss": 3.5, "seed": seed,
             "config": {"lr": 0.01, "host": f"node-{seed}"}} for seed in range(3)]  # fmt: skip
    twins = [*rows, *(row | {"optimizer": "muon"} for row in rows)]  # each host ran both
    for each in (rows, twins):
        table = load(tmp_path, "a.json", json.dumps(each))
        assert {run.config for run in table.runs} == {(("learning_rate", 0.01),)} and "(host)" in table.notes[0]


@pytest.mark.parametrize("seed", [[1], {"a": 1}, True])
def test_a_seed_that_is_no_number_has_its_sentence(tmp_path: Path, seed: object) -> None:
    rows = [{"optimizer": "adamw", "scale": "130m", "ratio": 1, "loss": 3.5, "seed": seed, "config": {"x": f"a{place}"}}
            for place in range(3)]  # fmt: skip
    with pytest.raises(InputError, match=r"seed must be a (finite )?number"):
        load(tmp_path, "a.json", json.dumps([*rows, rows[0] | {"config": {"x": "a0"}}]))


@pytest.mark.parametrize("loss", ["", "NaN", "Infinity"])
@pytest.mark.parametrize("state", ["finished", "TERMINATED", "COMPLETE"])
def test_a_run_that_finished_without_a_loss_diverged(tmp_path: Path, state: str, loss: str) -> None:
    table = load(tmp_path, "a.csv", HEAD.strip() + f",state\nadamw,130m,1,3.5,{state}\nmuon,130m,1,{loss},{state}\n")
    assert [run.status for run in table.runs] == ["completed", "diverged"]
    assert table.doubts == ("1 run that finished without a loss is counted as diverged",)
    with pytest.raises(InputError, match="row 2 of the results is completed and has no loss"):
        load(tmp_path, "a.csv", HEAD.strip() + ",state\nadamw,130m,1,3.5,completed\nmuon,130m,1,,completed\n")


def test_optunas_data_frame_is_read(tmp_path: Path) -> None:
    head = "number,value,datetime_start,params_lr,params_optimizer,user_attrs_tokens,user_attrs_scale,state\n"
    rows = "0,3.5,x,1e-3,adamw,2.6B,130m,COMPLETE\n1,3.4,y,2e-3,muon,2.6B,130m,COMPLETE\n2,,z,1,muon,2.6B,130m,FAIL\n"
    table = load(tmp_path, "a.csv", head + rows, {"loss": "value"})
    assert losses(table) == {"adamw": 3.5, "muon": 3.4} and table.notes[0].startswith("1 row of a run that did not")
    assert [run.config for run in table.runs] == [(("learning_rate", 0.001),), (("learning_rate", 0.002),)]


# ---- What is measured, by its name and its size.


@pytest.mark.parametrize(
    "name", ["metrics.accuracy", "summary/top1_acc", "evalAccuracy", "val_acc@5", "eval_rewards/margins", "F1", "score"]
)
def test_what_is_better_where_it_is_larger_is_no_loss(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="better where it is larger"):
        load(tmp_path, "a.csv", TWO.replace("loss", name), {"loss": name})


@pytest.mark.parametrize(
    "name", ["metrics.perplexity", "summary.val_bpb", "val_ppl", "Bits per byte", "evalBPB", "WER"]
)
def test_what_is_not_in_nats_is_doubted(tmp_path: Path, name: str) -> None:
    (doubt,) = load(tmp_path, "a.csv", TWO.replace("loss", name), {"loss": name}).doubts
    assert f"the column {name}, which by its name is not in nats per token" in doubt


@pytest.mark.parametrize("name", ["val/loss", "log_perplexity", "ce", "eval.accuracy_loss", "nll_nats", "cost"])
def test_other_names_of_a_loss_are_not_doubted(tmp_path: Path, name: str) -> None:
    assert not load(tmp_path, "a.csv", TWO.replace("loss", name), {"loss": name}).doubts


@pytest.mark.parametrize(
    ("head", "cells", "error"),
    [
        ("wall_time", "1732000000.5", "seconds is 1732000000, a moment"),
        ("peak_memory", "23.5", "peak_bytes is 23.5, less than any model takes"),
        ("checkpoint_bytes", "0.5", "checkpoint_bytes is 0.5"),
        ("hp_lr", "-0.001", "learning_rate must not be negative"),
    ],
)
def test_a_number_in_another_unit_is_named(tmp_path: Path, head: str, cells: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        load(tmp_path, "a.csv", HEAD.strip() + f",{head}\nadamw,130m,1,3.5,{cells}\n")


def test_a_budget_in_billions_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a budget of 2\.6 tokens; write the count itself"):
        load(tmp_path, "a.csv", "optimizer,parameters,tokens,loss\nadamw,130M,2.6,3.5\n")


# ---- Headers, and what --columns says of them.


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('optimizer,scale,ratio,"final\nloss"\nadamw,130m,1,3.5\n', {}),
        ("optimizer, scale, ratio, val/loss\nadamw,130m,1,3.5\n", {"loss": "val/loss"}),
        ("\n\nsep=;\noptimizer;scale;ratio;loss\nadamw;130m;1;3.5\n", {}),
        (HEAD.strip() + ',"a, b"\nadamw,130m,1,3.5,x\n', {"drop": "a, b"}),
        (HEAD.strip() + ",a,b\nadamw,130m,1,3.5,x,y\n", {"drop": "a, b"}),
        (HEAD.strip() + ",status,corpus\nadamw,130m,1,3.5,NA,NA\n", {}),
    ],
)
def test_headers_as_people_and_tools_write_them(tmp_path: Path, text: str, columns: dict[str, str]) -> None:
    (run,) = load(tmp_path, "a.csv", text, columns).runs
    assert (run.optimizer, run.report_loss, run.status, run.regime.corpus) == ("adamw", 3.5, "completed", "")


def test_hyperparameters_get_their_usual_names(tmp_path: Path) -> None:
    (run,) = load(tmp_path, "a.csv", HEAD.strip() + ",X\nadamw,130m,1,3.5,1e-3\n", {"hp_lr": "X"}).runs
    assert run.config == (("learning_rate", 0.001),)
    with pytest.raises(InputError, match="names no hyperparameter"):
        load(tmp_path, "a.csv", HEAD.strip() + ",X\nadamw,130m,1,3.5,1e-3\n", {"hp_": "X"})
    with pytest.raises(InputError, match="unknown column 'hp_'"):
        load(tmp_path, "a.csv", HEAD.strip() + ",hp_\nadamw,130m,1,3.5,1e-3\n")


def test_lists_and_objects_of_a_configuration(tmp_path: Path) -> None:
    row = {"optimizer": "adamw", "scale": "130m", "steps": 5000, "loss": 3.5,
           "config": {"betas": [0.9, 0.95], "batch_size": 128, "layers": [1, 2]}}  # fmt: skip
    (run,) = load(tmp_path, "a.json", json.dumps([row])).runs
    assert run.tokens == 5000 * 128 * 4096
    assert dict(run.config) == {"beta1": 0.9, "beta2": 0.95, "train_batch_size": 128, "layers": "[1, 2]"}


def test_a_curve_that_ends_elsewhere_than_its_loss_is_doubted(tmp_path: Path) -> None:
    rows = [{"optimizer": name, "scale": "130m", "ratio": 1, "loss": 3.5, "curve": [[0.5, 4.0], [1, end]]}
            for name, end in (("adamw", 3.52), ("muon", 4.1))]  # fmt: skip
    (doubt,) = load(tmp_path, "a.json", json.dumps(rows)).doubts
    assert "the curve of 1 run ends elsewhere than the final loss (row 2: 4.1, and 3.5)" in doubt


def test_names_of_runs_are_no_optimizers(tmp_path: Path) -> None:
    head, rows = "Name,State,Runtime,algo,parameters,ratio,loss\n", "calm-sea,finished,9,adamw,124M,1,3.5\n"
    text = head + rows + "dry-leaf,finished,9,muon,124M,1,3.4\n"
    with pytest.raises(InputError, match=r"column Name of the export names runs .*'calm-sea', 'dry-leaf'.*optimizer="):
        load(tmp_path, "a.csv", text)
    assert losses(load(tmp_path, "a.csv", text, {"optimizer": "algo"})) == {"adamw": 3.5, "muon": 3.4}
    for known in ("optim", "optimizer.name"):
        assert losses(load(tmp_path, "a.csv", text.replace("algo", known))) == {"adamw": 3.5, "muon": 3.4}


@pytest.mark.parametrize("name", ["slurm_job_id", "data_seed", "master_port", "hostname", "local_rank"])
def test_settings_that_say_where_a_run_ran_hide_no_replicates(tmp_path: Path, name: str) -> None:
    rows = [{"optimizer": optimizer, "scale": "130m", "ratio": 1, "loss": 3.5 + seed / 100, "seed": seed,
             "config": {name: seed % 2, "lr": 0.1, "rank": 4}}
            for optimizer in ("adamw", "muon") for seed in range(3)]  # fmt: skip
    table = load(tmp_path, "a.json", json.dumps(rows))
    assert len({run.setting for run in table.runs}) == 2 and f"({name})" in table.notes[0]
    assert dict(table.runs[0].config)["rank"] == 4  # a hyperparameter of Dion


@pytest.mark.parametrize("group", ["optimizer", "optim"])
def test_settings_in_groups_are_those_of_the_run(tmp_path: Path, group: str) -> None:
    """Nested configurations, as objects and as the columns that trackers make of them."""
    nested = [{"run": name, "config": {group: {"name": name, "lr": rate, "betas": [0.9, 0.95]}, "seed": 0,
                                       "model": {"n_params": 134_000_000, "activation": "silu"}},
               "summary": {"val_loss": 3.4, "tokens": 2_680_000_000}}
              for name, rate in (("adamw", 0.001), ("muon", 0.02))]  # fmt: skip
    rows = "a,adamw,0.001,134M,0,3.4,2.68B\nb,muon,0.02,134M,0,3.4,2.68B\n"
    lines = [f"run,{prefix}{group}.name,{prefix}{group}.lr,{prefix}model.n_params,seed,val/loss,tokens\n{rows}"
             for prefix in ("", "config.")]  # fmt: skip
    tables = [load(tmp_path, "a.json", json.dumps(nested)), *(load(tmp_path, "a.csv", text) for text in lines)]
    for table in tables:
        assert [(run.optimizer, run.parameters, dict(run.config)["learning_rate"]) for run in table.runs] == [
            ("adamw", 134_000_000, 0.001), ("muon", 134_000_000, 0.02)]  # fmt: skip
    assert dict(tables[0].runs[0].config).keys() == {"learning_rate", "beta1", "beta2", "model.activation"}


def test_what_is_logged_in_a_group_is_no_setting(tmp_path: Path) -> None:
    """The learning rate that a run ended with is 0."""
    text = "Name,State,_runtime,optimizer,n_params,tokens,eval/loss,optimizer/lr\na,finished,9,adamw,134M,2.68B,3.4,0\n"
    (run,) = load(tmp_path, "a.csv", text).runs
    assert not run.config


def test_a_seed_of_a_race_is_a_repetition(tmp_path: Path) -> None:
    text = "optimizer,workload,seed,target_seconds\n" + "".join(f"nadamw,w,{seed},{100 + seed}\n" for seed in range(3))
    assert [trial.study for trial in load(tmp_path, "a.csv", text).trials] == ["0", "1", "2"]
