# %% [markdown]
# # Sweeps: many runs of one notebook, and a page that compares them
#
# **You will** turn a notebook into a function of its parameters, run it over a grid, kill some of
# the runs on purpose, let a second call finish the rest, and read the report without being fooled.
#
# **Time**: about eight minutes on two CPU cores, one of them for the first half. No GPU needed.
#
# One run is an anecdote. A claim about a rule wants the same run with several seeds, and with what
# else the claim should not depend on. That is bookkeeping, and there truth gets lost.

# %% tags=["setup"]
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
from matplotlib.figure import Figure

import rbkit as rb
from rbkit import show
from rbkit.files import free_name
from rbkit.report.collect import collect_runs
from rbkit.report.compare import compare, differences, reach_baseline
from rbkit.report.sweep import job_status, parse_grid, print_status, read_job

# %% tags=["parameters"]
grid: str = "mixer=stratified,target,rnb seed=0..4"  # of the sweep that trains
steps: int = 100  # optimizer steps of each run
jobs: int = 2  # runs at the same time
run_dir: str = ""  # where sweeps are written; a temporary folder if empty
profile: str = "full"  # smoke: a few seconds, to test

# %%
smoke = profile == "smoke"
folder = Path(run_dir or tempfile.mkdtemp(prefix="rbkit-sweeps-"))
folder.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE = "#0072B2", "#D55E00"

# %% [markdown]
# ## 1. A notebook is a function
# Whatever notebook has one cell tagged `parameters`, with types, can be swept. This one asks a
# question about R&B without training anything: each domain gradient is a mean over $n$ examples,
# so $G$ is noisy; how far does the noise move $p = \mathrm{softmax}(\lambda Gq/\lVert Gq\rVert)$?

# %%
PARAMETERS = """n: int = 16  # examples of each domain in a round
lam: float = 3.0  # the rule's lambda
half: Literal["together", "split"] = "together"  # G from all examples, or from two halves
seed: int = 0  # of the noise
run_dir: str = ""  # filled in"""

# %%
MODEL = """rng = np.random.default_rng(seed)
truth = np.random.default_rng(0).normal(size=(8, 50)) + 0.5  # gradients without noise
seen = truth + rng.normal(size=(2, 8, 50)) * 8 / np.sqrt(n / 2)  # two half-rounds
together = seen.mean(axis=0)
G = together @ together.T if half == "together" else (seen[0] @ seen[1].T + seen[1] @ seen[0].T) / 2
"""

# %%
RULE = """q = np.arange(1, 9) / 36
def balance(G):
    v = G @ q
    z = np.exp(lam * v / np.linalg.norm(v))
    return z / z.sum()
distance = 0.5 * np.abs(balance(G) - balance(truth @ truth.T)).sum()
Path(run_dir, "result.json").write_text(json.dumps({"distance": distance}))
distance"""

# %%
SETUP = "import json\nfrom pathlib import Path\nfrom typing import Literal\n\nimport numpy as np"
cell = nbformat.v4.new_code_cell
parts = [cell(SETUP), cell(PARAMETERS, metadata={"tags": ["parameters"]}), cell(MODEL), cell(RULE)]
kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
template = folder / "noise.ipynb"
nbformat.write(nbformat.v4.new_notebook(cells=parts, metadata=kernel), template)

# %% [markdown]
# ## 2. A grid, and what is refused
# Spaces separate parameters, commas separate values, `0..4` is a range.

# %%
noise_grid = "n=4,16,64,256 half=together,split seed=0..9"
if smoke:
    noise_grid = "n=4,64 half=together,split seed=0"
parse_grid(noise_grid)

# %% [markdown]
# papermill only warns of a misspelt name, and passes `1e-3` on as a string. Here everything is
# checked against the types of the cell before anything starts, or is written.

# %%
out = free_name(folder / "noise")  # this lesson wants a folder that is new
for wrong in ("half=both", "n=four", "sed=0..4"):
    try:
        rb.sweep(template, wrong, out)
    except rb.InputError as error:
        print(error)
assert not out.exists()

# %% [markdown]
# A dry run says what would happen.

# %%
plan = rb.sweep(template, noise_grid, out, dry_run=True)

# %% [markdown]
# ## 3. Kill it
# The sweep runs in a process of its own, as the command line would start it. **Predict** what the
# second call has to do, if the kernel of one run is killed, and then the launcher itself.

# %%
command = [sys.executable, "-m", "rbkit.cli", "sweep", str(template), "--grid", noise_grid]
command += ["--out", str(out), "--jobs", str(jobs)]
launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# %%
def jobs_of(status):
    """Job files of the sweep that say so."""
    found = [read_job(path.parent) for path in out.glob("runs/*/job.json")]
    return [job for job in found if job_status(job) == status]


