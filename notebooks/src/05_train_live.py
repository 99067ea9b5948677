# %% [markdown]
# # Watch a mixture while it trains
#
# **You will** train a small language model with the live panel, stop it in the middle, continue,
# move through the rounds afterwards, compare two runs, and ask what another rule would have done.
#
# **Time**: about four minutes on two CPU cores, less on a GPU (it is used if there is one).
#
# Every picture here is a view of the run folder. Close the tab, kill the kernel: the record stays,
# and every view can be made again from it.

# %% tags=["setup"]
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

import rbkit as rb
from rbkit import show

# %% tags=["parameters"]
corpus_name: str = "demo"  # built-in name, file, glob or hub id
embedder: str = "tfidf"  # tfidf takes seconds; minilm understands more
steps: int = 240  # optimizer steps of each run
round_steps: int = 20  # steps between two updates of the proportions
k: int = 12  # number of domains
run_dir: str = ""  # where runs are written; a temporary folder if empty
profile: str = "full"  # smoke: a few seconds, to test

# %%
smoke = profile == "smoke"
folder = Path(run_dir or tempfile.mkdtemp(prefix="rbkit-live-"))
options = {"steps": steps, "round_steps": round_steps, "checkpoint_rounds": 1}
target = {"recipes": 0.3, "Biology and health sciences": 0.4, "code": 0.2, "Everyday life": 0.1}
wanted = {"eval_sources": target, "eval_size": 600}

# %%
if smoke:
    corpus_name, k = "docstrings", 3
    wanted = {"eval_size": 40, "max_examples": 240}
    options |= {"steps": 8, "round_steps": 2, "context": 32, "vocab_size": 512}

# %%
corpus = rb.load_corpus(corpus_name, **wanted)
domains = rb.regroup(corpus, embedder=embedder, k=k)
"training on", "cuda" if torch.cuda.is_available() else "cpu"

# %% [markdown]
# ## 1. Live
# One word. What you see: the **Gram matrix** of domain gradients (red: a step on one domain helps
# the other; blue: conflict), the **proportions** with the target $q$ next to them, the **losses**,
# and in the line below how many domains the mixture effectively has, how much of $G$ is noise, how
# fast it goes, and what the adapting and the watching cost.
#
# To stop it, press ■ (interrupt the kernel), or put a file named `STOP` into the run folder, from
# anywhere. So that this notebook also runs on its own, a small watcher does that here, half way.
# A run that is there is never replaced unasked; `overwrite=True` asks, so the cell can run twice.


# %%
class StopHalfWay:
    """A watcher: told of a run folder, and after each step that there may be something new."""

    def begin(self, path):
        self.path, self.left = Path(path), options["steps"] // 2

    def look(self):
        self.left -= 1
        if self.left == 0:
            (self.path / "STOP").touch()

    def end(self):
        print("the watcher saw the run end")


# %%
run = rb.train(corpus, domains, mixer="RnB", run_dir=folder / "RnB", live=[True, StopHalfWay()],
               overwrite=True, **options)  # fmt: skip
run

# %% [markdown]
# The run has stopped after a whole step, with a checkpoint; the panel has become a still picture,
# which is what a report or an exported page shows, too.

# %%
assert run.status == "interrupted"
stopped_at = run.info["progress"]["step"]
print("stopped after step", stopped_at, "| checkpoints:",
      sorted(p.name for p in (run.path / "checkpoints").glob("checkpoint-*")))  # fmt: skip

# %% [markdown]
# ## 2. Go on
# `resume=True` continues from the newest checkpoint: the same examples in the same order, as if it
# had never been stopped. **Predict** what the panel shows for the first half.

# %%
run = rb.train(corpus, domains, mixer="RnB", run_dir=folder / "RnB", resume=True, live=True,
               **options)  # fmt: skip

# %% [markdown]
# Is it? The same run once more, without a stop and without looking: every recorded loss must be the
# same number.

# %%
whole = rb.train(corpus, domains, mixer="RnB", run_dir=folder / "RnB-whole", overwrite=True,
                 progress=False, **options)  # fmt: skip
assert whole.metrics() == run.metrics(), "a stopped and resumed run is another run"
assert np.array_equal(whole.history["p"], run.history["p"])

