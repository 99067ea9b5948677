# %% [markdown]
# # Compare runs
#
# This notebook is a template over runs that are there: a sweep, a folder of runs, single run
# folders. `rbkit run --template notebooks/91_compare.ipynb -p runs=reports/mine --out ...` fills
# it in; or run it here. **You get** paired differences from a baseline, with intervals, and the
# figures behind them. **Time**: seconds.
#
# Change it to your needs: it is a notebook, made of the same parts as the page of `rbkit report`.

# %% tags=["setup"]
# papermill_description=Import
from pathlib import Path
from typing import Literal

import numpy as np

import rbkit as rb
from rbkit import show
from rbkit.report.collect import collect_runs
from rbkit.report.compare import compare, differences, reach_baseline

# %% tags=["parameters"]
runs: tuple[str, ...] | str = ""  # sweeps, folders of runs, run folders; makes four if empty
baseline: str = ""  # what is compared with, such as mixer=Target; chosen if empty
metric: Literal["token", "example", "worst"] = "token"  # final eval loss that differences are of
run_dir: str = ""  # where four runs are made, if none were given
profile: Literal["full", "smoke"] = "full"  # smoke: a few seconds, to test

# %%
if not runs:
    corpus = rb.load_corpus("docstrings", eval_size=40, max_examples=240)
    domains = rb.regroup(corpus, embedder="tfidf", k=3)
    runs = run_dir or "reports/compare"
    small = {"steps": 8, "round_steps": 2, "context": 32, "vocab_size": 512}
    for mixer in ("Target", "RnB"):
        for seed in (0, 1):
            rb.train(corpus, domains, mixer=mixer, run_dir=f"{runs}/{mixer}-{seed}", seed=seed,
                     resume=True, **small)  # fmt: skip
    print("No runs were given, so four small ones were made: what follows says how a comparison")
    print("looks, and nothing about the rules. Two seeds of eight steps show noise.")

# %% [markdown]
# ## What there is

# %%
# papermill_description=Read
found = collect_runs([runs] if isinstance(runs, str) else list(runs))
comparison = compare(found, baseline=baseline or None)
print(f"{len(found)} runs of {len(comparison.variants)} variants")

# %%
assert found, "no runs there"
for run in comparison.unfinished:
    print(f"{run.path.name}: {run.status}, {run.info.get('error') or 'no error said'}")

# %%
print("what varies:", ", ".join(comparison.varied))
print("compared with:", comparison.baseline_label)
print(*comparison.cautions(), sep="\n")

# %% [markdown]
# ## Losses
# A line for each variant, the mean of its seeds, and their band.

# %%
# papermill_description=Figures
show.show(show.loss_bands(comparison.variants))

# %% [markdown]
# Differences within pairs of the same seed, and their 95 % intervals. Each interval is for its own
# comparison: of twenty that mean nothing, one will leave out the zero.

# %%
gaps = [gap for gap in differences(comparison, metric=metric).values() if gap is not None]
show.show(show.difference_forest(gaps, baseline=comparison.baseline_label))

# %%
for gap in gaps:
    print(gap.sentence())
assert all(np.isfinite(gap.mean) for gap in gaps)

# %% [markdown]
# ## Cost
# Final loss against measured cost, and what it took to be as good as the baseline in the end.

# %%
show.show(show.pareto(comparison.variants))

# %%
for reached in reach_baseline(comparison).values():
    print(reached.sentence() if reached else "no pair")

# %% [markdown]
# ## Mixtures
# Where the proportions went, and what the Gram matrices looked like in the end.

# %%
show.show(show.proportions_by_variant(comparison.variants))

# %%
show.show(show.gram_by_variant(comparison.variants))

# %% [markdown]
# One folder, one page, all numbers as CSV and Parquet: `rbkit report` on the same folders.

# %%
sorted({Path(run.path).parent.name for run in found})
