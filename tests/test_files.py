"""Files are whole or absent, and paths stay where they belong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import (
    atomic_path,
    cache_dir,
    check_folder,
    fingerprint,
    free_name,
    inside,
    keeping,
    own,
    read_json,
    read_npz,
    saving,
    sha256_of_file,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def failing_write():
        with atomic_path(path) as tmp:
            tmp.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        failing_write()
    assert read_json(path) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_somebody_has_open_is_replaced_a_moment_later(tmp_path, monkeypatch):
    replace, refused = os.replace, iter([PermissionError("in use"), PermissionError("in use")])

    def as_on_windows(old, new):
        if error := next(refused, None):
            raise error
        replace(old, new)

    monkeypatch.setattr("rbkit.files.os.replace", as_on_windows)
    write_json(tmp_path / "run.json", {"status": "ok"})
    assert read_json(tmp_path / "run.json") == {"status": "ok"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})
    code = (
        "import os, sys; from rbkit.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as tmp:\n"
        "    tmp.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_json(path) == {"old": True}


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "read"),
    [(b'{"a": ', read_json), (b"\xff\xfe", read_json), (b"PK\x03\x04 cut", None), (b"", None)],
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path, content, read):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: .*; delete"):
        (read or (lambda p: read_npz(p, "delete it")))(path)


def test_arrays_survive(tmp_path):
    with atomic_path(tmp_path / "a.npz") as tmp:
        np.savez(tmp, x=np.arange(3))
    assert read_npz(tmp_path / "a.npz", "")["x"].tolist() == [0, 1, 2]


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        read_npz(tmp_path / "a.npz", "delete it")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "link/x"])
def test_a_path_that_leaves_its_folder_is_refused(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leaves the folder"):
        inside(root, path)
    assert inside(root, "a/b") == root / "a" / "b"


def test_the_fingerprint_sees_every_boundary():
    assert fingerprint(["a", "b"]) != fingerprint(["ab"])
    assert fingerprint(["a"], ["b"]) != fingerprint(["a", "b"])
    assert fingerprint("a") == fingerprint(b"a")


def test_the_cache_can_be_put_elsewhere(monkeypatch):
    monkeypatch.setenv("RBKIT_CACHE", "~/there")
    assert cache_dir() == Path(os.path.expanduser("~/there")).resolve()
    monkeypatch.delenv("RBKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/x")
    assert cache_dir() == Path("/var/x/rbkit")


@pytest.mark.parametrize("read", [read_json, lambda path: read_npz(path, "x"), sha256_of_file])
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for bad in ("pipe", "zero", "loop", "x" * 5000, "a\0b", "."):
        with pytest.raises(InputError):
            read(tmp_path / bad)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")


def test_json_is_read_to_a_hundred_levels(tmp_path):
    path = tmp_path / "a.json"
    for levels, readable in ((100, True), (102, False), (900, False), (200_000, False)):
        path.write_text("[" * levels + "]" * levels)
        if readable:
            assert isinstance(read_json(path), list)
        else:
            with pytest.raises(InputError, match="nested more than 100 deep"):
                read_json(path)


def test_arrays_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(10_000_000))
    assert len(read_npz(tmp_path / "a.npz", "delete it")["x"]) == 10_000_000
    monkeypatch.setattr("rbkit.files._SMALL", 1e6)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2e6))
    with pytest.raises(InputError, match=r"it would unpack to 0 GB.*; delete it"):
        read_npz(tmp_path / "a.npz", "delete it")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").write_text("{}")
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in (read_json, lambda path: read_npz(path, "x")):
        with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
            read(tmp_path / "a")


def test_a_link_inside_a_folder_may_not_lead_out_of_it(tmp_path):
    root = tmp_path / "root"
    (root / "runs").mkdir(parents=True)
    (tmp_path / "secret").write_text("")
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "runs" / "far").symlink_to(tmp_path)
    (root / "near").symlink_to(root / "runs")
    (root / "loop").symlink_to(root / "loop")
    for name in ("near", "loop", "runs", "nothing"):
        assert own(root, name) == root / name
    for name in ("file", "runs/far", "runs/far/secret", "../secret", "/etc/passwd"):
        with pytest.raises(InputError, match="leads out of root"):
            own(root, name)


@pytest.mark.parametrize(
    "name", ["file", "file/x", "pipe", "loop", "gone", "x" * 300, "a\0b", "\udcff"]
)
def test_what_cannot_become_a_folder_is_refused_before_work_starts(tmp_path, name):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"^run_dir: .*; give another place$"):
        check_folder("run_dir", tmp_path / name)
    (tmp_path / "there").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "there")
    for good in ("there", "linked", "new", "linked/new/newer", "."):
        check_folder("run_dir", tmp_path / good)


def test_a_folder_that_another_process_makes_at_this_moment_is_a_folder(tmp_path, monkeypatch):
    """As the other process of a training does, right after this one has looked."""
    look = Path.stat

    def made_after(path, **options):
        try:
            return look(path, **options)
        finally:
            os.makedirs(tmp_path / "new", exist_ok=True)

    monkeypatch.setattr(Path, "stat", made_after)
    check_folder("run_dir", tmp_path / "new")


def test_a_folder_that_cannot_be_written_to_is_refused_before_work_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    (tmp_path / "there").mkdir()
    check_folder("run_dir", tmp_path / "there" / "new")
    with pytest.raises(InputError, match=rf"^run_dir: {tmp_path} cannot be written to; give"):
        check_folder("run_dir", tmp_path / "new" / "newer")


def test_a_full_disk_is_one_line_for_a_result_and_a_warning_for_a_cache():
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(InputError, match=r"a: cannot be written \(No space.*\); make room"),
        saving("a"),
    ):
        raise full
    with pytest.warns(RbkitWarning, match="the map cannot be written"), keeping("the map"):
        raise full


def test_the_working_folder_has_a_free_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_name(".") == tmp_path.with_name(f"{tmp_path.name}-2")
