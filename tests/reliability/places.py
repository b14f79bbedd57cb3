"""Places that cannot be written, or not for long: made in a child process, so that nothing is left of them."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

from .harness import ended, forked

NEW_NAMESPACE, NEW_USER = 0x00020000, 0x10000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
NOBODY = 65534


def _called(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def enter_namespace() -> None:
    """Let this process mount what it likes, seen by nobody else and gone when it ends."""
    user, group = os.getuid(), os.getgid()
    _called("unshare", NEW_NAMESPACE if user == 0 else NEW_NAMESPACE | NEW_USER)
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _called("mount", b"none", b"/", None, ctypes.c_ulong(RECURSIVE | PRIVATE), None)


def mount_small(path: Path, size: str) -> None:
    """A disk in memory that is soon full."""
    path.mkdir(exist_ok=True)
    _called("mount", b"tmpfs", bytes(path), b"tmpfs", ctypes.c_ulong(0), f"size={size}".encode())


def mount_read_only(path: Path) -> None:
    """Make a directory one that nobody can write to, not even root."""
    _called("mount", bytes(path), bytes(path), None, ctypes.c_ulong(BIND), None)
    _called("mount", None, bytes(path), None, ctypes.c_ulong(BIND | REMOUNT | READ_ONLY), None)


def become_nobody() -> None:
    """Give up root's right to write everywhere, if it is there."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def can_mount() -> bool:
    """Whether this system lets a process mount for itself."""
    if not hasattr(os, "fork") or not Path("/proc/self/ns/mnt").exists():
        return False

    def attempt() -> None:
        try:
            enter_namespace()
            mount_small(Path("/tmp"), "4k")
        except OSError as error:
            assert error.errno in {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOSPC, errno.EUSERS}
            raise SystemExit(2) from None

    return ended(forked(attempt)) == 0


def in_place(task: Callable[[], object]) -> None:
    """Do a task in a child of its own and pass on its failure, which it prints."""
    assert ended(forked(task)) == 0
