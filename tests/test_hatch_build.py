import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the build hook is called by hatchling")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def hook(tmp_path, monkeypatch):
    """The hook, with a compiler that writes a file instead of compiling."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build = module._build_module(ROOT)
    monkeypatch.delenv("GPUNN_BUILD_NATIVE", raising=False)
    monkeypatch.setattr(build, "compiler", lambda: "c++")
    monkeypatch.setattr(build, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "build", lambda sources, level, path, cxx: path.write_text(level))
    monkeypatch.setattr(module, "_build_module", lambda root: build)
    hook = module.CustomBuildHook(str(ROOT), {}, None, None, str(tmp_path), "wheel")
    return hook, build


def run(hook, version="standard"):
    data = {"force_include": {}, "pure_python": True}
    hook.initialize(version, data)
    return data


def test_a_library_for_each_instruction_set(hook):
    hook, build = hook
    data = run(hook)
    assert sorted(data["force_include"].values()) == [
        f"gpunn/_native/gpunn-x86_64-{level}.so" for level in ("v2", "v3", "v4")
    ]
    assert all(Path(path).exists() for path in data["force_include"])
    assert not data["pure_python"] and data["tag"].startswith("py3-none-")
    assert "-" not in data["tag"].removeprefix("py3-none-")
    hook.finalize("standard", data, "")
    assert not any(Path(path).exists() for path in data["force_include"])


def test_what_cannot_be_compiled_is_left_out(hook, monkeypatch, capsys):
    hook, build = hook

    def fail(sources, level, path, cxx):
        raise build.BuildError("unknown flag")

    monkeypatch.setattr(build, "build", fail)
    assert run(hook) == {"force_include": {}, "pure_python": True}
    assert "unknown flag" in capsys.readouterr().err
    hook.finalize("standard", {}, "")


@pytest.mark.parametrize("why", ["editable", "switched off", "no compiler", "other processor"])
def test_a_pure_wheel(hook, monkeypatch, why):
    hook, build = hook
    if why == "switched off":
        monkeypatch.setenv("GPUNN_BUILD_NATIVE", "0")
    if why == "no compiler":
        monkeypatch.setattr(build, "compiler", lambda: None)
    if why == "other processor":
        monkeypatch.setattr(build, "machine", lambda: "riscv64")
    data = run(hook, "editable" if why == "editable" else "standard")
    assert data == {"force_include": {}, "pure_python": True}
    hook.finalize("standard", data, "")
