"""Writes a set of files so that all are valid before any is in place, and nobody reads a secret on the way.

A candidate lies in a folder of its own (0700) beside its destination: on the same file system, so that a rename puts it
in place at once; under its own name, because programs tell a file's format by it; and where no program that reads a
whole folder of configuration finds it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from ansible.module_utils.file_batch import Entry, FileSetError, Plan, owner_ids

PREFIX = ".file_set-"
LEFT_OVER_S = 3600.0
PARENT_MODE = 0o755
VALIDATE_S = 60.0
# The name of a setting in JSON, TOML, YAML or an environment file; only if a value follows.
SETTING = re.compile(r"(?:^|[\[{,])\s*([\"']?)([A-Za-z_][\w.-]*)\1[ \t]*[:=](?=\s*[^\s=])", re.MULTILINE)
SHORT = 3
SEARCHED = ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write(plan: Plan) -> None:
    """Raises FileSetError; until every candidate is valid it leaves everything as it was."""
    made: list[str] = []
    places: dict[str, str] = {}
    try:
        _make_folders(plan.folders, made)
        for file in plan.files:
            _require_program(file)
            _place(file, places)
        for file in plan.files:
            _validate(file, Path(places[os.path.dirname(file.path)], os.path.basename(file.path)))
    except (FileSetError, OSError) as error:
        for place in places.values():
            shutil.rmtree(place, ignore_errors=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise error if isinstance(error, FileSetError) else FileSetError(str(error)) from error
    _commit(plan, places)


def validate_only(plan: Plan, scratch: str) -> None:
    """For check mode: candidates in the folder `scratch`, validated where the program is there."""
    for number, file in enumerate(plan.files):
        if file.validate and _program(file):
            folder = Path(scratch, str(number))
            folder.mkdir(mode=0o700)
            candidate = folder / os.path.basename(file.path)
            _create(candidate, file.content or b"")
            _validate(file, candidate)


def _make_folders(folders: list[Entry], made: list[str]) -> None:
    """Folders that are lacking, with parents, for nobody else until they get their owner. Appends what it made."""
    for folder in folders:
        lacking = [path for path in [folder.path, *map(str, Path(folder.path).parents)] if not os.path.isdir(path)]
        for path in reversed(lacking):
            os.mkdir(path, 0o700)
            made.append(path)
            if path != folder.path:
                os.chmod(path, PARENT_MODE)


def _place(file: Entry, places: dict[str, str]) -> None:
    """Write the file's candidate, with its final owner and mode. `places`: the candidates' folder of each folder."""
    folder = os.path.dirname(file.path)
    if not os.path.isdir(folder):
        raise FileSetError(f"{file.path}: there is no folder {folder}; list it in folders")
    if folder not in places:
        _remove_left_over(folder)
        places[folder] = tempfile.mkdtemp(prefix=PREFIX, dir=folder)
    _create(Path(places[folder], os.path.basename(file.path)), file.content or b"", file)


def _create(path: Path, content: bytes, entry: Entry | None = None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        if entry:
            os.fchown(descriptor, *owner_ids(entry))
            os.fchmod(descriptor, entry.mode)  # after chown, which clears the set-id bits
        os.fsync(descriptor)


def _remove_left_over(folder: str) -> None:
    """Candidates of a run that was killed, old enough to be nobody's any more."""
    for left in Path(folder).glob(f"{PREFIX}*"):
        if time.time() - left.lstat().st_mtime > LEFT_OVER_S:
            shutil.rmtree(left, ignore_errors=True)


def _program(file: Entry) -> str | None:
    return shutil.which(file.validate[0], path=os.environ.get("PATH", "") + SEARCHED)


def _require_program(file: Entry) -> None:
    if file.validate and not _program(file):
        raise FileSetError(f"{file.path}: there is no program {file.validate[0]} to validate it")


def _validate(file: Entry, candidate: Path) -> None:
    if not file.validate:
        return
    command = [word.replace("%s", str(candidate)) for word in [_program(file) or "", *file.validate[1:]]]
    words = " ".join(file.validate).replace("%s", file.path)
    env = {**os.environ, "LC_ALL": "C"}
    pipe, nothing, joined = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
    try:
        ended = subprocess.run(
            command, stdin=nothing, stdout=pipe, stderr=joined, env=env, timeout=VALIDATE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise FileSetError(f"{file.path}: `{words}` did not end within {VALIDATE_S:.0f} s") from None
    if ended.returncode:
        output = ended.stdout.decode(errors="replace").strip().replace(str(candidate), file.path)
        output = masked(output, (file.content or b"").decode(errors="replace")) if file.secret else output
        raise FileSetError(f"{file.path}: `{words}` ended with {ended.returncode}: {output}")


def masked(output: str, secret: str) -> str:
    """The output without any word of the secret file, but for the names of settings, which tell what is wrong."""
    names = {match[2] for match in SETTING.finditer(secret)}
    # With and without =, which also ends what is in base64.
    words = {*re.split(r"[\s\"',;:{}\[\]()]+", secret), *re.split(r"[\s\"',;:{}\[\]()=@]+", secret)}
    for word in sorted(words - names, key=len, reverse=True):
        output = output.replace(word, "(secret)") if len(word) > SHORT else output
    return output


def _commit(plan: Plan, places: dict[str, str]) -> None:
    """Put everything in place. What fails here, a disk for one, leaves each file old or new and says which are new."""
    done: list[str] = []
    try:
        for folder in plan.folders:
            os.chown(folder.path, *owner_ids(folder))
            os.chmod(folder.path, folder.mode)
            done.append(folder.path)
        for file in plan.files:
            folder_name, name = os.path.split(file.path)
            os.replace(os.path.join(places[folder_name], name), file.path)
            done.append(file.path)
        for path in plan.absent:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            done.append(path)
        for parent in {os.path.dirname(path) for path in done}:
            _sync(parent)
    except OSError as error:
        raise FileSetError(str(error), tuple(done)) from error
    finally:
        for place in places.values():
            shutil.rmtree(place, ignore_errors=True)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
