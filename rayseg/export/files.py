"""Files of an export: each appears whole or not at all, and inside the export's folder."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def draft_of(path: Path) -> Path:
    """What a file is called before it is whole."""
    return path.with_name(f".{path.name}.part")


@contextmanager
def written(root: Path, path: Path, pieces: Iterable[bytes]) -> Iterator[Path]:
    """A draft of a file, on the disk; it takes the file's name when the block ends without error.

    Args:
        root: folder of the export, which may be a link itself.
        path: of the file, in that folder. Folders on the way are made.

    Raises:
        ValueError: a link on the way leads out of the folder.
        OSError: it cannot be written; the text has the file and why.
    """
    draft = draft_of(path)
    try:
        check_inside(root, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)  # of an export that was interrupted, or a link of others
        with draft.open("xb") as file:  # never through a link
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())  # before it has its name, or a power cut leaves it empty
        yield draft
        os.replace(draft, path)
    except OSError as error:
        if error.errno is None:  # the block's own refusal
            raise
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if draft.is_file() and not draft.is_symlink():
            draft.unlink()


def write_once(root: Path, path: Path, content: bytes) -> None:
    """Writes a file of an export; one that is there must hold the same.

    Raises:
        FileExistsError: it holds something else.
        ValueError: a link on the way leads out of the folder.
        OSError: it cannot be written; the text has the file and why.
    """
    check_inside(root, path)
    if not path.exists():
        with written(root, path, [content]):
            return
    if path.read_bytes() != content:
        raise FileExistsError(f"{path} holds something else; choose another folder")


def write_anew(path: Path, content: bytes) -> None:
    """Writes a file, in place of one that is there.

    Raises:
        OSError: it cannot be written; the text has the file and why.
    """
    make_folder(path.parent)
    with written(path.parent, path, [content]):
        pass


def check_inside(root: Path, path: Path) -> None:
    """Refuses a file that a link would put elsewhere.

    Raises:
        ValueError: the text names the link's end.
        OSError: a part of the path cannot be a folder, or a link leads in circles.
    """
    end = path.resolve()
    if not end.is_relative_to(root.resolve()):
        raise ValueError(f"{path} leads out of {root} through a link, to {end}; delete the link")


def make_folder(root: Path) -> None:
    """Makes the folder of an export where it is not there.

    Raises:
        NotADirectoryError: a file is in the way.
        OSError: it cannot be made; the text has the folder and why.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        here = next(one for one in [root, *root.parents] if one.exists() or one.is_symlink())
        raise NotADirectoryError(
            f"cannot export to {root}: expected a folder, found the file {here}; choose another"
        ) from error
    except OSError as error:
        raise OSError(f"cannot make folder {root}: {error.strerror or error}") from error
