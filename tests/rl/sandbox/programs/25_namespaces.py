# {"verdict": ["DENIED"]}
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def show(name, result):
    print(name, result, os.strerror(ctypes.get_errno()) if result < 0 else "")
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000):
    show("unshare", libc.unshare(flag))
show("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
show("umount", libc.umount2(b"/proc", 2))
show("chroot", libc.chroot(b"/tmp"))
show("setns", libc.setns(0, 0))
show("pivot_root", libc.syscall(155, b"/", b"/"))
show("clone", libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0))
