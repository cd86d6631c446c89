"""Files of ``torch.save`` read without running them, by the machine that reads pickles.

Not by ``torch.load(weights_only=True)``: that inflates compressed members however large they get, makes a real
Namespace of what is stored as one, and before torch 2.6 could be made to run code (CVE-2025-32434).
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from crossfake.errors import UserError
from crossfake.inert.pickles import (
    MAGIC,
    TORCH_FILE,
    Budget,
    Machine,
    empty_storage,
    fill,
    read_old_format,
    storage_key,
)
from crossfake.inert.values import Storage, UnsafeFile, shown

_OLD = MAGIC.to_bytes(10, "little")  # behind protocol, opcode and length


def is_torch_file(head: bytes) -> bool:
    """Whether a file that begins so, 16 bytes at least, is ``torch.save``'s, new or old."""
    return head[:4] == b"PK\x03\x04" or head[4:14] == _OLD


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` stored: plain values, tensors that are views of their storages, and inert objects.

    Raises:
        UnsafeFile: it names a global that is not on the list, has compressed members, or claims more than it holds.
        UserError: it is damaged.
    """
    size = path.stat().st_size
    try:
        if not zipfile.is_zipfile(path):
            return read_old_format(path.read_bytes(), TORCH_FILE, Budget(size))
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, size)
    except UserError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        EOFError,
        OSError,
        RuntimeError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(f"the file is damaged ({shown(error)})", hint="download it again") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnsafeFile("the unpacking of compressed members")  # torch.save never compresses
    if sum(member.file_size for member in members) > size:  # members may share their bytes
        raise UnsafeFile("more bytes than it has")
    pickles = [member.filename for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError("it is no file of torch.save", hint="name a .pkl or .pt file")
    folder = pickles[0].removesuffix(".pkl")
    storages: dict[str, Storage] = {}

    def storage(described: Any) -> Storage:
        key = storage_key(described)
        if key not in storages:
            member = archive.getinfo(f"{folder}/{key}")
            storages[key] = empty_storage(described, member.file_size)
            fill(storages[key].values, archive.read(member))
        return storages[key]

    return Machine(TORCH_FILE, Budget(size), storage).run(io.BytesIO(archive.read(pickles[0])))
