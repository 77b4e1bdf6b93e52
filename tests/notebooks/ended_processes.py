"""Processes that end with the tests, however those end.

Run as a script it is the guard: it waits until its standard input closes, which happens when the tests let go of it and
also when they are killed, and then ends the process whose number it was given and all that this process started.
"""

import contextlib
import subprocess
import sys
import time

import psutil


@contextlib.contextmanager
def ended(process):
    """End ``process`` (a Popen) and all its descendants when the block is left or this Python process dies."""
    # In a session of its own, or a signal for the whole process group would take the guard along.
    command = [sys.executable, __file__, str(process.pid)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guard.stdin.close()
        process.wait()
        guard.wait()


def end(pid, patience=10):
    """Terminate process ``pid``; after ``patience`` seconds kill what is left of it and of its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # Listed before the first one ends: afterwards nothing tells whose child an orphan was.
        family = [process, *process.children(recursive=True)]
        process.terminate()  # a server shuts its kernels down, a driver its browser
        deadline = time.monotonic() + patience
        while any(map(alive, family)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for each in filter(alive, family):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def alive(process):
    """Whether ``process`` runs; one that only waits for its parent to notice its end does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    sys.stdin.read()
    end(int(sys.argv[1]))
