import math
import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from report_samples import CORPUS, make_record, make_sweep, run_sweep, smooth_loss

from tuneopt.api.studies import planned_study, study_queue
from tuneopt.ledger import Ledger
from tuneopt.reporting.blocks import Prose
from tuneopt.reporting.chapters.sources import chapter
from tuneopt.reporting.compare import compare
from tuneopt.reporting.section import budget
from tuneopt.reporting.sources import gather
from tuneopt.reporting.study import read_study
from tuneopt.search.evidence import Evidence
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import kept_evidence, outcome_of, recorded, replay, stored_evidence
from tuneopt.search.standing import Standing, Task, stand
from tuneopt.search.study.file import parse_study
from tuneopt.spec import CorpusId, InputError


def test_a_sweep_is_replayed_with_its_records(view):
    assert view.optimizer == "soap"
    assert view.label == "nano-65k/1x"
    assert view.state.finished
    assert view.moved
    assert list(view.records) == [spec.id for spec in view.state.needed]
    assert view.ahead == {}
    assert set(view.launched) == set(view.records)


def test_start_and_winner_come_over_all_seeds(view):
    assert [record.spec.seed for record in view.start] == list(view.sweep.seeds)
    assert [record.spec.seed for record in view.winner] == list(view.sweep.seeds)
    assert view.winner[0].spec.hyperparameters == view.state.descent.incumbent


def test_sweeps_come_smallest_regime_first_and_in_palette_order(study):
    assert [(view.optimizer, view.sweep.regime.ratio) for view in study.views] == [
        ("adamw", 1), ("soap", 1), ("adamw", 2), ("adamw", 4), ("muon", 4), ("soap", 4)
    ]  # fmt: skip
    assert study.optimizers == ("adamw", "muon", "soap")
    assert study.regimes == ("nano-65k/1x", "nano-65k/2x", "nano-65k/4x")
    assert study.corpora == ((CORPUS.name, CORPUS.fingerprint),)
    assert study.other_trials == 0


def test_sweeps_can_be_named_by_the_beginning_of_their_id(several, study):
    wanted = study.views[3].id
    assert [view.id for view in read_study(several, [wanted[:10]]).views] == [wanted]
    chosen = read_study(several, [wanted, wanted, study.views[0].id])
    assert {view.id for view in chosen.views} == {wanted, study.views[0].id}
    assert chosen.other_trials == len({t for v in study.views for t in v.records}) - len(
        {t for v in chosen.views for t in v.records}
    )


SHARED_OUT = """
import os, sys
from pathlib import Path
from tuneopt import parallel
from tuneopt.ledger import Ledger
from tuneopt.reporting import html, study, write_report
parallel.LEAST, study.LEAST_RECORDS, html.INLINE, forked = 1, 1, 1, []
parallel.processors = lambda: int(sys.argv[1])
fork = parallel._fork
parallel._fork = lambda *given: forked.append(given) or fork(*given)
write_report(Ledger(sys.argv[2]), Path(sys.argv[3]))
print(len(forked))
"""


def test_a_page_is_the_same_however_many_processes_make_it(several, tmp_path):
    """In a process of its own, as a command is: one that had torch or threads would not fork."""
    pages = []
    for count, forks in (("1", 0), ("3", 10)):  # of records, sweeps, findings, sections and pictures two each
        path = tmp_path / f"{count}.html"
        asked = [sys.executable, "-c", SHARED_OUT, count, str(several.uri), str(path)]
        told = subprocess.run(asked, capture_output=True, text=True, check=True)
        assert told.stdout.split() == [str(forks)]
        pages.append(path.read_text().replace(path.name, "page.html"))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("named", [["zzzz"], [""], []])
def test_a_sweep_that_is_not_there_is_bad_input(single, named):
    with pytest.raises(InputError, match=r"sweep"):
        read_study(single, named)


def test_a_ledger_without_sweeps_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match="tuneopt tune"):
        read_study(Ledger(tmp_path))


