"""`multiprocessing` where no process can be started: what it needs only threads for works with threads.

`multiprocessing.pool.ThreadPool`, `multiprocessing.dummy` and queues ask for locks that processes could share, which
lie in files that a REPL does not have. In a single process the locks of `threading` do the same.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import threading

_NAMES = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")


def use_threads() -> None:
    """Puts the locks of `threading` in the place of those of `multiprocessing`, in this process."""
    for name in _NAMES:
        make = getattr(threading, name)
        setattr(
            multiprocessing.context.BaseContext,
            name,
            lambda _self, *arguments, make=make, **named: make(*arguments, **named),
        )
        setattr(multiprocessing, name, make)
