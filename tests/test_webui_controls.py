"""The accordion, the infotext, the files and the X/Y/Z axes, in the stand-in of ``webui_host.py``.

Real here: the script, ``sur_webui``, ``sur_core``, files on disk. Standing in: gradio, the web UI's modules
and the X/Y/Z script (``test_webui_forge.py`` has Forge's).
"""

import configparser
import copy
import hashlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from sur_core import save_adapter
from sur_webui.files import adapter_folders, find_adapter, list_adapters, short_hash
from sur_webui.plot import ADAPTER_LABEL, ETA_LABEL, add_axes, find_plot
from sur_webui.settings import CONTROLS, INFOTEXT, settings_of
from tests.helpers import random_adapter, write_authors_file
from tests.webui_host import ROOT, Processing, WebUI

TINY = {"clip_l": 8}

_IMPORTED_BY_THE_SCRIPT = """
import sys, pathlib
sys.path.insert(0, ".")
import sur_webui.plot, sur_webui.request, sur_webui.files, sur_webui.settings
here = str(pathlib.Path.cwd())
found = {name.partition(".")[0] for name, module in sys.modules.items()
         if (getattr(module, "__file__", None) or "").startswith(here + "/")
         and "site-packages" not in module.__file__}
print(*sorted(found - {"__main__"}))
"""


@pytest.fixture
def webui(tmp_path, monkeypatch):
    return WebUI(tmp_path / "models", monkeypatch)


def write(webui, name, seed=0):
    path = webui.models / "sur_adapters" / name
    save_adapter(random_adapter(TINY, seed=seed, depth=1, heads=2, feedforward=8), path)
    return path


def accordion(webui, is_img2img=False):
    script = webui.new_script()
    script.is_img2img = is_img2img
    return script, dict(zip(CONTROLS, script.ui(is_img2img), strict=True))


def test_the_accordion_stands_in_both_tabs_with_what_the_settings_expect(webui):
    write(webui, "b.safetensors"), write(webui, "mine/a.safetensors")
    for is_img2img in (False, True):
        script, controls = accordion(webui, is_img2img)
        assert script.title() == "SUR-adapter"
        assert script.show(is_img2img) is sys.modules["modules.scripts"].AlwaysVisible
        assert controls["adapter"].choices == ["None", "b.safetensors", "mine/a.safetensors"]
        p = Processing()
        assert not settings_of(p, tuple(control.value for control in controls.values())).enabled
        for name in ("eta", "start", "end"):
            assert (controls[name].minimum, controls[name].maximum) == (0.0, 1.0)
        assert len({control.elem_id for control in controls.values()}) == len(CONTROLS)


def test_the_refresh_button_finds_new_files_and_an_empty_folder_is_no_error(webui):
    accordion(webui)
    (refreshed,) = webui.refreshes.values()
    assert refreshed() == {"choices": ["None"]}
    write(webui, "new.safetensors")
    assert refreshed() == {"choices": ["None", "new.safetensors"]}
    (webui.models / "sur_adapters" / "new.safetensors").unlink()
    (webui.models / "sur_adapters").rmdir()
    assert refreshed() == {"choices": ["None"]}


def drawn(webui, *values, p=None):
    """The infotext parameters of a run, as the host writes and reads them: text."""
    p = p or Processing()
    webui.run(p, values, lambda: None)
    return p.extra_generation_params


def pasted(webui, infotext):
    """What the host sets each control to; None where it stays."""
    script, controls = accordion(webui)
    assert [control for control, _ in script.infotext_fields] == list(controls.values())
    assert set(script.paste_field_names) == set(INFOTEXT.values())
    found = {
        name: function(infotext) for name, (_, function) in zip(CONTROLS, script.infotext_fields, strict=True)
    }
    if found["adapter"] is not None:
        assert found["adapter"]["value"] in found["adapter"]["choices"], "or gradio 4 would refuse it"
        found["adapter"] = found["adapter"]["value"]
    return found


