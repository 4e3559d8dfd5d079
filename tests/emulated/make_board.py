"""Makes an aarch64 board that this computer emulates: Debian with Python and both runtimes.

    sudo python tests/emulated/make_board.py /var/lib/edgekd-board
    EDGEKD_EMULATED_BOARD=/var/lib/edgekd-board sudo -E pytest -m emulated

Needs root, Debian's ``debootstrap`` and ``qemu-user-static``, a Debian mirror and a package index;
takes four minutes and 900 MB. The folder and those above it must be root's alone to write, which
sshd demands of a root. User-mode emulation computes what the real cores would, bit by bit;
its times mean nothing. tflite-runtime is 2.14 for its aarch64 wheel; onnxruntime 1.20.1 goes with
the numpy 1 that it needs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("numpy<2", "tflite-runtime==2.14.0", "onnxruntime==1.20.1")
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux2014")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# ELF, 64 bit, little-endian, executable or shared, machine 183; F opens the emulator once, so that
# it is found inside the board's root, too.
HANDLER = (
    rb":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    rb":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    rb":/usr/bin/qemu-aarch64-static:F"
)


def main() -> None:
    """Makes the board's root in the folder that the command line names."""
    root = Path(sys.argv[1]).resolve()
    root.mkdir(parents=True, exist_ok=True)
    emulate()
    run("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase",
        "--include=python3,libgomp1", "bookworm", root, MIRROR)  # fmt: skip
    run("chroot", root, "/debootstrap/debootstrap", "--second-stage")
    platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts",
        f"--target={root}/usr/lib/python3/dist-packages", "--python-version=3.11",
        "--only-binary=:all:", *platforms, *PACKAGES)  # fmt: skip
    print(f"{root}: ready")


def emulate() -> None:
    """Has the kernel run aarch64 programs in the emulator, from now until the next start."""
    if not (BINFMT / "register").exists():
        run("mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT)
    if not (BINFMT / "qemu-aarch64").exists():
        (BINFMT / "register").write_bytes(HANDLER)


def run(*command: object) -> None:
    """Runs a program; what it says is shown."""
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    main()
