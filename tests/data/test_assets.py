import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from rbkit.data import Asset, assets
from rbkit.errors import AssetError, InputError
from rbkit.files import sha256_of_file

pytestmark = pytest.mark.usefixtures("cache")

FILES = {"toy/data.json": b'{"a": 1}' * 1000, "toy/model/w.bin": b"w" * 100, "toy/code.py": b"1/0"}
MEMBERS = {"toy/data.json": "data.json", "toy/model/": "model/"}


def make_wheel(path: Path, files=None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files or FILES).items():
            archive.writestr(name, content)
    return path


def toy_asset(wheel: Path, members=None) -> Asset:
    return Asset(
        name="toy",
        package="toy",
        version="1.0",
        sha256=sha256_of_file(wheel),
        wheel="toy-1.0-py3-none-any.whl",
        size_mb=0.1,
        licence="CC0-1.0",
        attribution="nobody",
        url="https://example.org/toy",
        what="a toy",
        members=members or MEMBERS,
    )


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A wheel on disk that is registered as the asset "toy"."""
    wheel = make_wheel(tmp_path / "made.whl")
    monkeypatch.setitem(assets.REGISTRY, "toy", toy_asset(wheel))
    return wheel


def copying(wheel, calls=None):
    """A fetch that copies `wheel` and notes that it was called."""

    def fetch(asset, folder, progress):
        if calls is not None:
            calls.append(asset.name)
        target = folder / asset.wheel
        target.write_bytes(wheel.read_bytes())
        return target

    return fetch


def no_network(asset, folder, progress):
    raise AssetError("asset toy", "pip could not download it (no network)", f"run {asset.command}")


def changed_files(folder):
    """Files whose sha256 is not the manifest's."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return [
        name for name, facts in files.items() if sha256_of_file(folder / name) != facts["sha256"]
    ]


def leftovers(cache):
    return [p for p in cache.rglob("*") if p.name.startswith(".tmp-")]


