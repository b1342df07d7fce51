"""Identities of processes, to recognise the runs that killed ones left open."""

import os
import socket
from pathlib import Path

import psutil

PROC = Path("/proc")


def host() -> str:
    return socket.gethostname()


def own() -> str:
    """This process: host, number and start."""
    return f"{host()}:{os.getpid()}:{_start(os.getpid())}"


def alive(process: str) -> bool:
    """Return whether a process of this host lives. One of another host counts as alive."""
    name, _, rest = process.partition(":")
    number, _, start = rest.partition(":")
    return name != host() or _start(int(number)) == start


def _start(number: int) -> str | None:
    """When a process started, in a form that no change of the clock affects; None if there is no such process."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return None
    except OSError:  # no such process, or no Linux
        try:
            return f"{psutil.Process(number).create_time():.2f}"
        except psutil.NoSuchProcess:
            return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}/{ticks}"
