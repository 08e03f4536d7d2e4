"""What an importer gets: the wheel, the ranges, the lock, the import, the README's example."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
DECLARED = [text for texts in (PROJECT["dependencies"], *EXTRAS) for text in texts]
REQUIREMENTS = [Requirement(text) for text in DECLARED]


def pinned(name):
    """The `name==version` lines of a file, each with its marker if it has one."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [
        Requirement(line.removesuffix("\\").strip())
        for line in lines
        if re.match(r"[A-Za-z0-9].*==", line)
    ]


def python(*arguments, cwd, check=True):
    """Run a fresh interpreter that sees neither the checkout nor the caller's folder."""
    result = subprocess.run(
        [sys.executable, "-P", *arguments], cwd=cwd, capture_output=True, text=True
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_environment_yml_says_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == sorted(["-e .", *DECLARED])
    assert f"python{PROJECT['requires-python']},<3.14" in environment["dependencies"]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_lock_is_within_the_ranges(version, system):
    environment = {"python_version": version, "python_full_version": f"{version}.9"}
    environment |= {"sys_platform": system, "platform_system": system.capitalize()}
    locked = {}
    for pin in pinned("requirements.lock"):
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            assert name not in locked, f"{name} is locked twice"
            locked[name] = str(pin.specifier).removeprefix("==")
    for requirement in REQUIREMENTS:
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_lock_has_hashes_and_names_no_index():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^-", text, flags=re.MULTILINE), "an option, such as another index"
    for block in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_colab_is_within_the_ranges():
    ships = {canonicalize_name(pin.name): pin for pin in pinned("tests/unit/colab-versions.txt")}
    versions = {name: str(pin.specifier).removeprefix("==") for name, pin in ships.items()}
    assert versions.pop("python") in Requirement("python" + PROJECT["requires-python"]).specifier
    both = [requirement for requirement in REQUIREMENTS if requirement.name in versions]
    assert {"torch", "torchvision", "numpy", "matplotlib"} <= {item.name for item in both}
    for requirement in both:
        assert versions[requirement.name] in requirement.specifier, requirement


def test_citation_has_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"]


def test_changelog_has_the_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_package_has_the_version():
    import vaelib

    assert Version(vaelib.__version__) == Version(PROJECT["version"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder in which the wheel is installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves a build folder behind where it builds
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "vaelib"):
        subprocess.run(["cp", "-R", str(ROOT / name), str(source)], check=True)
    python(
        *("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)),
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    install = ["install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    python("-m", "pip", *install, cwd=folder)
    return site


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(installed):
    # Bytecode is pip's; the package's own files are those of the repository.
    names = {path.name for path in installed.iterdir()}
    assert names == {"vaelib", f"vaelib-{PROJECT['version']}.dist-info"}
    inside, here = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
        for folder in (installed / "vaelib", ROOT / "vaelib")
    )
    inside, here = ({name for name in names if ".pyc" not in name} for names in (inside, here))
    assert inside == here
    assert {"py.typed", "fonts/LICENSE-Sans.txt"} <= inside


@pytest.mark.slow
def test_wheel_imports_and_works_without_the_checkout(installed, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import torch, vaelib\n"
        "model = vaelib.mlp_vae(latent_dim=2, hidden=(8,))\n"
        "print(vaelib.__file__, tuple(model.sample(3).shape))"
    )
    where, shape = python("-c", code, cwd=tmp_path).strip().split(maxsplit=1)
    assert Path(where) == installed / "vaelib/__init__.py"
    assert shape == "(3, 1, 28, 28)"


@pytest.mark.slow
def test_import_loads_only_what_it_needs(tmp_path):
    """Nothing slow, so that vaelib takes little longer than torch: torch's compiler is a second."""
    code = (
        "import sys, torch; torchs = set(sys.modules); import vaelib\n"
        "print(*(set(sys.modules) - torchs))"
    )
    loaded = set(python("-c", code, cwd=tmp_path).split())
    assert "vaelib" in loaded
    slow = {"matplotlib", "pooch", "torchvision", "tqdm", "IPython", "PIL", "sympy"}
    slow |= {"scipy", "sklearn"}
    assert not {name.partition(".")[0] for name in loaded} & slow
    assert not {name for name in loaded if name.startswith(("torch._dynamo", "torch._inductor"))}


def readme_examples():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_readme_examples_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    examples = readme_examples()
    assert examples, "README.md has no ```python example"
    python("-c", "\n".join(examples), cwd=tmp_path)
