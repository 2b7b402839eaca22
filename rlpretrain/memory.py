"""How the process's memory allocator treats what is freed."""

import ctypes
import platform

# mallopt(3)'s numbers of its parameters, and values that turn them off
_TRIM_THRESHOLD, _NEVER = -1, -1
_MMAP_MAX, _NONE = -4, 0


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of giving it back, where the C library is glibc; call it once, early.

    By default glibc maps every large block anew and unmaps it when freed, so that the kernel clears its pages again and again:
    a training step on a CPU frees and asks for the same few megabytes thousands of times. The peak stays what it is.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
        library.mallopt(_MMAP_MAX, _NONE)
