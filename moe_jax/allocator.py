"""Memory that a process keeps instead of handing it back and taking it again."""

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets this process reuse large arrays' memory; no-op without glibc.

    By default, glibc takes every allocation above 32 MB from the kernel and returns
    it when it is freed. XLA's CPU backend allocates results and temporaries anew on
    every call, so each step pays for a page fault every 4 KB: with the gradients of
    128 MB of weights, up to a third of a sparse layer's time. With this, memory once
    used stays with the process, in one arena, as the others cannot hold anything so
    large. The price is fragmentation: expect a third more resident memory, and a few
    calls until all sizes have found their place.

    Call it before the first computation. Accelerators' own memory is not concerned.

    Returns:
      Whether the allocator took all of it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another libc
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MOST), (_M_ARENA_MAX, 1))
    taken = [mallopt(option, value) == 1 for option, value in wanted]
    return all(taken)