@pytest.mark.parametrize(
    "values",
    [
        (True, "a.safetensors", 0.1, False, 0.0, 1.0),
        (True, "a.safetensors", 0.3333, True, 0.25, 0.5),
        (True, "a.safetensors", 0.0, False, 0.0, 0.0),
        (True, "mine/a, b: c.safetensors", 1.0, False, 0.01, 0.99),
    ],
)
def test_settings_go_into_the_infotext_and_come_back(webui, values):
    write(webui, "a.safetensors"), write(webui, "mine/a, b: c.safetensors", seed=1)
    infotext = drawn(webui, *values)
    assert all(isinstance(text, str) for text in infotext.values())
    assert pasted(webui, infotext) == dict(zip(CONTROLS, values, strict=True))


def test_the_infotext_says_what_was_used(webui):
    path = write(webui, "a.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:10]
    infotext = drawn(webui, True, "a.safetensors", 0.1 + 0.2, False, 0.0, 1.0)
    assert infotext == {"SUR adapter": f"a.safetensors [{digest}]", "SUR eta": "0.3"}
    p = Processing()
    assert settings_of(p, (True, "a.safetensors", 0.1 + 0.2)).eta == 0.3


def test_an_image_made_without_the_adapter_switches_it_off(webui):
    assert pasted(webui, {"Steps": "20"}) == {**dict.fromkeys(CONTROLS), "enabled": False}
    assert drawn(webui, False, "a.safetensors", 0.3, False, 0.0, 1.0) == {}


def test_a_renamed_adapter_is_found_by_its_content_and_a_missing_one_is_named(webui):
    write(webui, "other.safetensors", seed=1)
    old = write(webui, "old.safetensors")
    infotext = drawn(webui, True, "old.safetensors", 0.2, False, 0.0, 1.0)
    write(webui, "copy.safetensors").write_bytes(old.read_bytes())
    assert pasted(webui, infotext)["adapter"] == "old.safetensors", "of two with one content the one named"
    old.with_name("copy.safetensors").unlink()
    old.rename(old.with_name("new.safetensors"))
    write(webui, "old.safetensors", seed=2)
    assert pasted(webui, infotext)["adapter"] == "new.safetensors"
    old.with_name("new.safetensors").unlink()
    assert pasted(webui, infotext)["adapter"] == "old.safetensors"
    old.unlink()
    assert pasted(webui, infotext)["adapter"] == "old.safetensors", "the run will say that it is missing"


def test_the_hash_follows_the_file(webui):
    path = write(webui, "a.safetensors")
    first = short_hash(path)
    write(webui, "a.safetensors", seed=1)
    assert short_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:10] != first


def test_damaged_infotext_leaves_the_control(webui):
    found = pasted(webui, {"SUR adapter": "a.pt", "SUR eta": "much", "SUR end": ""})
    assert found["adapter"] == "a.pt" and found["eta"] is None and found["end"] is None


def test_adapters_are_listed_by_name_without_other_files(tmp_path):
    own = tmp_path / "models" / "sur_adapters"
    write_authors_file(own / "deep" / "b.PT", width=8, feedforward=8)
    for name in ("c.safetensors", "a.txt", ".hidden.pt", "deep/.git/d.pt"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).touch()
    (own / "circle").symlink_to(own)
    folders = adapter_folders(tmp_path / "models")
    assert list_adapters(folders) == {
        "c.safetensors": own / "c.safetensors",
        "deep/b.PT": own / "deep" / "b.PT",
    }
    assert find_adapter("deep/b.PT", folders) == own / "deep" / "b.PT"
    with pytest.raises(FileNotFoundError, match="no adapter file 'deep/../c.safetensors' in"):
        find_adapter("deep/../c.safetensors", folders)


