"""How the process's memory allocator treats what is freed."""

import ctypes
import platform

# mallopt(3)'s numbers of its parameters
_TRIM_THRESHOLD, _NEVER = -1, -1
_MMAP_THRESHOLD, _MOST = -3, 32 * 2**20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of giving it back, where the C library is glibc; call it once, early.

    By default glibc gives the end of its heap back when freed and maps large blocks anew each time, so that the kernel clears
    their pages again and again: a training step on a CPU frees and asks for the same few megabytes thousands of times. Blocks
    above 32 MiB are still mapped, and given back: kept, they would leave holes. The peak stays what it is.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
        library.mallopt(_MMAP_THRESHOLD, _MOST)
