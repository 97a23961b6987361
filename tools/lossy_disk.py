"""A small ext4 file system whose power can be cut: what was not flushed is lost. Needs root."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN, _WITHOUT_ITS_LOG = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH


class LossyDisk:
    """A file system in a file; `with` mounts it and unmounts it in the end.

    Attributes:
      path: where it is mounted.
    """

    def __init__(self, folder: Path, megabytes: int = 64):
        """Makes the file system in `folder`, which must exist.

        Raises:
          OSError: this is not root, or the kernel mounts no file as ext4.
        """
        self._image, self.path = folder / "disk.img", folder / "disk"
        self.path.mkdir(exist_ok=True)
        with self._image.open("wb") as stream:
            stream.truncate(megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()

    def __enter__(self) -> "LossyDisk":
        """Returns the disk."""
        return self

    def __exit__(self, *error: object) -> None:
        """Unmounts it, whoever still has it open."""
        _run("umount", "--lazy", str(self.path))

    def fail(self) -> None:
        """Cuts the power: nothing reaches the disk any more, and all that asks for it gets EIO."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _WITHOUT_ITS_LOG))
        finally:
            os.close(handle)

    def start_again(self) -> None:
        """Mounts what has reached the disk; no process may have it open any more.

        A copy of it: a process with mounts of its own may keep the failed file system from ending,
        and would then be given it once more.
        """
        self._unmount()
        failed, self._image = self._image, self._image.with_name(f"{time.monotonic_ns()}.img")
        _run("cp", "--sparse=always", str(failed), str(self._image))
        failed.unlink()
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def _unmount(self) -> None:
        for left in range(100, -1, -1):  # the kernel lets go of a killed process' files by and by
            try:
                return _run("umount", str(self.path))
            except OSError:
                if not left:
                    raise
                time.sleep(0.1)


def _run(*command: str) -> None:
    if os.geteuid() or not shutil.which(command[0]):
        raise OSError(f"{command[0]} needs root, and must be installed")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