def test_sweeps_that_a_study_has_planned_anew_do_not_compete_with_those_in_their_place(tmp_path):
    """Phase II begins at Phase I's winner. When that changes, the better of old and new would be the luckier."""
    ledger, old = Ledger(tmp_path), make_sweep("adamw")
    held = {"weight_decay": old.space.value(old.space.start, "weight_decay")}
    new, other = replace(old, space=old.space.pin(held)), make_sweep("soap")
    for sweep in (old, new, other):
        run_sweep(ledger, sweep)
        ledger.put_sweep(sweep.id, {**ledger.sweeps()[sweep.id], "study": "mine", "study_id": "7", "phase": "II"})

    def shown() -> set[str]:
        return {view.id for view in read_study(ledger).views}

    assert shown() == {old.id, new.id, other.id}, "accounts of earlier releases tell no plan"
    ledger.put_run({"study": "7", "sweeps": [old.id], "plan": [old.id, other.id], "slots": 1, "wall_seconds": 1.0})
    assert shown() == {old.id, other.id}
    ledger.put_run({"study": "7", "sweeps": [new.id], "plan": [new.id], "slots": 1, "wall_seconds": 1.0})
    assert shown() == {new.id, other.id}
    seen = read_study(ledger)
    assert seen.replaced == 1 and seen.other_trials == len(set(ledger.ids()) - {t for v in seen.views for t in v.every})
    assert [view.id for view in read_study(ledger, [old.id]).views] == [old.id]
    material = gather(ledger)
    prose = [block for block in chapter(material, compare(material), (), 2).blocks if isinstance(block, Prose)]
    assert (
        prose[-1].sentences[-1]
        == "One sweep of an earlier plan is not shown: the study's newest plan has others in their place."
    )


