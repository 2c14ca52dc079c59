"""Who answers SIGTERM while Ray starts and afterwards: this program, as ever.

`ray.init` sets handlers before it connects and while it starts its processes. They end the driver at once with exit
code 1 or 15, without a word of how to go on. Its C++ core sets one more, below Python's: it prints a stack trace, hands
the signal on, and aborts the process three seconds later by an alarm (absl's failure signal handler).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_signals() -> Iterator[None]:
    """Let Ray set no handlers while the block runs, and take back the core's; its processes end with this one."""
    from ray._private import utils

    main = threading.current_thread() is threading.main_thread()
    before, setter = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = setter
        if main:
            signal.signal(signal.SIGTERM, before)  # anew, because the core has replaced it without Python's knowledge
            signal.alarm(0)  # of a signal that came in between
