"""The few C library calls that Python does not offer, with errno turned into OSError."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
_CLONE_NEWNS = 0x20000


def prctl(option: int, value: int = 0) -> int:
    """`prctl(option, value, 0, 0, 0)`; OSError where the kernel refuses."""
    zero = ctypes.c_ulong(0)
    return _checked(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), "prctl")


def syscall(number: int, *arguments: object) -> int:
    """`syscall(number, ...)` with ints passed as 64-bit values; OSError where the kernel refuses."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *values), f"system call {number}")


def seccomp_filter(program: bytearray) -> None:
    """Installs a BPF program of 8-byte instructions for the calling thread. OSError where the kernel refuses."""
    buffer = (ctypes.c_char * len(program)).from_buffer(program)
    header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(header), zero, zero), "seccomp")


def mallopt_arena_max(count: int) -> None:
    """Bounds the number of glibc's malloc arenas, each of which reserves 64 MB of address space. No-op elsewhere."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(-8, count)


def collapse_pages(address: int, length: int) -> None:
    """`madvise(MADV_HUGEPAGE)` and `MADV_COLLAPSE` (Linux 6.1) on memory of this process. Errors are ignored."""
    for advice in (14, 25):
        _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice)


def new_mount_namespace() -> None:
    """What this process mounts from now on, no other sees. OSError where the kernel refuses."""
    _checked(_libc.unshare(_CLONE_NEWNS), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """`mount(source, target, kind, flags, options)`; OSError where the kernel refuses."""
    _checked(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()), "mount"
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
