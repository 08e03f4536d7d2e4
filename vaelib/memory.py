"""What a process keeps of the memory that it frees."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep what a step frees, for the next step asks for it again.

    Otherwise it returns the memory, and page faults take up to a quarter of a step on large images
    (tests/bench/faults.py).
    """
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc_trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        yield
        return
    mallopt(mmap_threshold, 2**25)  # the greatest that it takes
    mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(trim_threshold, 2**26)  # where glibc's own adjustment ends
        malloc_trim(0)
