"""One process at a time in a run folder: the file `lock`, which all machines that share it see.

It has the holder's host, process and the time that process was started, and is touched every SIGN
seconds. On its own host it is stale once that process is gone; on another one, or where the start
of a process cannot be found out, after PATIENCE seconds without a sign.
"""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
import uuid

from common import InputError

from harness.stopping import Stopped

SIGN, PATIENCE = 10, 300  # seconds


class Lock:
    """Holds a folder from `with Lock(folder) as lock` on to the end of the block.

    Raises InputError, on entering, if another process holds it.
    """

    def __init__(self, folder):
        self.folder, self.path, self.left = folder, folder / "lock", threading.Event()
        self.mine = {"host": socket.gethostname(), "process": os.getpid(),
                     "started": started(os.getpid()), "id": uuid.uuid4().hex}  # fmt: skip

    def __enter__(self):
        if (holder := self.read()) and not self.stale(holder):
            raise InputError(
                f"--resume: {self.folder} is in use by process {holder['process']} on "
                f"{holder['host']}; wait for its end, or stop it"
            )
        if holder:  # of several that see it stale, one moves it away
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path, aside := self.path.with_name(f"lock.{self.mine['id']}"))
                os.remove(aside)
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                json.dump(self.mine, file)
        except FileExistsError:
            line = f"--resume: another process has just taken {self.folder}"
            raise InputError(line) from None
        threading.Thread(target=self.sign, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.left.set()
        if self.read() == self.mine:
            with contextlib.suppress(OSError):
                os.remove(self.path)

    def read(self):
        """What the file says; None if it is not there. One that cannot be read is a stranger's."""
        try:
            holder = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: holder[key] for key in self.mine}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return dict.fromkeys(self.mine, "unknown")

    def stale(self, holder):
        if holder["host"] == self.mine["host"] and self.mine["started"]:
            return started(holder["process"]) != holder["started"]
        try:
            return time.time() - self.path.stat().st_mtime > PATIENCE
        except FileNotFoundError:
            return True

    def sign(self):
        while not self.left.wait(SIGN):
            with contextlib.suppress(OSError):
                if self.read() == self.mine:
                    os.utime(self.path)

    def check(self):
        """Before something is written: raises Stopped if the folder is another's by now, or gone.

        It may be, if this process was suspended for long, or somebody has removed the lock.
        """
        if self.read() != self.mine:
            why = "is another process's by now" if self.folder.exists() else "is no longer there"
            raise Stopped(1, f"{self.folder} {why}; nothing was written to it")


def started(process):
    """When a process of this host was started, as a text to compare; "" if there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(")")[2].split()  # the name may have blanks
        return "" if state == "Z" else fields[18]
    except OSError:
        pass
    if os.path.exists("/proc/self/stat") or os.name != "posix":
        return ""
    command = ["ps", "-o", "lstart=", "-p", str(process)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    return ""
