"""The scrubber in JupyterLab 4 and in Notebook 7, with a kernel behind it."""

import pytest


@pytest.mark.slow
def test_slider_and_replay_reach_the_kernel(lab, write_notebook, write_run, tmp_path):
    write_run(tmp_path / "run", "RnB")
    path = write_notebook(
        tmp_path / "scrub.ipynb",
        "import rbkit as rb\nscrubber = rb.scrub('run', display='live')\nscrubber",
        "import time; time.sleep(0)  # a cell that two d's would delete",
    )
    for app in ("lab", "notebook"):
        page = lab(path, app)
        page.run_all()
        page.wait_for_selector("[data-test=scrubber] [data-test=gram-0]")
        page.focus("[data-test=slider]")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("d")
        page.keyboard.press("d")
        page.wait_for_selector("[data-test=place]:has-text('round 2 of 12')")
        page.click("[data-test=replay-open]")
        page.select_option("[data-test=mixer]", "RnB")
        page.select_option("[data-test=option-prior]", "target")
        page.click("[data-test=replay-run]")
        page.wait_for_selector("[data-test=mixture-replay]", timeout=60_000)
        assert page.evaluate("jupyterapp.shell.currentWidget.content.widgets.length") == 2
        assert page.ask("(scrubber.at, scrubber.replayed.options['prior'])") == "(1, 'target')"
        assert page.noise == []
