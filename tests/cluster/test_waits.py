"""Why a run waits, from what the driver knows, the trials' own logs, and a look at a real cluster."""

import json
import lzma
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import tuneopt.data
from tuneopt.cluster.holders import holders, usage, within
from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.ledger.logs import TrialLog
from tuneopt.observe.state import RunState, Worker
from tuneopt.observe.waiting import Cluster, Waits
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

SPECS = [
    TrialSpec(
        "adamw",
        TrialSpec.freeze({"learning_rate": 0.004, "train_batch_size": 16}),
        Regime(SCALES["nano-65k"], 0.5, CorpusId("embedded", "f" * 16, 1024)),
        seed=seed,
    )
    for seed in range(3)
]


class Moment:
    """A run under way with a clock of its own; the cluster is looked at as often as ``looks`` says."""

    def __init__(self, folder: Path, slots: int = 2) -> None:
        self.now, self.looks = 0.0, 0
        self.launched: dict[str, TrialSpec] = {}
        self.ledger = Ledger(folder)
        self.state = RunState(SimpleNamespace(running=self.launched), clock=lambda: self.now)  # type: ignore[arg-type]
        self.state.slots = slots
        self.cluster = Cluster("head:6379", free="2 of 2 CPU in use", holders=("an actor Hog of the driver process 9",))
        self.waits = Waits(self.state, self.ledger, self.look)

    def look(self) -> Cluster:
        self.looks += 1
        return self.cluster

    def launch(self, *specs: TrialSpec, start: bool = True) -> None:
        for spec in specs:
            self.launched[spec.id] = spec
            if start:
                self.state.started(spec)

    def report(self, spec: TrialSpec, fraction: float) -> None:
        step = round(fraction * spec.steps)
        point = CurvePoint(step, step, 0.1, 5.0, 5.0, 5.0, 1.0)
        self.state.points(spec, [point], Worker("node-3", 7))

    def after(self, seconds: float) -> str | None:
        """What is said once so much time went by, looked at every 5 seconds as the timer does."""
        end = self.now + seconds
        reason = self.waits(30.0)
        while self.now < end:
            self.now = min(end, self.now + 5.0)
            reason = self.waits(30.0)
        return reason


@pytest.fixture
def moment(tmp_path: Path) -> Moment:
    return Moment(tmp_path)


def test_trials_that_report_are_not_waited_for_and_the_cluster_is_left_alone(moment: Moment) -> None:
    moment.launch(*SPECS[:2])
    for tenth in range(1, 10):
        assert moment.after(20.0) is None or tenth == 1
        for spec in SPECS[:2]:
            moment.report(spec, tenth / 10)
    assert moment.looks == 0


def test_a_trial_without_a_slot(moment: Moment) -> None:
    moment.launch(SPECS[0])
    moment.report(SPECS[0], 0.1)
    moment.launch(SPECS[1], start=False)
    assert moment.after(25.0) is None
    moment.report(SPECS[0], 0.2)
    text = moment.after(10.0)
    assert text is not None and f"no slot is free for trial {SPECS[1].id}" in text
    assert "held by an actor Hog of the driver process 9" in text and "1 by this sweep" in text
    moment.state.started(SPECS[1])
    moment.report(SPECS[0], 0.3)
    assert moment.after(5.0) is None, "it got its slot"


def test_a_restarted_trial_waits_for_a_slot_again(moment: Moment) -> None:
    moment.launch(*SPECS[:2])
    moment.report(SPECS[0], 0.1)
    moment.state.left(SPECS[1].id)
    moment.after(20.0)
    moment.report(SPECS[0], 0.2)
    text = moment.after(15.0)
    assert text is not None and f"for trial {SPECS[1].id}" in text


def test_the_log_of_a_silent_trial_is_quoted(moment: Moment) -> None:
    moment.launch(*SPECS[:2])
    moment.after(10.0)
    for spec in SPECS[:2]:
        moment.report(spec, 0.1)
    moment.after(10.0)
    moment.report(SPECS[0], 0.2)
    TrialLog(moment.ledger, SPECS[1].id).write("warning", "warning", text="the disk is slow")
    moment.after(15.0)
    moment.report(SPECS[0], 0.3)
    text = moment.after(20.0)
    assert text is not None and f"worker of trial {SPECS[1].id} (process 7 on node-3)" in text
    assert text.endswith("its log ends with: warning: the disk is slow")


def test_preparing_ends_where_the_trials_own_log_says_so(moment: Moment) -> None:
    moment.launch(*SPECS[:2])
    log = TrialLog(moment.ledger, SPECS[0].id)
    log.write("start", optimizer="adamw", regime="nano", pid=7, host="node-3")
    TrialLog(moment.ledger, SPECS[1].id).write("ready", device="cpu", startup_seconds=1.0)
    text = moment.after(35.0)
    assert text is not None and text.kind == "preparing" and SPECS[0].id in text
    assert text.endswith("it loads the text, builds the model and compiles it")
    log.write("warning", "warning", text="waiting: 'compile' in the cache is being built by process 12")
    text = moment.after(5.0)
    assert text is not None and text.endswith("'compile' in the cache is being built by process 12")
    log.write("ready", device="cpu", startup_seconds=40.0)
    assert moment.after(5.0) is None
    log.write("start", optimizer="adamw", regime="nano", pid=8, host="node-4")
    assert moment.after(5.0) is not None, "a new process prepares anew"