def test_get_fetches_once_and_only_the_wanted_files(toy, cache):
    calls = []
    folder = assets.get("toy", fetch=copying(toy, calls), progress=False)
    assert assets.get("toy", fetch=copying(toy, calls), progress=False) == folder
    assert calls == ["toy"]
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {"data.json", "model/w.bin", "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["licence"] == "CC0-1.0"
    expected = hashlib.sha256(FILES["toy/data.json"]).hexdigest()
    assert manifest["files"]["data.json"]["sha256"] == expected
    assert assets.path("toy") == folder
    assert changed_files(folder) == []
    assert leftovers(cache) == []
    assert list((cache / "wheels").glob("*.whl")) == []


def test_licence_and_attribution_are_shown(toy, capsys):
    assets.get("toy", fetch=copying(toy))
    assert "toy: CC0-1.0, nobody <https://example.org/toy>" in capsys.readouterr().err


def test_path_never_fetches_and_names_the_command():
    with pytest.raises(AssetError, match=r"asset wiki: not in .*; run `rbkit assets get wiki`"):
        assets.path("wiki")
    with pytest.raises(InputError, match="asset wikki: unknown; choose from wiki, recipes"):
        assets.path("wikki")


def test_a_wheel_on_disk_serves_without_network_and_is_kept(toy):
    assets.get("toy", wheel=toy, fetch=no_network, progress=False)
    assert toy.is_file()


def test_a_corrupt_wheel_is_refused_and_leaves_nothing(toy, cache, tmp_path):
    raw = bytearray(toy.read_bytes())
    raw[50] ^= 1
    bad = tmp_path / "bad.whl"
    bad.write_bytes(raw)
    with pytest.raises(AssetError, match=r"sha256 is .*\.\.\., pinned is .*`rbkit assets get toy`"):
        assets.get("toy", fetch=copying(bad), progress=False)
    with pytest.raises(AssetError, match="sha256 is"):
        assets.get("toy", wheel=bad, progress=False)
    assert leftovers(cache) == []
    assert not (cache / "assets" / "toy-1.0").exists()
    assert assets.get("toy", fetch=copying(toy), progress=False).is_dir()


def test_a_file_that_is_no_wheel_is_refused(tmp_path, monkeypatch, cache):
    wheel = tmp_path / "made.whl"
    wheel.write_bytes(b"not a zip")
    monkeypatch.setitem(assets.REGISTRY, "toy", toy_asset(wheel))
    with pytest.raises(AssetError, match="not a readable wheel"):
        assets.get("toy", wheel=wheel, progress=False)
    assert leftovers(cache) == []


@pytest.mark.parametrize("evil", ["toy/model/../../../../evil.txt", "toy/model//etc/evil.txt"])
def test_no_member_gets_out_of_the_folder(tmp_path, monkeypatch, cache, evil):
    wheel = make_wheel(tmp_path / "made.whl", {**FILES, evil: b"evil"})
    monkeypatch.setitem(assets.REGISTRY, "toy", toy_asset(wheel, {"toy/model/": ""}))
    with pytest.raises(InputError, match="leaves the folder"):
        assets.get("toy", wheel=wheel, progress=False)
    assert not list(tmp_path.rglob("evil.txt"))
    assert leftovers(cache) == []


def test_without_network_there_is_one_line_with_the_command(toy, cache):
    with pytest.raises(AssetError) as caught:
        assets.get("toy", fetch=no_network, progress=False)
    assert str(caught.value) == (
        "asset toy: pip could not download it (no network); run `rbkit assets get toy`"
    )
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_written_to_is_named(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RBKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file: cannot be written .* set RBKIT_CACHE to another"):
        assets.get("toy", wheel=toy)


def test_what_pip_said_last_is_in_the_error(toy, monkeypatch, tmp_path):
    # an index that is an empty folder: pip itself, and no network
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with pytest.raises(AssetError, match="No matching distribution found for toy") as caught:
        assets.get("toy", progress=False)
    assert "connect to a package index and run `rbkit assets get toy`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pip_fetches_a_wheel_from_an_index(toy, monkeypatch, tmp_path, capsys):
    (tmp_path / "index").mkdir()
    files = {
        **FILES,
        "toy-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
        "toy-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
        "toy-1.0.dist-info/RECORD": b"",
    }
    wheel = make_wheel(tmp_path / "index" / "toy-1.0-py3-none-any.whl", files)
    monkeypatch.setitem(assets.REGISTRY, "toy", toy_asset(wheel))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert (assets.get("toy") / "data.json").read_bytes() == FILES["toy/data.json"]
    assert "fetching toy" in capsys.readouterr().err


def test_a_python_without_pip_says_so():
    assert assets._pip_error("/usr/bin/python: No module named pip\n").endswith("named pip")
    assert assets._pip_error("ERROR: first\nERROR: last\nWARNING: pip is old\n") == "last"


@pytest.mark.parametrize("damage", ["cut", "missing", "manifest", "no manifest"])
def test_a_damaged_cache_is_named_and_get_repairs_it(toy, damage):
    folder = assets.get("toy", fetch=copying(toy), progress=False)
    file = folder / ("manifest.json" if "manifest" in damage else "data.json")
    if damage in ("missing", "no manifest"):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(AssetError, match=rf"{file.name}: .*`rbkit assets get toy --force`"):
        assets.path("toy")
    assert damage != "cut" or "damaged" in next(
        row["problem"] for row in assets.status() if row["asset"] == "toy"
    )
    assert assets.get("toy", fetch=copying(toy), progress=False) == folder
    assert changed_files(folder) == []


def test_force_fetches_again_even_if_nothing_seems_wrong(toy):
    folder = assets.get("toy", fetch=copying(toy), progress=False)
    raw = bytearray((folder / "model" / "w.bin").read_bytes())
    raw[3] ^= 1
    (folder / "model" / "w.bin").write_bytes(raw)
    assert assets.get("toy", fetch=copying(toy), progress=False) == folder
    assert changed_files(folder) == ["model/w.bin"]  # of the same size: contents are not compared
    assert assets.get("toy", fetch=copying(toy), force=True, progress=False) == folder
    assert changed_files(folder) == []


KILLED = """
    import os, signal
    from pathlib import Path
    from rbkit import files
    from rbkit.data import assets
    from test_assets import copying, toy_asset

    wheel = Path({wheel!r})
    assets.REGISTRY["toy"] = toy_asset(wheel)
    fetch = copying(wheel)

    def killed_copy(archive, member, path):
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_fetch(asset, folder, progress):
        (folder / asset.wheel).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_move(staging, folder):
        os.kill(os.getpid(), signal.SIGKILL)

    when = {when!r}
    if when == "unpacking":
        assets._copy = killed_copy
    elif when == "moving":
        files.move_folder = killed_move
    else:
        fetch = killed_fetch
    assets.get("toy", fetch=fetch, progress=False)
"""


@pytest.mark.parametrize("when", ["downloading", "unpacking", "moving"])
def test_a_kill_leaves_nothing_half_made_and_does_not_download_twice(toy, cache, when):
    script = textwrap.dedent(KILLED.format(wheel=str(toy), when=when))
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert leftovers(cache)
    with pytest.raises(AssetError, match="`rbkit assets get toy`"):
        assets.path("toy")
    calls = []
    folder = assets.get("toy", fetch=copying(toy, calls), progress=False)
    assert changed_files(folder) == []
    assert calls == (["toy"] if when == "downloading" else [])
    assert leftovers(cache) == []


def test_two_processes_may_ask_at_once(toy, cache):
    script = f"""
        import time
        from pathlib import Path
        from rbkit.data import assets
        from test_assets import copying, toy_asset

        wheel = Path({str(toy)!r})
        assets.REGISTRY["toy"] = toy_asset(wheel)

        def slow(asset, folder, progress):
            print("fetched", flush=True)
            time.sleep(0.3)
            return copying(wheel)(asset, folder, progress)

        print(assets.get("toy", fetch=slow, progress=False))
    """
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(words) for words in said) == [1, 2]  # one fetched, the other waited
    assert changed_files(Path(said[0][-1])) == []


def test_status_has_one_row_per_asset(toy):
    assets.get("toy", fetch=copying(toy), progress=False)
    rows = {row["asset"]: row for row in assets.status()}
    assert list(rows) == list(assets.REGISTRY)
    assert rows["toy"]["cached"]
    assert not rows["wiki"]["cached"]
    assert rows["wiki"]["problem"] is None
    assert rows["wiki"]["licence"] == "CC BY-SA 4.0"


def test_every_pin_is_complete():
    for name, asset in assets.REGISTRY.items():
        assert name == asset.name
        assert len(bytes.fromhex(asset.sha256)) == 32
        assert asset.version in asset.wheel
        assert asset.members
        assert asset.licence
        assert asset.url.startswith("https://")


def test_only_packaged_models_have_a_folder():
    with pytest.raises(InputError, match="model wiki: not a packaged model"):
        assets.model_folder("wiki")


@pytest.mark.assets
@pytest.mark.parametrize("name", ["wiki", "recipes", "code"])
def test_small_assets_download_as_pinned(name, monkeypatch, real_asset):
    monkeypatch.delenv("RBKIT_CACHE")
    folder = real_asset(name)
    assert changed_files(folder) == []
