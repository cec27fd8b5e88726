"""Checks of access rules and of the access log's file; list files are read on the way."""

from __future__ import annotations

from os.path import isdir  # False, and no error, for a path that may not be looked at
from pathlib import Path as FilePath

from shared.address_set import everyone_of
from shared.config import AccessRules, AddressEntry, Config, Identity
from shared.units import short
from supervisor.config_findings import Findings
from supervisor.config_lists import ListFiles
from supervisor.config_positions import Path
from supervisor.config_read import ReadError


def check_security(config: Config, found: Findings, lists: ListFiles) -> None:
    """Fill the entries that name a list file; rules that let nobody in are warned of."""
    places: list[tuple[AccessRules | Identity, Path]] = [(config.security, ("security",))]
    for index, route in enumerate(config.routes):
        path = found.route(index, "security")
        places.append((route.security, path))
        for number, identity in enumerate(route.security.identities):
            places.append((identity, (*path, "identities", number)))
    for rules, path in places:
        if not rules.allow and not rules.block:
            continue
        _check_allow(rules.allow, (*path, "allow"), found, lists)
        for number, entry in enumerate(rules.block):
            place = (*path, "block", number)
            # One identity may well be refused from everywhere.
            if _fill(entry, place, found, lists) and isinstance(rules, AccessRules):
                _warn_of_everyone(entry, place, found)


def check_list_files(rules: object, path: Path, found: Findings, lists: ListFiles) -> None:
    """As `check_security`, for ``rules`` as they stand in the file that are damaged elsewhere."""
    if not isinstance(rules, dict):
        return
    for key in ("allow", "block"):
        entries = rules.get(key)
        for number, value in enumerate(entries if isinstance(entries, list) else []):
            try:
                entry = AddressEntry.read(value)
            except ValueError:
                continue  # the walker reports it
            _fill(entry, (*path, key, number), found, lists)
    identities = rules.get("identities")
    for number, each in enumerate(identities if isinstance(identities, list) else []):
        check_list_files(each, (*path, "identities", number), found, lists)


def check_access_log(config: Config, found: Findings, directory: FilePath) -> None:
    """The path of the access log; nothing is opened, since validating must leave no file."""
    if config.log.access is None:
        return
    path: Path = ("log", "access", "file")
    file = config.log.access.file
    if not file.isprintable():
        found.error(path, f"{short(file)} names no file", code="file")
    elif file.endswith("/") or isdir(directory / file):
        found.error(path, f"{short(file)} is a directory", "name the file", code="file")
    elif not isdir((directory / file).parent):
        message = f"the directory of {short(file)} does not exist"
        found.warn(path, message, "create it before the start", code="file")


def _check_allow(
    entries: list[AddressEntry], path: Path, found: Findings, lists: ListFiles
) -> None:
    filled = [_fill(entry, (*path, number), found, lists) for number, entry in enumerate(entries)]
    if entries and all(filled) and not any(_holds_anyone(entry) for entry in entries):
        found.warn(
            path,
            "nobody may connect: the list files hold no address",
            "without any entry in allow, everyone may",
            code="allows_nobody",
        )


def _warn_of_everyone(entry: AddressEntry, path: Path, found: Findings) -> None:
    for version in everyone_of(entry.addresses):
        message = f"{short(str(entry))} blocks every IPv{version} address"
        found.warn(path, message, code="blocks_everyone")


def _holds_anyone(entry: AddressEntry) -> bool:
    return bool(entry.addresses.v4_first or entry.addresses.v6_first)


def _fill(entry: AddressEntry, path: Path, found: Findings, lists: ListFiles) -> bool:
    """Give an entry the content of its list file; False where that cannot be had."""
    if not entry.is_file:
        return True
    try:
        file, is_new = lists.read(entry.path)
    except ReadError as error:
        message = f"the list file {entry.path}: {error.reason}"
        found.error(path, message, error.hint, code="file")
        return False
    if is_new:
        found.errors += file.problems
    entry.fill(file.addresses)
    return not file.problems