@pytest.mark.parametrize("entered", ["", "models", "models/sur_adapters"])
def test_comfyuis_adapters_are_listed_whatever_folder_of_it_is_entered(webui, tmp_path, entered, caplog):
    theirs = tmp_path / "ComfyUI" / "models" / "sur_adapters"
    theirs.mkdir(parents=True)
    (theirs.parent / "checkpoints").mkdir()
    (theirs.parent / "checkpoints" / "sd.safetensors").touch()
    for folder, name in (
        (theirs, "both.pt"),
        (theirs, "theirs.pt"),
        (webui.models / "sur_adapters", "both.pt"),
    ):
        (folder / name).touch()
    (register,) = webui.callbacks["on_ui_settings"]
    register()
    ((option, (default, _label, _section)),) = webui.opts.labels.items()
    assert default == "", "not looked for unless asked"
    setattr(webui.opts, option, f' "{theirs.parents[1] / entered}" ')
    _, controls = accordion(webui)
    assert controls["adapter"].choices == ["None", "both.pt", "theirs.pt"]
    assert "hidden by" in caplog.text
    assert find_adapter("both.pt", webui.script.folders()).parent == webui.models / "sur_adapters"


def test_a_folder_that_is_not_there_is_said_and_does_no_harm(webui, tmp_path, caplog):
    webui.opts.sur_adapter_comfyui = str(tmp_path / "nowhere")
    _, controls = accordion(webui)
    assert controls["adapter"].choices == ["None"] and "there is no folder" in caplog.text


@pytest.mark.parametrize("entered", ["~no-such-user/ComfyUI", "denied"])
def test_a_folder_that_cannot_be_looked_at_is_said_and_the_run_draws_with_the_adapter(
    webui, entered, caplog, monkeypatch
):
    """Another user's folder: looking into it is an error, not a no."""
    is_dir = Path.is_dir

    def denied(path):
        if "denied" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", denied)
    write(webui, "a.safetensors")
    webui.opts.sur_adapter_comfyui = entered
    _, controls = accordion(webui)
    assert controls["adapter"].choices == ["None", "a.safetensors"] and "cannot be used" in caplog.text
    assert "SUR adapter" in drawn(webui, True, "a.safetensors", 0.3, False, 0.0, 1.0)


def test_whatever_fails_while_folders_are_looked_for_stops_the_run(webui, monkeypatch):
    def fail(*_):
        raise RuntimeError("the disk has gone")

    monkeypatch.setattr(webui.script, "adapter_folders", fail)
    p = Processing()
    webui.run(p, (True, "a.safetensors", 0.3, False, 0.0, 1.0), lambda: None)
    assert not webui.reported, "an error in process() is only logged, and the host draws without the adapter"


def test_the_folder_for_adapters_is_made_where_the_hosts_models_are(webui):
    """``--models-dir`` may have moved them out of the program, where install.py cannot know."""
    folder = webui.models / "sur_adapters"
    folder.rmdir()
    for callback in webui.callbacks["on_before_ui"]:
        callback()
    assert folder.is_dir()


def test_a_tiny_eta_is_used_as_it_is(webui):
    """The paper's is 1e-5."""
    settings = settings_of(Processing(), (True, "a.safetensors", 1e-5, False, 0.0, 1.0))
    assert settings.acts and settings.infotext("0")["SUR eta"] == "1e-05"
    assert pasted(webui, settings.infotext("0"))["eta"] == 1e-5


def plot_script():
    plot = ModuleType("xyz_grid.py")
    plot.axis_options = [SimpleNamespace(label="Nothing")]
    plot.AxisOption = lambda label, kind, apply, **more: SimpleNamespace(
        label=label, type=kind, apply=apply, **more
    )
    return plot


def test_the_axes_are_added_once(webui):
    plot = plot_script()
    grid = type("Script", (), {"__module__": "xyz_grid.py"})
    loaded = [SimpleNamespace(script_class=int), SimpleNamespace(script_class=grid, module=plot)]
    assert find_plot(loaded) is plot and find_plot(loaded[:1]) is None
    sys.modules["modules.scripts"].scripts_data = loaded
    for _ in range(2):
        (before_ui,) = webui.callbacks["on_before_ui"]
        before_ui()
    assert [option.label for option in plot.axis_options] == ["Nothing", ETA_LABEL, ADAPTER_LABEL]


