"""A seccomp filter for a process that only reads, computes and writes one descriptor.

The process cannot remove the filter, which needs no privilege and has no measurable cost. It exists
on Linux x86-64; elsewhere `install` returns False.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from functools import lru_cache

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_X86_64 = 0xC000003E
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_ALLOWED = {
    "read": 0, "pread64": 17, "lseek": 8, "close": 3, "getdents64": 217,
    "stat": 4, "fstat": 5, "lstat": 6, "newfstatat": 262, "statx": 332,
    "access": 21, "faccessat": 269, "faccessat2": 439, "readlink": 89, "readlinkat": 267,
    "getcwd": 79, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28,
    "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131,
    "futex": 202, "rseq": 334, "restart_syscall": 219, "sched_yield": 24, "sched_getaffinity": 204,
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "nanosleep": 35,
    "gettimeofday": 96, "time": 201, "times": 100, "getrusage": 98, "getrandom": 318,
    "poll": 7, "ppoll": 271, "select": 23, "pselect6": 270,
    "getpid": 39, "gettid": 186, "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108,
    "getrlimit": 97, "sysinfo": 99, "uname": 63, "exit": 60, "exit_group": 231,
}  # fmt: skip
_WRITE, _OPEN, _OPENAT, _PRLIMIT = 1, 2, 257, 302
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000  # O_TMPFILE

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(output: int) -> bool:
    """Allow this thread and its descendants only the calls above, and writing to `output`.

    Refused calls fail with EPERM. Returns False where the kernel takes no such filter.
    """
    if platform.machine() != "x86_64":
        return False
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return not _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program(output)), 0, 0)


@lru_cache
def program(output: int) -> _Program:
    """The filter as the kernel reads it; a jump counts the steps that it skips."""

    def argument(index: int) -> tuple[int, int, int, int]:
        return _LOAD, 0, 0, _ARGUMENTS + 8 * index  # its lower half, on a little-endian machine

    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for number in _ALLOWED.values():
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number, flags in ((_OPEN, 1), (_OPENAT, 2)):
        steps += [
            (_EQUAL, 0, 4, number),
            argument(flags),
            (_ANY_BIT, 1, 0, _CHANGES),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _REFUSE),
        ]
    steps += [
        (_EQUAL, 0, 5, _WRITE),
        argument(0),
        (_GREATER, 0, 1, 2),  # stdout and stderr go to /dev/null
        (_EQUAL, 0, 1, output),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
        (_EQUAL, 0, 5, _PRLIMIT),
        argument(2),  # the new limit: a pointer, in two halves
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * 2 + 4),
        (_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return _Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
