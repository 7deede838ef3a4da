"""Another process that tries to look into one, in every way that the kernel has for that."""

from __future__ import annotations

import subprocess

# What it got, one line for each way: the way, and "read", "done" or why not. Then what it has read.
_SCRIPT = r"""
import ctypes, os, re, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
loot = b""
for name in ("mem", "maps", "environ", "auxv", "syscall"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            if name == "mem":
                # A page that every process has: where its own program begins.
                start = re.search(r"^([0-9a-f]+)-", open(f"/proc/{pid}/maps").read())
                file.seek(int(start[1], 16))
            loot += file.read(4096)
        print(name, "read")
    except OSError as error:
        print(name, error.strerror)
class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(64)
local = Piece(ctypes.addressof(room), 64)
# The address need not be one: who may not look is told so before that is found out.
remote = Piece(4096, 64)
libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
print("process_vm_readv", os.strerror(ctypes.get_errno()))
ATTACH, DETACH, SEIZE = 16, 17, 0x4206
for name, how in (("attach", ATTACH), ("seize", SEIZE)):
    ctypes.set_errno(0)
    if libc.ptrace(how, pid, 0, 0) == 0:
        if how == ATTACH:
            os.waitpid(pid, 0x40000000)
        libc.ptrace(DETACH, pid, 0, 0)
        print(name, "done")
    else:
        print(name, os.strerror(ctypes.get_errno()))
print(loot.hex())
"""
# Of a process that is not dumpable, for everybody but root.
REFUSED = {
    "mem": "Permission denied",
    "maps": "Permission denied",
    "environ": "Permission denied",
    "auxv": "Permission denied",
    "syscall": "Permission denied",
    "process_vm_readv": "Operation not permitted",
    "attach": "Operation not permitted",
    "seize": "Operation not permitted",
}


def intrude(pid: int, uid: int) -> tuple[dict[str, str], bytes]:
    """As a process of that user: how each way ended, and the bytes that it got."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", _SCRIPT, str(pid)],
        user=uid, group=uid, extra_groups=[], capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    *lines, loot = done.stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines), bytes.fromhex(loot)
