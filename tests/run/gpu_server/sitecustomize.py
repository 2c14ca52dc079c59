"""A machine whose torch finds a GPU unless the environment hides it; every Python process with this folder in its path.

It computes nothing, so a trial that takes it fails.
"""

import importlib.abc
import importlib.util
import os
import sys


class AfterCuda(importlib.abc.MetaPathFinder):
    """Lets `torch.cuda` be imported as ever, and then say that there is a device."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch.cuda":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.is_available = lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != ""
            module.device_count = lambda: int(module.is_available())

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, AfterCuda())
