"""The pack as a store, ComfyUI Manager and Python see it."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_door_opens_without_comfyui_and_imports_nothing_heavy():
    loaded = python(
        "import importlib.util as util, sys\n"
        "spec = util.spec_from_file_location('pack', '__init__.py', submodule_search_locations=['.'])\n"
        "pack = sys.modules['pack'] = util.module_from_spec(spec)\n"
        "spec.loader.exec_module(pack)\n"
        "print(pack.WEB_DIRECTORY, callable(pack.comfy_entrypoint), hasattr(pack, 'NODE_CLASS_MAPPINGS'))\n"
        "print([name for name in ('torch', 'numpy', 'diffusers', 'comfy') if name in sys.modules])\n"
    )
    assert loaded.splitlines() == ["./web True False", "[]"]


def test_the_library_imports_no_training_packages():
    heavy = ("transformers", "diffusers", "accelerate", "PIL", "matplotlib")
    loaded = python(f"import sur_core, sys; print([n for n in {heavy} if n in sys.modules])")
    assert loaded.strip() == "[]"


def absolute_imports(path: Path) -> set[str]:
    """Top-level names a file imports by their own name, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_the_library_works_under_another_name():
    """Inside ComfyUI it is <pack>.sur_core, and ``nodes`` is ComfyUI's: none is imported by its own name."""
    for folder in ("sur_core", "nodes"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not absolute_imports(path) & {"sur_core", "nodes", "train", "tests"}, path


def test_requirements_replace_nothing_of_comfyui():
    lines = (ROOT / "requirements.txt").read_text().split()
    assert set(lines) == {"numpy", "safetensors"}, "no torch, no version pins"


def test_registry_fields():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    name = re.search(r'^name = "(.+)"', text, re.M)[1]
    assert len(name) < 100 and "comfyui" not in name.lower() and re.fullmatch(r"[a-z][a-z0-9-]*", name)
    version = re.search(r'^version = "(.+)"', text, re.M)[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    from sur_core import __version__

    assert __version__ == version and version in (ROOT / "CHANGELOG.md").read_text()
    assert (ROOT / re.search(r'license = \{ file = "(.+?)"', text)[1]).exists()
    for field in ("PublisherId", "DisplayName", "Repository"):
        assert re.search(rf'^{field} = ".+"', text, re.M), field


CODE = ("nodes", "sur_core", "sur_webui", "scripts", "train")


def test_what_is_published_holds_no_tests_and_nothing_the_registry_forbids():
    ignored = (ROOT / ".comfyignore").read_text().split()
    assert {"tests/", "benchmarks/"} <= set(ignored)
    for path in [
        *ROOT.glob("*.py"),
        *(
            p
            for d in ("nodes", "sur_core", "sur_webui", "scripts", "train")
            for p in (ROOT / d).rglob("*.py")
        ),
    ]:
        text = path.read_text(encoding="utf8")
        assert not re.search(r"(?<![.\w])(eval|exec)\(|subprocess|os\.system|weights_only=False", text), path


def test_pip_installs_every_folder_of_the_library():
    """What is in the tree but not listed is missing after pip install, and only there."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    listed = set(re.findall(r'"([\w.]+)"', re.search(r"^packages = \[(.*?)^\]", text, re.M | re.S)[1]))
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "sur_core").rglob("*.py")}
    assert listed == {".".join(folder.parts) for folder in folders}
    data = text.split("[tool.setuptools.package-data]")[1].split("\n[")[0]
    patterns = {
        path
        for package, names in re.findall(r'^"([\w.]+)" = \[(.*?)\]', data, re.M)
        for name in re.findall(r'"(.+?)"', names)
        for path in (ROOT / package.replace(".", "/")).glob(name)
    }
    others = {
        path
        for path in (ROOT / "sur_core").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert others == {path for path in patterns if path.is_file()}


@pytest.mark.skipif(not find_spec("setuptools"), reason="setuptools builds the wheel")
def test_a_wheel_holds_every_file_of_the_library(tmp_path):
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "sur_core", source / "sur_core", ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", *flags, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if name.startswith("sur_core/")}
    files = (path for path in (source / "sur_core").rglob("*") if path.is_file())
    assert there == {path.relative_to(source).as_posix() for path in files}


def copy_pack(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "install.py").write_bytes((ROOT / "install.py").read_bytes())
    return folder / "install.py"


@pytest.mark.parametrize("place", ["custom_nodes", "extensions"])
def test_install_makes_the_folder_for_adapters_and_may_run_twice(tmp_path, place):
    (tmp_path / "models").mkdir()
    script = copy_pack(tmp_path / place / "any-name")
    for _ in range(2):
        done = subprocess.run([sys.executable, script], cwd=script.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "models" / "sur_adapters") in done.stdout
    assert (tmp_path / "models" / "sur_adapters").is_dir()
    for name in ("llmdiff_adapters", "llmdiff_encodings", "llm"):
        assert (tmp_path / "models" / name).is_dir() == (place == "custom_nodes")


def test_install_outside_of_a_program_makes_nothing(tmp_path):
    script = copy_pack(tmp_path / "somewhere" / "pack")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "models/sur_adapters" in done.stdout
    assert not list(tmp_path.rglob("sur_adapters"))


def test_install_says_what_is_missing(tmp_path):
    script = copy_pack(tmp_path / "pack")
    done = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "'safetensors' is missing" in done.stdout and "'torch' is missing" in done.stdout
