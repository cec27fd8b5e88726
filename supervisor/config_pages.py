"""Files that HTTP keys of a config name, read whenever a config is checked: pages and users.

Workers open none of them. A file is read once for a config, however many routes name it.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from shared.config import BasicAuth, Config, Http, PageFile, RouteHttp, decode_hook
from shared.config.http import MAX_BODY_BYTES
from supervisor.config_findings import Findings
from supervisor.config_positions import Path
from supervisor.config_read import ReadError, read_file
from supervisor.config_walk import REFUSALS
from supervisor.users_file import UsersFileError, read_users

_MAX_MIB: Final = MAX_BODY_BYTES >> 20


class PageFiles:
    """The pages and users of one config. ``directory``: where relative paths start."""

    def __init__(self, directory: FilePath) -> None:
        self._directory: Final = directory
        self._pages: dict[str, bytes | ReadError] = {}
        self._users: dict[str, tuple[tuple[str, str], ...] | None] = {}

    def fill(self, file: PageFile | None, path: Path, found: Findings) -> None:
        """Give a page its content; ``path`` is that of its key."""
        if file is None:
            return
        name = str(file)
        if name not in self._pages:
            self._pages[name] = self._read(name)
        content = self._pages[name]
        if isinstance(content, ReadError):
            message = f"the file {name}: {content.reason}"
            found.error(path, message, content.hint, code="file")
        else:
            file.fill(content)

    def _read(self, name: str) -> bytes | ReadError:
        try:
            content = read_file(self._directory / name, MAX_BODY_BYTES)
        except ReadError as error:
            return error
        if len(content) > MAX_BODY_BYTES:
            return ReadError(f"is larger than {_MAX_MIB} MiB", "let a target serve it")
        return content

    def fill_users(self, auth: BasicAuth, path: Path, found: Findings) -> None:
        """Give a route its users; ``path`` is that of ``basic``."""
        file = auth.users_file
        name = str(file)
        where = (*path, "users_file")
        if name not in self._users:
            try:
                self._users[name] = read_users(self._directory / name)
            except UsersFileError as error:
                self._users[name] = None
                for problem in error.problems:
                    if problem.line:
                        found.errors.append(problem)
                    else:
                        message = f"the users file {name}: {problem.message}"
                        found.error(where, message, problem.hint, code="file")
                return
        users = self._users[name]
        if users is None:
            return  # said where it was named first
        if not users:
            message = f"the users file {name} has no user: nobody could use the route"
            found.warn(where, message, code="allows_nobody")
        file.fill(users)


def read_pages(config: Config, found: Findings, files: PageFiles) -> None:
    """Fill all that the config and its enabled routes name."""
    _read_http(config.http, ("http",), found, files)
    for index, route in enumerate(config.routes):
        if not route.enabled:
            continue  # as if it were not written: its files may be missing
        files.fill(route.action.file, found.route(index, "action", "file"), found)
        if route.http is not None:
            _read_http(route.http, found.route(index, "http"), found, files)
        if route.security.auth is not None:
            path = found.route(index, "security", "auth", "basic")
            files.fill_users(route.security.auth.basic, path, found)


def read_damaged_pages(
    route: dict[str, Any], path: Path, found: Findings, files: PageFiles
) -> None:
    """As `read_pages`, for a route as it stands in the file that is damaged somewhere."""
    action = route.get("action")
    if isinstance(action, dict):
        files.fill(_sound(action.get("file"), PageFile), (*path, "action", "file"), found)
    http = _sound(route.get("http"), RouteHttp)
    if http is not None:
        _read_http(http, (*path, "http"), found, files)
    security = route.get("security")
    auth = security.get("auth") if isinstance(security, dict) else None
    basic = _sound(auth.get("basic"), BasicAuth) if isinstance(auth, dict) else None
    if basic is not None:
        files.fill_users(basic, (*path, "security", "auth", "basic"), found)


def _read_http(http: Http | RouteHttp, path: Path, found: Findings, files: PageFiles) -> None:
    for status, file in http.error_pages or ():
        files.fill(file, (*path, "error_pages", status), found)
    if http.maintenance is not None:
        files.fill(http.maintenance.file, (*path, "maintenance", "file"), found)


def _sound(value: object, kind: type[Any]) -> Any:
    """The value as this type; None where it is wrong, which the walker reports."""
    try:
        return msgspec.convert(value, kind, dec_hook=decode_hook)
    except REFUSALS:
        return None
