"""Memory of large pictures, given back to the system when they are done with. It knows nothing of pictures.

glibc maps large blocks apart, and gives them back when they are freed; but after every such block it counts larger ones as small
(up to 32 MiB), and keeps those, thread by thread: hundreds of megabytes after a few pictures of 50 megapixels. Setting its limits
stops that (mallopt(3), "Dynamic adjustment of the mmap threshold").
"""

from __future__ import annotations

import ctypes

# Pillow keeps pictures in blocks of 16 MiB at most (`Storage.c`), so large ones are mapped. Not less: mapping is not free, and
# typical photographs, up to 3.9 megapixels, are decoded in memory that is there already.
LARGE_BYTES = 15 << 20
SPARE_BYTES = 2 * LARGE_BYTES  # kept at the end of a heap, as the rule of glibc's own has it
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def give_back_large_blocks() -> bool:
    """Have the whole process do so from now on. Whether it does: not where the C library is another one."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES))
