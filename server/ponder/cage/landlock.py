"""Keeps a process from others: their memory, their environments and, since Linux 6.12, signals.

Processes of one user may read each other's `/proc/PID/environ` and `/proc/PID/mem`. A process in a
Landlock domain may do so only with the processes that it started. Landlock needs no privilege and
exists since Linux 5.13: https://docs.kernel.org/userspace-api/landlock.html. Two capabilities of a
superuser overrule it for environments, so that a process gives them up.
"""

from __future__ import annotations

import ctypes
import os
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_PATH_BENEATH = 1
_MAKE_BLOCK, _REFER = 1 << 11, 1 << 13
_SIGNALS = 1 << 1
_REFER_SINCE, _SIGNALS_SINCE = 2, 6
_PR_SET_NO_NEW_PRIVS = 38
_SYS_ADMIN, _PERFMON = 21, 38
_CAPABILITIES_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The version of Landlock here: 0 where the kernel has none, 6 and more with signals."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def leave_others(version: int) -> bool:
    """Move this thread, and what it starts, into a domain of its own; False where there is none.

    The domain takes away as little else as a domain can. It must restrict something: signals, in
    a kernel that is too old for that files that change their folder, which it allows everywhere,
    or in the oldest the making of block devices. Programs gain no rights by their owner (setuid).
    """
    if not version:
        return False
    fs = 0 if version >= _SIGNALS_SINCE else _REFER if version >= _REFER_SINCE else _MAKE_BLOCK
    rules = struct.pack("=QQQ", fs, 0, 0 if fs else _SIGNALS)
    # Kernels reject a longer structure unless the part that they do not know is zero.
    ruleset = _libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return False
    try:
        return (fs != _REFER or _allow(ruleset, fs)) and not (
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            or _libc.syscall(_RESTRICT_SELF, ruleset, 0)
            or _give_up(_SYS_ADMIN, _PERFMON)
        )
    finally:
        os.close(ruleset)


def _allow(ruleset: int, rights: int) -> bool:
    """Allow these rights in all folders."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, root)
        return not _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(root)


def _give_up(*capabilities: int) -> int:
    """Remove capabilities from this thread; 0 if that worked."""
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    sets = ctypes.create_string_buffer(24)  # twice 32 bits of: effective, permitted, inheritable
    if _libc.capget(header, sets):
        return -1
    words = list(struct.unpack("=6I", sets))
    for number in capabilities:
        for kind in range(3):
            words[number // 32 * 3 + kind] &= ~(1 << number % 32)
    return int(_libc.capset(header, struct.pack("=6I", *words)))
