"""The README's code blocks run, its commands and options exist, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from graftkit.cli import COMMANDS, LazyGroup, cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = "".join(text for language, text in BLOCKS if language == "sh").replace("\\\n", " ")
LINES = [line.split("#")[0].strip() for line in SHELL.splitlines()]
TAKES = {"sweep": ("augment",)}  # commands that take the options of others, too
CALLS = [line for line in (*LINES, *re.findall(r"`(graftkit [^`]+)`", README)) if line.startswith("graftkit ")]


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.split("\n")[0])
def test_python_blocks_run(code: str, tmp_path: Path) -> None:
    (tmp_path / "sample_models").symlink_to(ROOT / "sample_models")
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_there_is_something_to_check() -> None:
    assert len(PYTHON) >= 2
    assert len(CALLS) >= 8


def flags(name: str) -> set[str]:
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("call", CALLS)
def test_commands_and_options_exist(call: str) -> None:
    name, *words = shlex.split(call)[1:]
    assert name in COMMANDS
    known = {flag for each in {name, *TAKES.get(name, ())} for flag in flags(each)}
    asked = {word for word in words if word.startswith("--")} - {"--help"}
    assert asked <= known


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z-]+)", README))))
def test_options_in_the_text_exist(option: str) -> None:
    assert option in {flag for name in COMMANDS for flag in flags(name)}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
    assert targets
    assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE) for target in targets)
