"""What starts boxstream with the machine: the systemd unit and the container file."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.engines.cache_folder import cache_folder

REPOSITORY = Path(__file__).resolve().parents[1]
UNIT = REPOSITORY / "configs" / "boxstream.service"
CONTAINER_FILE = REPOSITORY / "configs" / "Containerfile"


def installed(unit: Path, folder: Path) -> Path:
    """A copy of the unit whose /opt/boxstream is a folder that has what the unit starts."""
    python = folder / "boxstream" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    copy = folder / unit.name
    text = unit.read_text(encoding="utf-8")
    assert "ExecStart=/opt/boxstream/.venv/bin/python " in text
    copy.write_text(text.replace("/opt/boxstream", str(folder / "boxstream")), encoding="utf-8")
    return copy


def complaints(unit: Path) -> list[str]:
    """What systemd finds wrong with a unit; what is wrong with the machine's own ones left out."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd here; on Debian: apt install systemd")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    return [line for line in said if unit.name in line]


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    unit = installed(UNIT, tmp_path)
    assert complaints(unit) == []
    text = unit.read_text(encoding="utf-8")
    unit.write_text(text.replace("StateDirectory=", "StateFolder="), encoding="utf-8")
    assert any("Unknown key" in line for line in complaints(unit)), "it would have been found"


def test_the_unit_starts_the_program_with_words_that_it_knows():
    text = UNIT.read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    python, program, *words = shlex.split(command)
    assert (python, program) == (
        "/opt/boxstream/.venv/bin/python",
        "/opt/boxstream/run_stream.py",
    )
    at = words.index("--config") + 1
    assert f"/etc/boxstream/{Path(words[at]).name}" == words[at]
    words[at] = str(REPOSITORY / "configs" / Path(words[at]).name)
    run = [sys.executable, str(REPOSITORY / "run_stream.py"), *words, "--print-config"]
    done = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_unit_lets_the_service_keep_compiled_models_where_it_looks_for_them():
    text = UNIT.read_text(encoding="utf-8")
    (made,) = re.findall(r"^CacheDirectory=(\S+)$", text, re.MULTILINE)
    environment = dict(re.findall(r"^Environment=(\w+)=(\S+)$", text, re.MULTILINE))
    folder = cache_folder("auto", environment)
    assert folder and folder.path == Path("/var/cache") / made  # systemd makes it there


def test_the_container_file_makes_the_folder_for_compiled_models_writable():
    environment = dict(line.split("=") for line in container_lines("ENV"))
    commands = "\n".join(container_lines("RUN"))
    (user,) = container_lines("USER")
    assert f"--owner={user} --mode=700 {environment['XDG_CACHE_HOME']}" in commands
    text = CONTAINER_FILE.read_text(encoding="utf-8")
    assert f":{environment['XDG_CACHE_HOME']} boxstream" in text, "the example mounts it"


def container_lines(word: str) -> list[str]:
    """What stands behind an instruction of the container file."""
    text = CONTAINER_FILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{word}\s+(.*)$", text, re.MULTILINE)


def test_the_container_file_copies_what_there_is_and_all_that_the_package_needs():
    sources = [name for line in container_lines("COPY") for name in shlex.split(line)[:-1]]
    assert [name for name in sources if not (REPOSITORY / name).exists()] == []
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {f"{module}.py" for module in setuptools["py-modules"]}
    needed |= {name.rstrip("*") for name in setuptools["packages"]["find"]["include"]}
    assert needed <= set(sources)


def test_the_container_file_installs_extras_and_starts_a_command_that_the_project_has():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"pip install .*'\.\[([\w,]+)\]'", "\n".join(container_lines("RUN")))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert [line.strip('[]"') for line in container_lines("ENTRYPOINT")] == [*project["scripts"]]