def test_trials_launched_ahead_are_listed_and_count_nowhere_and_foreign_trials_are_only_counted(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = run_sweep(ledger, make_sweep("adamw"))
    ahead = sweep.spec(sweep.space.change(sweep.space.start, "weight_decay", 5))
    foreign = sweep.spec(sweep.space.change(sweep.space.start, "weight_decay", 6))
    for spec in (ahead, foreign):
        ledger.put(make_record(spec, smooth_loss(spec)))
    ledger.put_run({"sweep": sweep.id, "run": [ahead.id, 7], "slots": 2})
    ledger.put_run({"sweep": "another", "run": [foreign.id]})
    study = read_study(ledger)
    view = study.views[0]
    assert list(view.ahead) == [ahead.id]
    assert ahead.id in view.every
    assert ahead.id not in view.records
    assert study.other_trials == 1
    assert view.device_seconds() == pytest.approx(20.0 * len(view.records))
    assert view.device_seconds("train") == pytest.approx(17.0 * len(view.records))
    rows = dict(budget(view).values)
    assert rows["launched ahead, not needed"].startswith("1, of 20 s of device time")
    assert ahead.id not in {run.trial for run in gather(ledger).inputs.runs}


def test_two_corpora_of_one_name_stay_apart(tmp_path):
    ledger = Ledger(tmp_path)
    for fingerprint in ("a" * 16, "b" * 16):
        run_sweep(ledger, make_sweep("adamw", corpus=CorpusId("mine", fingerprint, 1024)))
    assert read_study(ledger).corpora == (("mine", "a" * 16), ("mine", "b" * 16))


def test_what_a_sweep_knew_of_noise_when_it_began_is_what_it_is_replayed_with(tmp_path):
    """Whatever the ledger holds by then: a resumed run and a report decide as the first run did."""
    ledger = Ledger(tmp_path)
    before = kept_evidence(ledger, CORPUS)(make_sweep("soap"))
    assert before.replicates == ()
    sweep = run_sweep(ledger, make_sweep("adamw"), lambda spec: smooth_loss(spec) and smooth_loss(spec) + spec.seed)
    later = make_sweep("soap")
    known = kept_evidence(ledger, CORPUS)(later)
    assert {one.cell.optimizer for one in known.replicates} == {"adamw"}
    queue = SchedulerQueue(OneSweep(later, known))
    name, plain = next(iter(queue.documents()))
    assert (name, len(plain["evidence"])) == (later.id, len(known.replicates))
    ledger.put_sweep(name, plain)
    run_sweep(Ledger(tmp_path), make_sweep("muon"))
    assert kept_evidence(ledger, CORPUS)(later) == stored_evidence(ledger.sweeps()[later.id], ledger) == known
    loud, alone = (
        replay(Task(later, evidence=one), run_into(tmp_path, later, one))[0].state for one in (known, before)
    )
    assert loud.tolerance > alone.tolerance, "what others' seeds say counts"
    assert kept_evidence(ledger, CORPUS)(sweep).replicates, "a sweep of an earlier release learns when it goes on"


def run_into(path, sweep, evidence):
    """The ledger with the sweep run to its end under that evidence."""
    ledger, outcomes = Ledger(path), {}
    while pending := sweep.state(outcomes, evidence=evidence).pending:
        for spec in pending:
            ledger.put(make_record(spec, smooth_loss(spec)))
            outcomes[spec.id] = outcome_of(ledger.get(spec.id))
    return ledger


@pytest.mark.parametrize("quota", [None, 23])
@pytest.mark.parametrize("policy", ["joint", "model", "single"])
def test_records_seen_at_once_tell_what_they_tell_wave_by_wave(policy, quota):
    """Also where the ledger holds a part of the sweep, and changes around it that the sweep never asked for."""

    def task() -> Task:  # made anew: nothing may be remembered from the other replay
        peer = make_sweep("muon")
        evidence = Evidence(peers=tuple(peer.spec(peer.space.start, seed) for seed in peer.seeds))
        return Task(make_sweep("adamw", policy=policy), quota=quota, evidence=evidence)

    sweep, records = task().sweep, {}
    standing, _ = wave_by_wave(task(), lambda spec: records.setdefault(spec.id, make_record(spec, smooth_loss(spec))))
    assert standing.finished
    around = [sweep.spec(config) for centre in (sweep.space.start, standing.state.descent.incumbent)
              for _, _, config in sweep.space.star(centre) if sweep.feasible(config)]  # fmt: skip
    foreign = {spec.id: make_record(spec, smooth_loss(spec)) for spec in around if spec.id not in records}
    assert foreign or policy != "model"
    seen = set()
    for count in range(0, len(records) + 1, 5):
        for more in ({}, foreign):
            held = dict(list(records.items())[:count]) | more
            found = replay(task(), SimpleNamespace(get=held.get))
            assert found == wave_by_wave(task(), lambda spec, held=held: held.get(spec.id))
            seen.add((found[0].finished, found[0].state.searched.waves))
    assert len(seen) > 1


def wave_by_wave(task: Task, find) -> tuple[Standing, dict]:
    """How a task stands when it sees no trials but those that it has asked for, as its own run does."""
    outcomes = {}
    while True:
        standing = stand(task, outcomes)
        found = {spec.id: outcome_of(record) for spec in standing.pending if (record := find(spec)) is not None}
        if not found:
            return standing, {trial: outcomes[trial] for trial in standing.trials if trial in outcomes}
        outcomes |= found


TWO_QUESTIONS = """\
name: {name}
optimizers:
  adamw: {{set: {{beta1: 0.9, beta2: 0.95, epsilon: 1e-10, max_grad_norm: 1, train_batch_size: 16, warmup: 0.1}},
          grid: {{learning_rate: [0.004, 0.008, 0.016, 0.032], weight_decay: [0, 0.1, 0.2]}}}}
  {rival}: {{set: {{beta1: 0.9, beta2: 0.95, max_grad_norm: 1, train_batch_size: 16, warmup: 0.1}},
         grid: {{learning_rate: [0.001, 0.002, 0.004], weight_decay: [0.1, 0.2]}}}}
scales: [nano-65k]
ratios: [1]
corpus: embedded
phase_1: {{regimes: {{nano-65k: [1]}}}}
replicates: 3
"""


def test_a_sweep_that_two_studies_share_is_decided_once_and_the_first_one_s_report_stays(tmp_path):
    """What each takes for noise hangs on its other optimizers: Lion is quiet here, and NAdamW loud."""
    ledger = Ledger(tmp_path / "ledger")

    def loss(spec):
        noise = {"adamw": 0.002, "lion": 0.002, "nadamw": 0.2}[spec.optimizer]
        steps = abs(math.log2(float(spec.config["learning_rate"]) / 0.016))
        return 4.0 + 0.02 * steps + 0.01 * float(spec.config["weight_decay"]) + random.Random(spec.id).gauss(0, noise)

    def ran(rival):
        """The trials of AdamW that a study asked for which were not in the ledger."""
        study, look_up = parse_study(TWO_QUESTIONS.format(name=f"with-{rival}", rival=rival)), recorded(ledger)
        queue, made = study_queue(planned_study(study), ledger), []
        while (spec := queue.next()) is not None:
            ledger.put(make_record(spec, loss(spec)))
            queue.tell(spec, look_up(spec))
            made += [spec.id] * (spec.optimizer == "adamw")
        for name, plain in queue.documents(ledger.sweeps()):
            ledger.put_sweep(name, plain)
        return made

    def shown():
        return {view.id: (view.state.finished, view.state.tolerance, view.state.descent.incumbent)
                for view in read_study(ledger).views}  # fmt: skip

    assert ran("lion")
    before = shown()
    assert all(finished for finished, _, _ in before.values())
    assert ran("nadamw") == [], "what is decided is not decided again"
    assert {name: shown()[name] for name in before} == before