def test_idle_slots_at_the_end_of_a_wave(moment: Moment) -> None:
    moment.launch(*SPECS[:2])
    moment.after(10.0)
    for spec in SPECS[:2]:
        moment.report(spec, 0.5)
    moment.state.left(SPECS[0].id)
    del moment.launched[SPECS[0].id]
    moment.after(10.0)
    moment.report(SPECS[1], 0.75)
    moment.after(10.0)
    moment.report(SPECS[1], 0.8)
    text = moment.after(15.0)
    assert text is not None and "1 of 2 slots is idle" in text and SPECS[1].id in text and "expected at" in text


def test_nothing_launched_for_long(moment: Moment) -> None:
    text = moment.after(40.0)
    assert text is not None and text.kind == "nothing"


def test_a_lost_cluster_is_noticed_when_nothing_moves(moment: Moment) -> None:
    moment.launch(*SPECS[:2])
    moment.report(SPECS[0], 0.1)
    moment.report(SPECS[1], 0.1)
    moment.cluster = replace(moment.cluster, lost="connection refused")
    text = moment.after(35.0)
    assert text is not None and text.kind == "lost"


def test_usage_and_holders_in_words() -> None:
    assert usage({"CPU": 4.0, "GPU": 1.0, "memory": 1e9}, {"CPU": 1.5}) == "2.5 of 4 CPU and 1 of 1 GPU in use"
    assert usage({}, {}) == ""
    actors = [
        {"ActorClassName": name, "JobID": job, "State": state}
        for name, job, state in (
            ("Trial", "02", "ALIVE"), ("Trial", "02", "ALIVE"), ("Hog", "03", "ALIVE"), ("Hog", "03", "DEAD"),
            ("Mine", "01", "ALIVE"),
        )
    ]  # fmt: skip
    jobs = [{"JobID": "02", "DriverPid": 9, "DriverIPAddress": "10.0.0.2", "Entrypoint": "run --password secret"}]
    assert holders(actors, jobs, "01") == (
        "2 actors Trial of the driver process 9 on 10.0.0.2",
        "an actor Hog of the driver that has ended",
    )


def test_a_look_that_hangs_or_raises_holds_nothing_up() -> None:
    stuck = threading.Event()
    began = time.monotonic()
    assert within(0.05, lambda: stuck.wait(60) and None) is None
    assert time.monotonic() - began < 5
    stuck.set()
    assert within(5.0, lambda: Cluster(str(1 / 0))) is None
    assert within(5.0, lambda: Cluster("here")) == Cluster("here")


HOG = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Hog:
    def ping(self):
        return 1

hog = Hog.remote()
ray.get(hog.ping.remote())
print("held", flush=True)
sys.stdin.readline()
ray.shutdown()
"""

DRIVER = """
import json, logging, sys
from tuneopt import api
from tuneopt.cluster import backend
from tuneopt.observe.waiting import Times

logging.basicConfig(level=logging.WARNING, format="%(message)s")
backend.TIMES = Times(first=1.0, every=2.0, beat=0.2)
text, ledger, address = sys.argv[1:]
sweep, _ = api.plan("adamw", ratio=0.02, corpus=text, compile=False, replicates=1,
                    overrides={"learning_rate": 0.008, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95,
                               "epsilon": 1e-10, "max_grad_norm": 1, "warmup": 0.1, "train_batch_size": 16})
result = api.tune(sweep, ledger, api.RunOptions(corpus=text, address=address))
print(json.dumps({"run": result.run, "failed": result.failed}))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_whose_only_slot_is_taken_says_by_whom_and_goes_on_when_it_is_free(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster as RayCluster

    text = tmp_path / "text"
    text.mkdir()
    embedded = Path(tuneopt.data.__file__).parent / "embedded" / "public-domain-mix.txt.xz"
    for number, document in enumerate(lzma.decompress(embedded.read_bytes()).decode().split("<|endoftext|>")[:200]):
        (text / f"{number:03d}.txt").write_text(document)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    processes = []
    try:
        hog = subprocess.Popen(
            [sys.executable, "-c", HOG, cluster.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        processes.append(hog)
        assert hog.stdin is not None and hog.stdout is not None and hog.stdout.readline() == "held\n"
        command = [sys.executable, "-c", DRIVER, str(text), str(tmp_path / "ledger"), cluster.address]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(driver)
        assert driver.stderr is not None
        lines = []
        for line in driver.stderr:
            lines.append(line)
            if "no slot is free" in line and len(lines) >= 2:
                break
        said = next((line for line in lines if "no slot is free" in line), "")
        assert said, "".join(lines)
        assert "an actor Hog of the driver process" in said and f"process {hog.pid}" in said, lines
        assert "1 of 1 CPU in use" in said and "no machine is being started" in said
        hog.stdin.write("\n")
        hog.stdin.flush()
        out, err = driver.communicate(timeout=200)
        assert driver.returncode == 0, err
        result = json.loads(out)
        assert len(result["run"]) >= 1 and result["failed"] == {}
        assert len(list((tmp_path / "ledger" / "logs").iterdir())) == len(result["run"])
    finally:
        for process in processes:
            process.kill()
            process.wait()
        cluster.shutdown()
