"""The system-call table and the compiled filter."""

import contextlib
import struct

import pytest

from rlm_env.repl.sandbox import seccomp, syscalls
from rlm_env.repl.sandbox.seccomp import compile_filter

pyseccomp = None
with contextlib.suppress(ImportError, RuntimeError, OSError):
    import pyseccomp


@pytest.mark.skipif(pyseccomp is None, reason="pyseccomp (with libseccomp) is not installed")
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_numbers_agree_with_libseccomp(arch: str):
    token = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[arch]
    for name in syscalls.NUMBERS:
        known = pyseccomp.resolve_syscall(token, name)
        ours = syscalls.syscall_number(name, arch)
        assert ours == (known if known >= 0 else None), name


def run(program: bytes, arch: int, nr: int, *arguments: int) -> int:
    """A small BPF machine: what the kernel would answer. Source: Documentation/networking/filter.rst."""
    data = struct.pack("<IIQ6Q", nr, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    at, value = 0, 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x05:
            at += k
        elif code == 0x54:
            value &= k
        elif code == 0x06:
            return k
        else:
            taken = {0x15: value == k, 0x25: value > k, 0x45: bool(value & k)}[code]
            at += if_true if taken else if_false


ALLOW, EPERM, ENOSYS, DONE, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050000, 0x80000000
EAGAIN, EINVAL = 0x0005000B, 0x00050016
CASES = [
    # name, arguments, verdict
    ("read", (), ALLOW),
    ("openat", (), ALLOW),
    ("clone", (0x3D0F00,), ALLOW),  # pthread_create
    ("clone", (0x1200011,), EPERM),  # fork
    ("clone", (0x10010000,), EPERM),  # a thread in a new user namespace
    ("clone", (0x3D0F00 & ~0x400,), EPERM),  # a thread with descriptors of its own
    ("clone", (0x3D0F00 & ~0x100,), EPERM),
    ("clone3", (), ENOSYS),
    ("clock_gettime", (3,), ALLOW),
    ("clock_gettime", ((~1 << 3 | 2) & 0xFFFFFFFF,), EINVAL),  # the CPU time of process 1
    ("madvise", (0, 0, 12), EPERM),  # MADV_MERGEABLE
    ("mmap", (0, 0, 3, 0x22), ALLOW),
    ("mmap", (0, 0, 3, 0x21), EPERM),  # MAP_SHARED | MAP_ANONYMOUS
    ("mmap", (0, 0, 3, 0x8023), EPERM),  # MAP_SHARED_VALIDATE | MAP_ANONYMOUS | MAP_POPULATE
    ("mmap", (0, 0, 1, 0x1), ALLOW),
    ("futex", (0, 128), ALLOW),  # FUTEX_WAIT | FUTEX_PRIVATE_FLAG
    ("futex", (0, 128 | 256 | 9), ALLOW),
    ("futex", (0, 1), ALLOW),  # waking where nobody can wait
    ("futex", (0, 0), EAGAIN),
    ("futex", (0, 256 | 9), EAGAIN),
    ("futex", (0, 6), EAGAIN),
    ("madvise", (0, 0, 4), ALLOW),
    ("madvise", (0, 0, 14), ALLOW),
    ("madvise", (0, 0, 21), EPERM),
    ("madvise", (0, 0, 100), EPERM),
    ("openat", (0, 0, 0o2000000), ALLOW),
    ("openat", (0, 0, 0x200000), EPERM),  # O_PATH
    ("readlinkat", (), EINVAL),
    ("recvfrom", (3, 0, 0, 2), ALLOW),
    ("recvfrom", (3, 0, 0, 1), EPERM),  # MSG_OOB
    ("recvmsg", (3, 0, 1), EPERM),
    ("sendto", (3, 0, 0, 1, 0), EPERM),
    ("getsockopt", (3, 1, 4), ALLOW),
    ("getsockopt", (3, 1, 17), EPERM),  # SO_PEERCRED
    ("getsockopt", (3, 1, 77), EPERM),  # SO_PEERPIDFD
    ("getsockopt", (3, 6, 3), EPERM),
    ("close_range", (0, 0xFFFFFFFF), DONE),
    ("close_range", (3, 3), DONE),
    ("close_range", (5, 0xFFFFFFFF), ALLOW),
    ("socketpair", (1, 1), ALLOW),
    ("socketpair", (1, 1 | 0o2000000 | 0o4000), ALLOW),
    ("socketpair", (1, 2), EPERM),
    ("socketpair", (2, 1), EPERM),
    ("sendto", (3, 0, 0, 0, 0), ALLOW),
    ("sendto", (3, 0, 0, 0, 1), EPERM),
    ("sendto", (3, 0, 0, 0, 1 << 32), EPERM),
    ("sendmsg", (), EPERM),
    ("fcntl", (0, 4), ALLOW),
    ("fcntl", (0, 8), EPERM),
    *(("fcntl", (0, lock), EPERM) for lock in (5, 6, 7, 36, 37, 38, 1024)),
    ("ioctl", (0, 0x5401), ALLOW),
    ("ioctl", (0, 0x8901), EPERM),
    ("prctl", (15,), ALLOW),
    ("prctl", (1, 9), EPERM),
    ("prctl", (1, 0), EPERM),
    ("prlimit64", (0, 7, 0), ALLOW),
    ("prlimit64", (77, 7, 0), ALLOW),
    ("prlimit64", (78, 7, 0), EPERM),
    ("prlimit64", (0, 7, 1), EPERM),
    ("prlimit64", (0, 7, 1 << 32), EPERM),
    ("kill", (77,), ALLOW),
    ("kill", (78,), EPERM),
    ("kill", (0,), EPERM),
    ("kill", (0xFFFFFFFF,), EPERM),
    ("tgkill", (77, 77), ALLOW),
    ("tgkill", (1, 1), EPERM),
    ("close", (5,), ALLOW),
    ("close", (3,), EPERM),
    ("dup3", (9, 4), EPERM),
    ("seccomp", (), EPERM),
    ("capset", (), EPERM),
    ("landlock_restrict_self", (), EPERM),
]


def loaded(arch: str, **options: bool) -> bytes:
    compiled = compile_filter(arch, **options)
    program = bytearray(compiled.program)
    for offset in compiled.pid_offsets:
        struct.pack_into("<I", program, offset, 77)
    return bytes(program)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("name", "arguments", "verdict"), CASES)
