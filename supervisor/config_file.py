"""The only reader of the config file: bytes of YAML, JSON or TOML to a checked Config.

All problems of a file come in one ConfigError, structural ones and those of meaning
(`supervisor/config_checks.py`), in the order of the file (design section 4).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path as FilePath
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from shared.config import Config, decode_hook
from shared.errors import ConfigError, Problem
from supervisor.collector import paused_collector
from supervisor.config_checks import NamedFiles, check_config, check_parts
from supervisor.config_json import parse_json
from supervisor.config_positions import Mark, Positions, sort_key
from supervisor.config_read import ReadError, read_file
from supervisor.config_walk import REFUSALS, check_structure
from supervisor.config_yaml import MAX_DEPTH, mark_of_offset, parse_yaml

Format = Literal["yaml", "json", "toml"]

# 40,000 routes of 400 bytes; a file beyond that is a mistake, and must not eat the memory.
MAX_FILE_BYTES: Final = 16 << 20
FORMATS: Final[dict[str, Format]] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".toml": "toml",
}
_HERE: Final = FilePath()
_TOML_PLACE: Final = re.compile(r" \(at line ([0-9]+), column ([0-9]+)\)\Z")
# Where a line ends for the parser that counts them; libyaml keeps to YAML 1.1 here.
_LINES: Final = {
    "yaml": re.compile("\r\n|[\r\n\x85\u2028\u2029]"),
    "json": re.compile("\r?\n"),
}
_BYTE_ORDER_MARKS: Final = (
    (b"\xef\xbb\xbf", "UTF-8"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


class Loaded(Struct, frozen=True):
    """A config that may be served, what is doubtful about it, and where its keys stand."""

    config: Config
    warnings: list[Problem]
    positions: Positions


def load(path: FilePath) -> Loaded:
    """Read and check a config file; its suffix tells the format.

    ConfigError with every problem; also where the file cannot be read.
    """
    name = str(path)
    format_ = FORMATS.get(path.suffix.lower())
    if format_ is None:
        known = ", ".join(FORMATS)
        message = f"unknown suffix '{path.suffix}'" if path.suffix else "the name has no suffix"
        raise _refused(name, message, f"the suffix tells the format: {known}")
    with paused_collector():
        return load_bytes(_read(path), name, format_, path.parent)


def _refused(name: str, message: str, hint: str = "") -> ConfigError:
    return ConfigError([Problem(message=message, code="file", file=name, hint=hint)])


def _read(path: FilePath) -> bytes:
    """The file's bytes, as `supervisor.config_read` gives them."""
    try:
        return read_file(path, MAX_FILE_BYTES)
    except ReadError as error:
        raise _refused(str(path), error.reason, error.hint) from None


def load_bytes(data: bytes, name: str, format_: Format, directory: FilePath = _HERE) -> Loaded:
    """Check the bytes of a config; ``name`` stands for the file in messages.

    ``directory`` is where the relative paths in it start. ConfigError with every problem.
    """
    text = _text(data, name)
    positions = Positions(name, _LINES[format_].split(text) if format_ in _LINES else [])
    files = NamedFiles.of(directory)
    raw, problems = _parse(text, format_, positions)
    if raw is None and not problems:
        raise _refused(name, "the file has no content", "`routes` is needed")
    try:
        config = msgspec.convert(raw, Config, dec_hook=decode_hook)
    except REFUSALS:
        positions.fill()
        problems += check_structure(raw, positions)
        problems += check_parts(raw, positions, files)
        raise ConfigError(_sorted(problems, name)) from None
    found = check_config(config, positions, files)
    problems += found.errors
    if problems:
        raise ConfigError(_sorted(problems, name))
    return Loaded(_placed(config, directory), _sorted(found.warnings, name), positions)


def _sorted(problems: list[Problem], name: str) -> list[Problem]:
    """Those of the config itself first, then list file by list file."""
    return sorted(problems, key=lambda each: (each.file != name, each.file, *sort_key(each)))


def _placed(config: Config, directory: FilePath) -> Config:
    """The config with the paths of its logs absolute: workers know no config file."""
    log, start = config.log, os.path.abspath(directory)
    if log.file is not None:
        log = replace(log, file=os.path.join(start, log.file))
    if log.access is not None:
        path = os.path.join(start, log.access.file)
        log = replace(log, access=replace(log.access, file=path))
    return replace(config, log=log)


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise _refused(name, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise _refused(
                name,
                f"the file begins with a byte order mark ({encoding})",
                "save it as UTF-8 without one",
            )
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode()
        place = mark_of_offset(before, len(before))
        problem = Positions(name).problem_at(
            place, f"byte 0x{data[exc.start]:02x} is no UTF-8; is this a text file?", code="file"
        )
        raise ConfigError([problem]) from None
    if not text.strip():
        raise _refused(name, "the file is empty", "`routes` is needed")
    return text


def _parse(text: str, format_: Format, positions: Positions) -> tuple[Any, list[Problem]]:
    match format_:
        case "yaml":
            return parse_yaml(text, positions)
        case "json":
            return parse_json(text, positions)
        case "toml":
            return _parse_toml(text, positions), []


def _parse_toml(text: str, positions: Positions) -> Any:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = positions.problem_at(
            None, f"nested deeper than {MAX_DEPTH} levels", code="syntax"
        )
        raise ConfigError([problem]) from None
    except ValueError as exc:  # TOMLDecodeError, and int() of too many digits
        reason = str(exc)
        match = _TOML_PLACE.search(reason)
        # The only place that tomllib tells; the lines are needed for this message alone.
        positions.lines = text.split("\n")
        mark = Mark(int(match[1]), int(match[2])) if match else None
        message = _TOML_PLACE.sub("", reason)
        raise ConfigError([positions.problem_at(mark, message, code="syntax")]) from None
