"""Frames of threads: looking at them does no harm to the process."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from asyncflow.frames import of_threads

LOOK_WHILE_THREADS_BEGIN = """
import gc, sys, threading, time
from asyncflow.frames import of_threads

def look():
    while going:
        of_threads()

gc.callbacks.append(lambda *_: time.sleep(0.0001))  # lets another thread in, as a finalizer may
gc.set_threshold(1)
going = True
looker = threading.Thread(target=look)
looker.start()
for _ in range(200):
    thread = threading.Thread(target=bool)
    thread.start()
    thread.join()
going = False
looker.join()
print("done")
"""


def test_threads_may_begin_meanwhile() -> None:
    """Before Python 3.11.9 a process that looked with ``sys._current_frames()`` alone stood still here."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK_WHILE_THREADS_BEGIN],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "done\n", done.stderr


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    of_threads()
    assert gc.isenabled()
    gc.disable()
    try:
        of_threads()
        assert not gc.isenabled()
    finally:
        gc.enable()
