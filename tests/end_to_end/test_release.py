"""What a release consists of: the image, the wheel and the sdist, each in an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).resolve().parents[2]
CLASSIFIERS = "import sys, trove_classifiers; print(*set(sys.argv[1:]) - trove_classifiers.classifiers)"
SMALL = (
    *("run", "--intervention", "unsafe_experts", "--limit", "8", "--baselines", "none"),
    *("--capability-limit", "2", "--max-new-tokens", "4", "--set", "training.max_steps=1"),
)
# How pip reaches an index from here; what else this environment says is left out.
REACH = re.compile(r"PIP_(?!CONSTRAINT|REQUIRE)\w+|\w+_proxy|\w+_PROXY|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")

pytestmark = pytest.mark.slow


class Python:
    """An environment with pip alone."""

    def __init__(self, folder: Path, home: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=True)
        self.folder, self.bin, self.home = folder, folder / "bin", home
        self.environment = {name: value for name, value in os.environ.items() if REACH.fullmatch(name)}
        self.environment |= {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(home), "HF_HUB_OFFLINE": "1"}
        self.environment |= {"OMP_NUM_THREADS": "1"}

    def __call__(self, *words: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=cwd or self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder for several gigabytes, gone with the tests."""
    folder = tmp_path_factory.mktemp("release")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tools(place) -> Python:
    """An environment with what the check-list in docs/releasing.md installs."""
    python = Python(place / "tools", place)
    install = [
        python.bin / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "build",
        "twine",
        "trove-classifiers",
    ]
    done = subprocess.run(install, env=python.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def dist(tools, place) -> Path:
    """The wheel and the sdist."""
    tools("python", "-m", "build", "--outdir", place / "dist", ROOT)
    return place / "dist"


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


def copy(sources: list[str], target: Path, context: Path) -> None:
    """Copy as Docker does: of a folder its content."""
    for source in sources:
        if (context / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(context / source, target, dirs_exist_ok=True, ignore=ignored)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(context / source, target)


def replay(dockerfile: Path, python: Python, root: Path, **arguments: str) -> list[str]:
    """Do the steps of a Dockerfile with a Python and below a folder, and return the entry point."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text(encoding="utf-8"))
    folder, entry, values = root, [], dict(arguments)
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        step, _, rest = line.partition(" ")
        if step == "ARG":
            name, _, default = rest.partition("=")
            values.setdefault(name, default)
        elif step == "ENV":
            pairs = dict(pair.split("=", 1) for pair in shlex.split(rest))
            python.environment |= {
                name: str(root / value[1:]) if value.startswith("/") else value
                for name, value in pairs.items()
            }
        elif step == "WORKDIR":
            folder = root / rest.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        elif step == "COPY":
            *sources, target = rest.split()
            copy(sources, folder / target, dockerfile.parent)
        elif step == "RUN":
            environment = {**python.environment, **values}
            done = subprocess.run(
                ["sh", "-c", rest], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{(done.stdout + done.stderr)[-3000:]}"
        elif step == "ENTRYPOINT":
            entry = json.loads(rest)
        else:
            assert step in ("FROM", "USER", "CMD"), line
    return entry


@pytest.fixture(scope="module")
def image(tools, place) -> Python:
    """The Dockerfile's steps, done in an empty environment."""
    python = Python(place / "python", place)
    # From the index that pip uses here, since PyTorch's own need not be at hand.
    assert replay(ROOT / "Dockerfile", python, place / "image", TORCH_INDEX="") == ["harness"]
    return python


def run_demo(python: Python, folder: Path) -> None:
    folder.mkdir()
    summary = json.loads(python("harness", *SMALL, "--json", "--output", folder / "run", cwd=folder))
    assert summary["variants"]["unsafe_experts"]["frozen_unchanged"] is True
    assert (folder / "run" / "report.html").is_file()
    where = python("python", "-c", "import harness; print(harness.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(python.folder)


def test_the_images_steps_install_what_runs_the_demo(image, place):
    run_demo(image, place / "by-image")
    assert (place / "image" / "work").stat().st_mode & 0o777 == 0o777
    frozen = image("python", "-m", "pip", "freeze")
    pins = {line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("#", "")}
    names = {re.sub("[-_.]+", "-", line.partition("==")[0]).lower() for line in frozen.splitlines()}
    pinned = {re.sub("[-_.]+", "-", line.partition("==")[0]).lower() for line in pins}
    assert {name for name in names - pinned if not name.startswith("moe-safety-harness")} == set()


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_uploaded_runs_the_demo(image, kind, place, request):
    file = request.getfixturevalue(kind)
    image("python", "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", file)
    shown = image("python", "-m", "pip", "show", "--files", "moe-safety-harness")
    assert f"Version: {harness.__version__}\n" in shown
    image("python", "-m", "pip", "check")
    run_demo(image, place / f"by-{kind}")


def test_the_wheel_is_the_one_that_the_sdist_builds(sdist, wheel):
    # `build` makes the wheel from the sdist; nothing that a wheel of the checkout carries may be lost on the way.
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        carried = {
            name.replace("harness/_content/", "") for name in archive.namelist() if ".dist-info/" not in name
        }
    assert carried <= held
    assert {"CHANGELOG.md", "Dockerfile", "constraints.txt", "tox.ini", "tests/conftest.py"} <= held
    assert not [name for name in held if name.startswith((".tox", "runs", "site")) or "__pycache__" in name]


def test_index_and_readers_can_use_the_metadata(tools, wheel, sdist):
    tools("python", "-m", "twine", "check", "--strict", wheel, sdist)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found = Parser().parsestr(archive.read(name).decode())
    assert (found["Name"], found["Version"]) == ("moe-safety-harness", harness.__version__)
    assert found["License-Expression"] == "Apache-2.0"
    assert found["License-File"] == "LICENSE"
    assert found["Requires-Python"] == ">=3.11"
    classifiers = found.get_all("Classifier")
    assert tools("python", "-c", CLASSIFIERS, *classifiers).strip() == ""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(found.get_all("Provides-Extra")) == set(extras)
    assert all(url.partition(", ")[2].startswith("https://") for url in found.get_all("Project-URL") or [])
    assert sys.version_info >= (3, 11)
