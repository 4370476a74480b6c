"""What Linux offers to lock a process in, called through ctypes: namespaces, Landlock, seccomp.

Every function locks the calling process, for good, and returns whether it took effect; none raises for a
kernel that does not allow it. Covered: Linux on x86_64 and aarch64. Elsewhere nothing takes effect.

Sources: unshare(2), pivot_root(2), mount_setattr(2), landlock(7), seccomp(2), the kernel's tables of calls.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)
_MACHINE = os.uname().machine if sys.platform == "linux" else ""
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(_MACHINE)
_AT_FDCWD = -100


def _syscall(number: int, *arguments: int | bytes) -> int:
    given = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    _LIBC.syscall.restype = ctypes.c_long
    return int(_LIBC.syscall(ctypes.c_long(number), *given))


def _prctl(option: int, value: int, pointer: object = 0) -> bool:
    return bool(_LIBC.prctl(option, ctypes.c_ulong(value), pointer, 0, 0) == 0)


def die_with_parent() -> bool:
    """SIGKILL for this process when the thread that started it ends."""
    return _COLUMN is not None and _prctl(1, 9)


def no_new_privileges() -> bool:
    """No set-uid program gives any; Landlock and seccomp ask for this first."""
    return _COLUMN is not None and _prctl(38, 1)


def drop_capabilities() -> bool:
    """All of them, also those that a namespace of its own gave."""
    return _COLUMN is not None and _LIBC.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0


# ---------------------------------------------------------------- namespaces

_NEW_USER, _NEW_MOUNTS, _NEW_NET, _NEW_IPC = 0x10000000, 0x20000, 0x40000000, 0x08000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV, _MNT_DETACH = 4096, 16384, 1 << 18, 2, 4, 2
_PIVOT_ROOT = (155, 41)
_MOUNT_SETATTR, _RECURSIVE = 442, 0x8000
_READ_ONLY = struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0)  # and no set-uid, no devices
_NOBODY = 65534


def namespaces(readable: list[str]) -> bool:
    """No network, nobody's uid, and a file system that holds `readable` alone, all of it read-only.

    The process must have one thread. `readable` are absolute paths, none inside another.
    """
    if _COLUMN is None:
        return False
    uid, gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(_NEW_USER | _NEW_MOUNTS | _NEW_NET | _NEW_IPC):
        return False
    try:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_NOBODY} {uid} 1")
        _write("/proc/self/gid_map", f"{_NOBODY} {gid} 1")
        return _own_root(readable, _PIVOT_ROOT[_COLUMN])
    except OSError:
        return False


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 (pathlib takes 5 ms to import)
        file.write(text)


def _mount(what: str, where: str, kind: str, flags: int, options: str = "") -> bool:
    arguments = (what.encode(), where.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    return bool(_LIBC.mount(*arguments) == 0)


def _own_root(readable: list[str], pivot_root: int) -> bool:
    """A small root of memory with `readable` bound into it; the machine's own root is let go."""
    root = "/proc"  # a directory that is always there; in this namespace the new root covers it
    if not _mount("none", "/", "", _MS_REC | _MS_PRIVATE):
        return False
    if not _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755"):
        return False
    for path in readable:
        here = root + path
        os.makedirs(os.path.dirname(here), exist_ok=True)  # noqa: PTH103, PTH120
        if os.path.islink(path):  # noqa: PTH114
            os.symlink(os.readlink(path), here)  # noqa: PTH115, PTH211
            continue
        if os.path.isdir(path):  # noqa: PTH112
            os.mkdir(here)  # noqa: PTH102
        else:
            os.close(os.open(here, os.O_CREAT | os.O_WRONLY))
        if not _mount(path, here, "", _MS_BIND | _MS_REC):
            return False
    os.chdir(root)
    if _syscall(pivot_root, b".", b".") or _LIBC.umount2(b".", _MNT_DETACH):
        return False
    os.chdir("/")
    return _syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _RECURSIVE, _READ_ONLY, len(_READ_ONLY)) == 0


# ---------------------------------------------------------------- Landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on both machines
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


def landlock(readable: list[str]) -> bool:
    """Nothing is opened but what lies below `readable`, and that only to read; what is open stays so.

    Not covered: whether a path exists, and its size and owner, can still be asked.
    """
    version = _syscall(_CREATE_RULESET, 0, 0, 1) if _COLUMN is not None else -1
    if version < 1:
        return False
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # moving, truncating, ioctl came later
    # files; TCP (bind, connect); sockets without a path and signals to processes outside
    handled = struct.pack("QQQ", (1 << rights) - 1, 3, 3)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _syscall(_CREATE_RULESET, handled, len(handled), 0)
    if rules < 0:
        return False
    try:
        return all(_allow(rules, path) for path in readable) and _syscall(_RESTRICT_SELF, rules, 0) == 0
    except OSError:
        return False
    finally:
        os.close(rules)


def _allow(rules: int, path: str) -> bool:
    at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    allowed = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE  # noqa: PTH112
    added = _syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", allowed, at), 0) == 0
    os.close(at)
    return added


# ---------------------------------------------------------------- seccomp

# What a program that computes needs: (x86_64, aarch64), None where that machine has no such call. All else is
# refused: sockets, processes, threads, signals, changes of files, limits and privileges, and calls to come.
_ALLOWED: dict[str, tuple[int, int | None]] = {
    # what is open
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "write": (1, 64), "writev": (20, 66),
    "lseek": (8, 62), "close": (3, 57), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72),
    # files, which only the other walls keep from being any file
    "open": (2, None), "openat": (257, 56), "getdents64": (217, 61), "getcwd": (79, 17), "stat": (4, None),
    "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    # memory
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "brk": (12, 214),
    "madvise": (28, 233), "futex": (202, 98),
    # its own signals and its end
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
    # clocks and who it is
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "sched_yield": (24, 124), "getrusage": (98, 165), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179), "sched_getaffinity": (204, 123),
    "getrandom": (318, 278),
}  # fmt: skip

_EPERM = 1
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of the filter's language, see <linux/filter.h>
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | _EPERM, 0x80000000
_ARCHITECTURE = (0xC000003E, 0xC00000B7)


def seccomp() -> bool:
    """Only the calls above from here on; any other one fails with EPERM. Needs `no_new_privileges`."""
    if _COLUMN is None:
        return False
    program = [
        (_LOAD, 0, 0, 4),  # the architecture: another one's numbers mean other calls
        (_IF_EQUAL, 1, 0, _ARCHITECTURE[_COLUMN]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
    ]
    for numbers in _ALLOWED.values():
        if (number := numbers[_COLUMN]) is not None:
            program += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _REFUSE))
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    return _prctl(22, 2, ctypes.c_char_p(head))