def axes(names=("None", "a.pt", "b.pt")):
    plot = plot_script()
    add_axes(plot, lambda: list(names))
    return plot.axis_options[1:]


def test_an_axis_sets_its_own_cell_only_and_switches_the_adapter_on():
    eta, adapter = axes()
    p = Processing()
    cells = [copy.copy(p) for _ in range(3)]
    eta.apply(cells[0], 0.7, [0.7])
    adapter.apply(cells[1], "b.pt", ["b.pt", "None"])
    adapter.apply(cells[2], "None", ["b.pt", "None"])
    off, on = (False, "a.pt", 0.2), (True, "a.pt", 0.2)
    assert settings_of(cells[0], off) == settings_of(cells[0], on) == settings_of(p, (True, "a.pt", 0.7))
    assert settings_of(cells[1], off) == settings_of(p, (True, "b.pt", 0.2))
    assert not settings_of(cells[2], on).enabled
    assert not settings_of(p, off).enabled and settings_of(p, on).eta == 0.2


def test_an_axis_is_checked_before_anything_is_drawn():
    eta, adapter = axes()
    eta.confirm(None, [0.0, 0.5, 1.0]), adapter.confirm(None, ["None", "b.pt"])
    assert adapter.choices() == ["None", "a.pt", "b.pt"]
    with pytest.raises(ValueError, match=r"Eta: eta must be a number from 0 .*found 1\.5"):
        eta.confirm(None, [0.5, 1.5])
    with pytest.raises(FileNotFoundError, match="no adapter file 'c.pt'"):
        adapter.confirm(None, ["c.pt"])


def test_cells_of_a_plot_do_not_write_into_each_others_infotext(webui):
    """The plot's cells are shallow copies: they share the dictionary that becomes the infotext."""
    write(webui, "a.safetensors")
    _, adapter = axes()
    p = Processing()
    with_adapter, without = copy.copy(p), copy.copy(p)
    adapter.apply(with_adapter, "a.safetensors", []), adapter.apply(without, "None", [])
    off = (False, "None", 0.2, False, 0.0, 1.0)
    assert "SUR adapter" in drawn(webui, *off, p=with_adapter)
    assert "SUR adapter" not in drawn(webui, *off, p=without)


def test_an_old_web_ui_is_told_what_it_needs(tmp_path, monkeypatch):
    from tests import webui_host

    monkeypatch.setattr(webui_host, "CFGDenoiserParams", lambda x, text_cond: None)
    with pytest.raises(RuntimeError, match="1.8.0 or newer"):
        WebUI(tmp_path / "models", monkeypatch)


def test_the_extension_can_be_loaded_beside_others():
    """Forge leaves every extension's folder on the path of modules. A name of ours that a host or another
    extension has too would be found in one of the two places by chance; the hosts themselves come first.
    """
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/*.py")}
    at_run_time = {"sur_core", "sur_webui"}
    others = {
        "nodes",
        "train",
        "pictures",
        "small_world",
        "benchmarks",
        "tests",
        "scripts",
        "install",
        "__init__",
    }
    assert ours == at_run_time | others, "think before adding a name: is it one that others use?"
    used = subprocess.run(
        [sys.executable, "-c", _IMPORTED_BY_THE_SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(used.stdout.split()) == at_run_time
    assert [path.name for path in (ROOT / "scripts").glob("*.py")] == ["sur_adapter.py"]
    found = configparser.ConfigParser()
    found.read(ROOT / "metadata.ini")
    assert found["Extension"]["Name"] == "sur-adapter"


@pytest.mark.parametrize("place, said", [("custom_nodes", "press R"), ("extensions", "refresh button")])
def test_install_speaks_of_the_host_it_stands_in_and_makes_no_other_folder(tmp_path, place, said):
    for program in ("host", "other"):
        (tmp_path / program / "models").mkdir(parents=True)
    script = tmp_path / "host" / place / "pack" / "install.py"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "install.py").read_bytes())
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and said in done.stdout
    assert list(tmp_path.rglob("sur_adapters")) == [tmp_path / "host" / "models" / "sur_adapters"]
