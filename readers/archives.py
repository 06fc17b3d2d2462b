"""A side as one .zip or uncompressed .tar: its images are read by offset, without unpacking."""

import os
import tarfile
import zipfile

from readers.files import Place
from runtime.errors import UserError
from runtime.files import open_regular

PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def list_zip(path):
    """Of each of a zip's members: name, offset, size, packed size, whether deflated. Raises UserError where one cannot
    be read without unpacking."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.compress_type not in PLAIN or info.flag_bits & 1:
                raise UserError(f"{path} is encrypted or packed by an unusual method; pack it anew: zip -r -0")
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            packed = info.compress_size if deflated else info.file_size
            yield info.filename, info.header_offset, info.file_size, packed, deflated


def list_tar(path):
    """The same of a tar's members, which are not packed. A hard link is the file that it names, which comes before it.
    Raises ReadError where the whole is compressed, UserError where a member is a link to elsewhere, or in pieces."""
    files = {}
    with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if info.isreg() and not info.issparse():
                files[info.name] = info.offset_data, info.size
            elif info.islnk() and info.linkname in files:
                files[info.name] = files[info.linkname]
            elif info.islnk() or info.issym() or info.issparse():
                raise UserError(f"{path} holds no content for {info.name}; pack it anew: tar --dereference -cf")
            else:  # a folder, or a device
                continue
            yield info.name, *files[info.name], None, False


ARCHIVES = {".zip": list_zip, ".tar": list_tar}


def is_archive(path):
    return os.path.splitext(path)[1].lower() in ARCHIVES and os.path.isfile(path)


def list_archive(path):
    """The Places of all files in an archive, as paths below it, without those of hidden folders. Raises UserError."""
    path = os.fspath(path)
    whole = os.path.getsize(path)
    try:
        members = list(ARCHIVES[os.path.splitext(path)[1].lower()](path))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, ValueError) as error:
        remedy = "a .tar must not be compressed" if path.lower().endswith(".tar") else "pack it anew"
        raise UserError(f"{path} cannot be read as an archive ({error}); {remedy}") from error
    for name, offset, size, packed, deflated in members:
        if ".." in name.split("/") or "\0" in name:
            raise UserError(f"{path} holds {name!r}, which is no name of a file in it; pack it anew")
        if offset + (size if packed is None else packed) > whole:
            raise UserError(f"{path} is cut short or damaged at {name}; copy it anew")
        if not any(folder.startswith(".") and folder != "." for folder in name.split("/")[:-1]):
            yield Place(f"{path}/{name.lstrip('/')}", path, name, offset, size, packed, deflated)
