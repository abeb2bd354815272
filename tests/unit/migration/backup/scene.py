"""One instance with a state folder, and the vault that its backups go into."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from outrider.fleet.spec import Agent
from outrider.host.config import Config
from outrider.host.state import Kept, KeptStore
from outrider.migration.backup.checks import self_check
from outrider.migration.backup.disk import Disk
from outrider.migration.backup.making import Made, make
from outrider.migration.backup.objects import PIECE
from outrider.migration.backup.sources import StateSource
from outrider.migration.backup.vault import Vault
from outrider.registry.layout import AgentDoc, Placed

DAY_S = 86400.0


class Scene:
    """An agent `A` on host `h`. `now`: the clock of everything that is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config("lab", "h", folder / "run", folder / "shim", folder / "log")
        self.kept = Kept(AgentDoc("A", "lab", Agent(module="x", state=True), "v1"), Placed("A-1", "h", "v1"), {})
        KeptStore(self.config.state_dir).save(self.kept)
        self.state = self.config.agent_state / "A-1"
        self.state.mkdir(parents=True)
        self.vault = Vault(self.config.backups)
        self.now = 1_800_000_000.0

    def fill(self) -> None:
        """Everything that may be in a state folder."""
        (self.state / "notes").write_text("one")
        (self.state / "empty").mkdir(mode=0o750)
        (self.state / "run.sh").write_text("#!/bin/sh\n")
        (self.state / "run.sh").chmod(0o755)
        os.symlink("../nowhere", self.state / "link")
        (self.state / "hole").write_bytes(bytes(PIECE) + b"end" + bytes(PIECE))
        with sqlite3.connect(self.state / "memory.db") as database:
            database.execute("CREATE TABLE said (text)")
            database.execute("INSERT INTO said VALUES ('hello')")
        database.close()

    def make(self, disk: Disk | None = None) -> Made:
        """Back it up."""
        vault = Vault(self.vault.root, disk)
        return make(vault, StateSource(self.config, self.kept), self_check(None), lambda: self.now)

    def made(self) -> str:
        """A new backup's id."""
        made = self.make()
        assert made.did == "new"
        assert made.backup
        return made.backup.id

    def object_of(self, content: bytes) -> Path:
        """The object that holds it."""
        return next(path for path in self.vault.objects.rglob("*") if path.is_file() and path.read_bytes() == content)
