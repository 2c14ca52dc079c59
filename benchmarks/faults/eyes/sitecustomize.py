"""Lets the harness see the steps of every training process, whatever kills it.

Python imports this module by itself when its folder is on PYTHONPATH. It wraps `tuneopt.training.loop.Training` once
that is imported: each life of a trial (one process that trains it) keeps a small file in shared memory up to date.
Times are those of the monotonic clock, which all processes of a machine share and no fault touches.
"""

import importlib.abc
import importlib.util
import os
import struct
import sys
import time

FORMAT = struct.Struct("<9d")
"""First step and its time, last step and its time, step of the last checkpoint and its time, longest seconds from one
step to the next, longest pause between checkpoints that was asked for, whether the trial ended."""

TARGET = "tuneopt.training.loop"


def watch(training_class):
    """Make every step of a `Training` leave its mark."""
    begin, step, save = training_class.__init__, training_class.train_step, training_class.save

    def note(self):
        life = self.__dict__["_life"]
        os.pwrite(life["file"], FORMAT.pack(*life["marks"]), 0)

    def new_begin(self, *arguments, **named):
        begin(self, *arguments, **named)
        now = time.monotonic()
        name = f"{self.spec.id}.{os.getpid()}.{time.monotonic_ns()}"
        file = os.open(f"{os.environ['TUNEOPT_CHAOS_EYES']}/{name}", os.O_RDWR | os.O_CREAT, 0o644)
        self._life = {"file": file, "marks": [self.step, now, self.step, now, self.step, now, 0.0, 0.0, 0.0]}
        note(self)

    def new_step(self):
        step(self)
        marks, now = self._life["marks"], time.monotonic()
        marks[6] = max(marks[6], now - marks[3])
        marks[2], marks[3], marks[8] = self.step, now, float(self.step >= self.steps)
        marks[7] = max(marks[7], self.store.pause if self.store else 0.0)
        note(self)

    def new_save(self):
        save(self)
        self._life["marks"][4:6] = [self.step, time.monotonic()]
        note(self)

    training_class.__init__, training_class.train_step, training_class.save = new_begin, new_step, new_save


class Eyes(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def watched(module):
            load(module)
            watch(module.Training)

        spec.loader.exec_module = watched
        return spec


if os.environ.get("TUNEOPT_CHAOS_EYES"):
    sys.meta_path.insert(0, Eyes())
