"""Who holds Python's lock while a processor works: a sample for every bit of processor time.

The kernel's profiling timer runs with the processor time of the whole process and strikes the
thread that is running. A few lines of C then note that thread, and whether the interpreter says
that it holds the lock. Waiting for the lock costs no processor time and is not seen; what other
programs take is not counted. The timer goes by the kernel's tick (mostly 4 ms), so the share of a
thread is known to about one over the root of its samples.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from pipeline.sources import Source

MOST_SAMPLES = 1 << 20
_PERIOD_MICROSECONDS = 1000

_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

int PyGILState_Check(void);

static atomic_uint count;
static unsigned most;
static int *threads;
static unsigned char *held;
static struct sigaction before;

static void look(int number)
{
    int kept = errno;
    unsigned i = atomic_fetch_add(&count, 1);
    if (i < most) {
        threads[i] = (int)syscall(SYS_gettid);
        held[i] = (unsigned char)PyGILState_Check();
    }
    errno = kept;
}

int begin(int *into_threads, unsigned char *into_held, unsigned room, long microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    struct sigaction action;
    threads = into_threads, held = into_held, most = room;
    atomic_store(&count, 0);
    memset(&action, 0, sizeof action);
    action.sa_handler = look;
    action.sa_flags = SA_RESTART;
    return sigaction(SIGPROF, &action, &before) || setitimer(ITIMER_PROF, &timer, 0);
}

unsigned end(void)
{
    struct itimerval off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_PROF, &off, 0);
    sigaction(SIGPROF, &before, 0);
    unsigned all = atomic_load(&count);
    return all < most ? all : most;
}
"""


def why_not() -> str | None:
    """Why samples cannot be taken here; None if they can."""
    if not Path("/proc/self/status").exists():
        return "the profiling timer is looked at on Linux only"
    return None if shutil.which("gcc") else "there is no gcc to make the sampler with"


class Share(NamedTuple):
    """Samples of a thread, and those of them in which it held the lock."""

    samples: int
    held: int


class GilSampler:
    """Samples the block it stands around; only one at a time.

    Threads are told apart by name, so it must hear of them while they live: call `update` a few
    times a second, as a view of the line.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._threads = (ctypes.c_int * MOST_SAMPLES)()
        self._held = (ctypes.c_ubyte * MOST_SAMPLES)()
        self._library = _compiled()
        self._count = 0

    def __enter__(self) -> Self:
        self.update(())
        if self._library.begin(self._threads, self._held, MOST_SAMPLES, _PERIOD_MICROSECONDS):
            raise OSError("the profiling timer cannot be set")
        return self

    def __exit__(self, *ended: object) -> None:
        self._count = self._library.end()

    def update(self, sources: Sequence[Source]) -> None:
        """Learn the names of the threads that run now."""
        for thread in threading.enumerate():
            if thread.native_id is not None:
                self._names[thread.native_id] = thread.name

    def shares(self) -> dict[str, Share]:
        """By thread's name; after the block. What Python did not start is ``native threads``."""
        seen, held = Counter[str](), Counter[str]()
        for number, has in zip(
            self._threads[: self._count], self._held[: self._count], strict=True
        ):
            name = self._names.get(number, "native threads")
            seen[name] += 1
            held[name] += has
        return {name: Share(count, held[name]) for name, count in seen.most_common()}


def _compiled() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "sampler.c"), Path(folder, "sampler.so")
        source.write_text(_SOURCE)
        command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        loaded = ctypes.CDLL(str(library))  # stays in memory when its file has gone
    loaded.end.restype = ctypes.c_uint
    loaded.begin.argtypes = [
        ctypes.POINTER(ctypes.c_int),
        ctypes.POINTER(ctypes.c_ubyte),
        ctypes.c_uint,
        ctypes.c_long,
    ]
    return loaded
