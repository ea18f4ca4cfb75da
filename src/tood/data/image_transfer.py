"""How image files get into a new folder, each with the stamp that it is known by afterwards."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from tood.choices import ImageTransfer
from tood.manifest import FileStamp

# What a file system answers that cannot make a hard link here.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES, errno.ENOSYS)


def transfer_image(source: Path, target: Path, transfer: ImageTransfer) -> FileStamp:
    """Place an image file at `target`, whose folder is made if need be; only a copy is read.

    Raises:
        OSError: if it cannot be placed, or there is anything of that name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    real = source.resolve()
    if os.path.lexists(target):  # written over, a hard link would change the picture that it is of
        raise FileExistsError(errno.EEXIST, f"two images would have the name {target.name}")
    if transfer is ImageTransfer.SYMLINK:
        target.symlink_to(real)
        return FileStamp.of(target)
    if transfer is ImageTransfer.HARDLINK:
        try:
            os.link(real, target)
            return FileStamp.of_hard_link(target, real)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    shutil.copyfile(real, target)
    return FileStamp.of(target)  # from memory, where it is now