def wait_for(something, seconds=120):
    """Wait until there is something, and return it."""
    until = time.monotonic() + seconds
    while not (found := something()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


# %%
victim = wait_for(lambda: [job for job in jobs_of("running") if job["kernel"]])[0]
# Windows knows no SIGKILL: its SIGTERM is as sudden.
os.kill(victim["kernel"]["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
killed = wait_for(lambda: [job for job in jobs_of("killed") if job["id"] == victim["id"]])[0]
print(killed["id"], "|", killed["status"], "|", killed["error"])
assert killed["attempts"] == 1

# %% [markdown]
# The kernel could not say that it was killed. papermill alone would have left a notebook that looks
# complete; the launcher watches the process, so it knows. Now the launcher, without a chance to
# clean up:

# %%
wait_for(lambda: jobs_of("ok"))
launcher.kill()
launcher.wait()
time.sleep(3)  # its workers and kernels notice, and end
print({name: len(jobs_of(name)) for name in ("ok", "killed", "running", "queued")})
assert not jobs_of("running"), "an orphan"

# %% [markdown]
# Anyone who reads the folder learns the truth: nothing is running, whatever `job.json` said last.

# %%
code = print_status(out)
assert code == 1  # not all runs are ok, and nothing runs

# %% [markdown]
# ## 4. The second call
# The same command again. Runs have names made from their content (the template's code, the
# parameters, the data), so what is done is known to be done.

# %%
before = {job["id"]: job["ended"] for job in jobs_of("ok")}
result = rb.sweep(template, noise_grid, out, jobs=jobs)
result

# %%
assert result.exit_code == 0
assert not jobs_of("killed")
after = {job["id"]: job["ended"] for job in jobs_of("ok")}
assert before.items() <= after.items(), "a run that was done has been done again"
print(f"{len(before)} were done before, {len(after)} are done now")

# %% [markdown]
# ## 5. Results are files
# Never fish numbers out of notebooks. A run folder holds what the run wrote, and the page that the
# sweep ends with links all of them.

# %%
rows = [(job["parameters"], json.loads((out / "runs" / job["id"] / "result.json").read_text()))
        for job in jobs_of("ok")]  # fmt: skip
sizes = sorted({p["n"] for p, _ in rows})
table = {
    (half, n): [r["distance"] for p, r in rows if (p["half"], p["n"]) == (half, n)]
    for half in ("together", "split")
    for n in sizes
}

# %%
with show.rbkit_style():
    ax = Figure(figsize=(5.6, 3.2), layout="constrained").subplots()
    for half, colour in (("together", BLUE), ("split", ORANGE)):
        points = [(n, np.mean(d)) for (which, n), d in table.items() if which == half]
        ax.plot(*zip(*points, strict=True), "o-", color=colour, label=f"G from halves {half}")
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="examples of each domain in a round", ylabel="total variation distance of p")
    ax.legend(frameon=False)
    ax.set_title("Noise in G moves p")
show.set_alt(ax, "Distance of p from its noise-free value against examples, for two estimates.")
show.show(ax)

# %%
assert np.mean(table["together", sizes[0]]) > np.mean(table["together", sizes[-1]])

# %% [markdown]
# ## 6. A sweep that trains
# The template is now `90_run.ipynb`: a corpus, domains, a mixer, a model. Rules and seeds vary.

# %%
fixed = {"corpus": "docstrings", "embedder": "tfidf", "k": 6, "steps": steps, "round_steps": 10}
options = {"parameters": fixed, "jobs": jobs, "baseline": "mixer=Target"}
if smoke:
    grid, options["profile"] = "mixer=target,rnb seed=0..1", "smoke"
    options["parameters"] = {}

# %%
trained = rb.sweep("90_run", grid, folder / "mixers", **options)
assert trained.exit_code == 0

# %% [markdown]
# The page is `index.html` in that folder; it needs no internet, and has all numbers next to it, as
# CSV and Parquet. Everything on it can be had here, too.

# %%
runs = collect_runs([folder / "mixers"])
comparison = compare(runs, baseline="mixer=Target")
sorted(path.name for path in (folder / "mixers").iterdir())

# %%
show.show(show.loss_bands(comparison.variants))

# %% [markdown]
# Bands of seeds overlap even where one rule wins with every seed, because a seed changes the corpus
# split, the weights and the order for all rules alike. **Pairs** are what counts: the same seed,
# two rules, one difference.

# %%
gaps = [gap for gap in differences(comparison).values() if gap is not None]
show.show(show.difference_forest(gaps, baseline="Target"))

# %%
for gap in gaps:
    print(gap.sentence())
assert all(np.isclose(gap.mean, np.mean(gap.values)) for gap in gaps)

# %% [markdown]
# What does it cost to get there? Loss against the price that was measured, and how far a run had to
# train to be as good as the baseline in the end.

# %%
show.show(show.pareto(comparison.variants))

# %%
for reached in reach_baseline(comparison).values():
    print(reached.sentence() if reached else "no pair")

# %%
show.show(show.proportions_by_variant(comparison.variants))

# %% [markdown]
# ## What to remember
# - A notebook with typed parameters is a function; a grid calls it, and refuses nonsense first.
# - *ok* is something a run has to earn: the notebook ended, the result is there. The rest is
#   reported.
# - Ids come from content: a second call does what is missing, and nothing twice.
# - Compare within seeds, look at the interval, count how many comparisons you made.
#
# **Break it**: fill the disk, pull the plug, start two launchers on one folder. Then call
# `rbkit status`. **Go on**: `91_compare.ipynb` makes these figures from any runs of yours.
