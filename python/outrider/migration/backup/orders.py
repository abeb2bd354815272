"""What the module `agent_backup` does, as one call with typed options and a typed result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from outrider.errors import BackupError
from outrider.host.config import load_config
from outrider.migration.backup.desk import Desk, Failed
from outrider.migration.backup.model import Level, Row, row_of
from outrider.migration.backup.retention import Keep
from outrider.migration.diff import Shown


class Order(Struct, frozen=True):
    """The module's options, by their names there."""

    state: Literal["present", "verified", "restored", "pruned"] = "present"
    name: str | None = None
    levels: list[Level] = field(default_factory=list)
    to: str | None = None
    config_file: str = "/etc/outrider/outriderd.toml"
    folder: str | None = None
    consul_token_file: str | None = None
    consul_program: str | None = None
    keep_daily: int = 7
    keep_weekly: int = 4


class Result(Struct):
    """What was done, or in check mode would be. `failed_backups`: those that could not be made, or are damaged."""

    changed: bool
    backups: list[Row] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: str = ""
    diff: list[Shown] = field(default_factory=list)
    failed_backups: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def carry_out(options: dict[str, Any], check_mode: bool) -> Result:
    """Raises OutriderError where nothing could be done; what could not among others is in the result."""
    order = msgspec.convert({name: value for name, value in options.items() if value is not None}, Order)
    desk = Desk(
        load_config(Path(order.config_file)),
        folder=Path(order.folder) if order.folder else None,
        token_file=order.consul_token_file or "",
        program=Path(order.consul_program) if order.consul_program else None,
    )
    match order.state:
        case "present":
            return _make(desk, order, check_mode)
        case "verified":
            return _verify(desk, order, check_mode)
        case "restored":
            return _restore(desk, order, check_mode)
        case "pruned":
            return _prune(desk, order, check_mode)


def _make(desk: Desk, order: Order, check_mode: bool) -> Result:
    outcome = desk.create(order.name or "", order.levels, check_mode=check_mode)
    new = [f"{done.level} of {done.name}" for done in outcome.done if done.did == "new"]
    after = "".join(f"a new backup of {each}\n" for each in new)
    return Result(
        changed=bool(new),
        backups=[done.backup for done in outcome.done if done.backup],
        made=new,
        diff=[_shown(desk, "", after)] if new else [],
        failed_backups=[*outcome.failed],
        warnings=[*outcome.warnings],
    )


def _verify(desk: Desk, order: Order, check_mode: bool) -> Result:
    if check_mode:
        return Result(False, [*desk.rows(order.name or "")[0]])
    outcome = desk.verify(order.name or "")
    rows = [done.backup for done in outcome.done if done.backup]
    return Result(False, rows, failed_backups=[*outcome.failed], warnings=[*outcome.warnings])


def _restore(desk: Desk, order: Order, check_mode: bool) -> Result:
    if not order.name or len(order.levels) > 1:
        raise BackupError("state is restored: name says what, and levels at most one level of it")
    backup = desk.choose(order.name, order.levels[0] if order.levels else None)
    restored = desk.restore(backup, Path(order.to) if order.to else None, check_mode=check_mode)
    diff = [*restored.diff] or [_shown(desk, "", f"{restored.id} in {restored.into}\n")] if restored.changed else []
    return Result(restored.changed, [row_of(backup)], kept=restored.kept, diff=diff)


def _prune(desk: Desk, order: Order, check_mode: bool) -> Result:
    removed = [*desk.prune(Keep(order.keep_daily, order.keep_weekly), check_mode=check_mode).removed]
    diff = [_shown(desk, "".join(f"{id}\n" for id in removed), "")] if removed else []
    return Result(bool(removed), removed=removed, diff=diff)


def _shown(desk: Desk, before: str, after: str) -> Shown:
    where = str(desk.vault.root)
    return Shown(where, where, before, after)
