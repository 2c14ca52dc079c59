"""Batches ahead of the loop: in order, few at a time, off the training thread, and gone with their owner."""

import gc
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch

from tuneopt.training.batches import DEPTH, Prefetch, gathering
from tuneopt.training.loop import Training


def threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def eventually(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    return condition()


class Source:
    """Notes what is gathered, and by which thread."""

    def __init__(self) -> None:
        self.gathered: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def __call__(self, first: int, count: int) -> torch.Tensor:
        self.gathered.append((first, count))
        self.threads.add(threading.get_ident())
        return torch.arange(first, first + count)


def test_windows_come_in_order_and_no_more_than_a_few_ahead():
    source = Source()
    ranges = [(3 * number, 3) for number in range(50)]
    prefetch = Prefetch(source, ranges)
    for number in range(50):
        assert prefetch.next == ranges[number]
        assert prefetch.take().tolist() == [3 * number, 3 * number + 1, 3 * number + 2]
        assert len(source.gathered) <= number + 2 + DEPTH
    assert source.gathered == ranges
    assert prefetch.next is None
    with pytest.raises(IndexError, match="no further"):
        prefetch.take()
    assert threading.get_ident() not in source.threads and len(source.threads) == 1


def test_an_endless_run_takes_constant_memory():
    source = Source()
    prefetch = Prefetch(source, ((number, 1) for number in itertools.count()))
    for _ in range(20):
        prefetch.take()
    assert eventually(lambda: len(source.gathered) == 21 + DEPTH)
    time.sleep(0.05)
    assert len(source.gathered) == 21 + DEPTH, "it waits to be asked"


def test_what_fails_off_the_thread_is_raised_on_it():
    def broken(first: int, count: int) -> torch.Tensor:
        if first == 2:
            raise OSError("the disk is gone")
        return torch.zeros(count)

    prefetch = Prefetch(broken, [(0, 1), (1, 1), (2, 1), (3, 1)])
    prefetch.take(), prefetch.take()
    with pytest.raises(OSError, match="the disk is gone"):
        prefetch.take()


def test_its_thread_ends_with_it():
    assert eventually(lambda: threads() == 0)
    kept = Prefetch(Source(), [(0, 1)])
    dropped = Prefetch(Source(), [(0, 1)])
    kept.take(), dropped.take()
    assert threads() == 2
    kept.close()
    del dropped
    assert eventually(lambda: threads() == 0)


def test_a_trial_that_fails_leaves_no_thread(corpus, make_spec):
    training = Training(make_spec(), corpus, None)
    training.train_step()
    assert threads() == 1
    training.strategy.step = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        training.train_step()
    del training
    assert eventually(lambda: threads() == 0)


def test_a_trial_that_is_dropped_on_its_way_frees_its_memory_at_once(corpus, make_spec):
    training = Training(make_spec(), corpus, None)
    training.train_step()
    optimizer = weakref.ref(training.optimizer)
    gc.collect()
    gc.disable()
    try:
        del training
        assert optimizer() is None, "nothing refers to it in a circle"
    finally:
        gc.enable()


def test_a_finished_trial_leaves_no_thread(corpus, make_spec):
    training = Training(make_spec(ratio=0.05), corpus, None)
    while not training.finished:
        training.advance()
    assert eventually(lambda: threads() == 0)
    assert 0 < training.batches.waited < training.seconds["train"]


def test_the_loop_trains_on_what_it_would_read_itself(corpus, make_spec):
    training = Training(make_spec(micro_batch=4), corpus, None)
    gather = gathering(training.batches.windows, training.batches.order, training.device)
    seen, accumulate = [], training.strategy.loss
    training.strategy.loss = lambda tokens, targets: (seen.append(tokens.clone()), accumulate(tokens, targets))[1]
    for _ in range(3):
        training.train_step()
    expected = [gather(first, 4)[:, :-1] for first in range(0, 24, 4)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))
    training.step = 10  # whoever sets another step gets the batches of that one
    training.train_step()
    assert torch.equal(seen[-1], gather(84, 4)[:, :-1])


RUNNING = """
import json, sys
from pathlib import Path
from tuneopt.data import open_corpus
from tuneopt.spec import TrialSpec
from tuneopt.training.loop import Training
training = Training(TrialSpec.from_dict(json.loads(sys.argv[1])), open_corpus(Path(sys.argv[2])), None)
training.train_step()
print("running", flush=True)
while True:
    training.step = 1
    training.train_step()
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stopped_while_batches_are_gathered_ends(corpus, make_spec, by: signal.Signals):
    arguments = [sys.executable, "-c", RUNNING, json.dumps(make_spec().to_dict()), str(corpus.folder)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        process.send_signal(by)
        assert process.wait(timeout=60) != 0
    finally:
        process.kill()
        process.communicate()