# %%
assert run.status == "ok"
written = [row["step"] for row in run.metrics("train")]
assert written == sorted(set(written)), "a step was recorded twice"
assert len(run.info["resumed"]) == 1
print("rounds:", len(run.history["step"]), "| all of them from one folder")

# %% [markdown]
# ## 3. From anywhere
# The panel is only a view. `rb.attach` opens another one: in this notebook, in one on another
# screen, after the browser was closed, while the run continues or when it is over. In a terminal,
# `rbkit watch` does the same.

# %%
rb.attach(run)

# %% [markdown]
# What did looking cost? Frames are spaced so that they take about 1 % of the time, beside the last
# picture, which is always drawn. The record says what they really took.

# %%
spent, seconds = run.info["watch"]["seconds"], run.info["seconds"]
print(f"watching took {spent:.2f} s of {seconds:.0f} s: {spent / seconds:.2%}")
assert smoke or spent / seconds < 0.02

# %% [markdown]
# ## 4. Move through the rounds
# One slider for three views: the matrix of a round, the proportions it led to, the losses at that
# time. Point at a cell, choose a domain, press play; use the arrow keys.

# %%
scrubber = rb.scrub(run)
scrubber

# %% [markdown]
# Whatever is a widget has a still twin, for paper and for pages without a kernel:

# %%
show.show(scrubber.freeze(n=4))

# %% [markdown]
# The claim of the picture, checked: the proportions of each round are what the rule makes of the
# matrix before. (Domains without an example in a round keep their last estimate, so take a round
# that all of them were in.)

# %%
history = run.history
full = np.flatnonzero((history["counts"] > 0).all(axis=1))
t = int(full[0])
score = history["gram"][t] @ history["q"]
by_hand = np.exp(3.0 * score / np.linalg.norm(score))
assert np.allclose(by_hand / by_hand.sum(), history["p"][t + 1])

# %% [markdown]
# ## 5. Two runs, one slider
# `Target` knows the eval set's shares and never looks at a gradient. It is the baseline to beat.

# %%
baseline = rb.train(corpus, domains, mixer="Target", run_dir=folder / "Target", live="final",
                    overwrite=True, **options)  # fmt: skip

# %%
rb.scrub(run, baseline)

# %%
for each in (run, baseline):
    print(f"{each.name:<7} eval loss per token {each.info['final']['loss_token']:.4f}")

# %% [markdown]
# One seed each: a picture of how the rules differ, and no evidence of which is better. For that,
# see `11_sweeps`.
#
# ## 6. What would another rule have done?
# The matrices are recorded, so rules that look at them can be asked afterwards.

# %%
calm = rb.replay(run, "RnB", {"prior": "target"})
calm

# %%
print("share of examples from other domains, round by round:", calm.distance.round(2))
assert (calm.distance <= 1).all()

# %% [markdown]
# In the scrubber it is a menu: its proportions are shown next to those of the run.

# %%
scrubber.replay("RnB", prior="target")
show.show(scrubber.freeze(n=3))

# %% [markdown]
# ## 7. In your own loop
# No trainer, no `rb.train`: one object before the loop and one line inside it give the same panel,
# the same folder, and all of the views above. Iterating over that object ends the loop when
# somebody asks for it: ■, Ctrl-C, or a file `STOP`.

# %%
rng, m = np.random.default_rng(0), domains.m
p, total = np.full(m, 1 / m), 40 if smoke else 120
with rb.live(folder / "loop", domains, steps=total, mixer="mine", p=p, overwrite=True) as live:
    for step in live:
        loss = 3 + 2 * np.exp(-step / 30) + 0.1 * rng.normal()
        live(loss, tokens=1000, p=p)
        p = 0.98 * p + 0.02 * rng.dirichlet(np.full(m, 0.5))

# %%
mine = rb.Run.open(folder / "loop")
assert mine.status == "ok"
assert len(mine.metrics("train")) > 0
print(json.dumps(mine.info["progress"]))

# %% [markdown]
# ## What to remember
# - The folder is the truth; panel, `attach`, `rbkit watch` and the scrubber are views of it.
# - Stop with ■ or a `STOP` file; `resume=True` continues exactly.
# - Red helps, blue hurts, hatched was not seen; the scale does not change behind your back.
#
# **Break it**: kill the kernel in the middle of training, restart it, and `attach` to the folder:
# what does it say? Then resume. **Go on**: `11_sweeps` runs many of these, and kills some.
