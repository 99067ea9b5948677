"""GPU slots: whose ids, and one for each run."""

from __future__ import annotations

import stat

import pytest

from rbkit.errors import InputError
from rbkit.report.sweep.machine import gpu_environment, gpu_slots


@pytest.mark.parametrize(
    ("visible", "ids"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("3,-1,4", ["3"]), ("GPU-89", ["GPU-89"])],
)
def test_auto_takes_what_this_process_may_see(visible, ids):
    assert gpu_slots("auto", {"CUDA_VISIBLE_DEVICES": visible}) == ids


def test_auto_asks_the_driver(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_slots("auto") == []  # no driver
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA X (UUID: GPU-1)'\necho 'GPU 1: NVIDIA X'\n")
    tool.chmod(stat.S_IRWXU)
    assert gpu_slots("auto") == ["0", "1"]
    tool.write_text("#!/bin/sh\necho 'GPU 0: broken'\nexit 9\n")
    assert gpu_slots("auto") == []


def test_ids_can_be_given_and_given_twice():
    assert gpu_slots("0, 1") == ["0", "1"]
    assert gpu_slots("0,0") == ["0", "0"]
    assert gpu_slots("MIG-GPU-8932/1/0") == ["MIG-GPU-8932/1/0"]


@pytest.mark.parametrize("given", ["", "all", "0,,1", "-1", "0;rm"])
def test_what_is_no_list_is_refused(given):
    with pytest.raises(InputError, match=r"gpus: .* give auto, none, or 0,1"):
        gpu_slots(given)


def test_none_hides_the_gpus_and_auto_without_gpus_changes_nothing():
    assert gpu_environment("none", None) == {"CUDA_VISIBLE_DEVICES": ""}
    assert gpu_environment("auto", None) == {}