def test_verdicts(arch: str, name: str, arguments: tuple[int, ...], verdict: int):
    program = loaded(arch, paths=True)
    assert run(program, syscalls.AUDIT_ARCH[arch], syscalls.syscall_number(name, arch), *arguments) == verdict


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_everything_else_is_refused(arch: str):
    token = syscalls.AUDIT_ARCH[arch]
    program = loaded(arch, paths=True)
    named = {syscalls.syscall_number(name, arch) for name in syscalls.NUMBERS}
    for nr in range(syscalls.NEWEST + 1):
        if nr not in named:
            assert run(program, token, nr) == EPERM, nr
    for nr in (syscalls.NEWEST + 1, 1000, 0x40000000, 0x40000001, 0xFFFFFFFF):
        assert run(program, token, nr) == ENOSYS
    for other in (0x40000003, 0x40000028, 0):
        assert run(program, other, 0) == KILL


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_call_of_the_table_has_the_verdict_of_its_name(arch: str):
    """Allowed, allowed with some arguments, unsupported, or refused: whichever half of the search it is in."""
    program = loaded(arch, paths=True, scratch=True)
    allowed = {*seccomp.ALLOWED, *seccomp.PATHS, *seccomp.SCRATCH}
    by_arguments = set(seccomp._conditional(True, False))
    for name in syscalls.NUMBERS:
        nr = syscalls.syscall_number(name, arch)
        if nr is None or name in by_arguments:
            continue
        wanted = ENOSYS if name in seccomp.UNSUPPORTED else ALLOW if name in allowed else EPERM
        assert run(program, syscalls.AUDIT_ARCH[arch], nr) == wanted, name


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_levels_and_options(arch: str):
    token = syscalls.AUDIT_ARCH[arch]
    sealed, forking = loaded(arch, paths=False), loaded(arch, paths=True, allow_fork=True)
    for name in seccomp.PATHS:
        nr = syscalls.syscall_number(name, arch)
        if nr is not None:
            assert run(sealed, token, nr) == EPERM, name
    clone, prctl = syscalls.syscall_number("clone", arch), syscalls.syscall_number("prctl", arch)
    assert run(forking, token, clone, 0x8011) == ALLOW
    assert run(forking, token, clone, 0x1200011) == EPERM
    assert run(forking, token, clone, 0x3D0F00) == ALLOW
    assert run(forking, token, prctl, 1, 9) == ALLOW
    assert run(forking, token, prctl, 1, 0) == EPERM
    assert run(forking, token, prctl, 15) == ALLOW


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError):
        syscalls.syscall_number("no_such_call", "x86_64")
