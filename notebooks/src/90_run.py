# %% [markdown]
# # One run: regroup a corpus, balance it while a model trains
#
# What one run did: its parameters, the domains of its corpus, the mixture and the losses while it
# trained, and what that cost. All numbers are in the run folder, in open formats.
#
# **Time**: a minute or two on two CPU cores with the defaults, once texts are embedded.

# %% tags=["setup"]
# papermill_description=Import
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

import rbkit as rb
from rbkit import show
from rbkit.report import RunParameters
from rbkit.report.job import load_inputs, train_options

# %% tags=["parameters"]
corpus: str = "demo"  # built-in name, file, glob or hub id
split: str | None = None  # one split of the data, as all of it
text_column: tuple[str, ...] | str = "text"  # column with the text of an example, or several
messages: str | None = None  # column with chats, in place of text_column
source_column: str = "source"  # column with its human label
eval_sources: dict[str, float] | None = None  # share of each source in the eval set
max_examples: int | None = None  # use at most this many examples
eval_size: int | None = None  # examples held out for evaluation
embedder: str = "minilm"  # minilm, tfidf, or a sentence-transformers id or path
embed: str = "text"  # column that the embedder reads: text, prompt, ...
embedder_prefix: str = ""  # what the embedder wants before each text
max_tokens: int = 64  # tokens of a text that the embedder reads
cluster: Literal["kmeans", "ward", "hdbscan", "sources"] = "kmeans"  # how to make domains
k: tuple[int, ...] | int = (8, 12, 16, 20)  # number of domains, or a grid to choose from
min_cluster_size: int | None = None  # least examples of a domain, with hdbscan
noise: Literal["nearest", "own", "drop"] | None = None  # what becomes of hdbscan's noise
max_noise: float | None = None  # at most this share of the examples stays noise
far: Literal["keep", "apart", "outside"] = "keep"  # far eval examples: in q, apart, or outside
unseen: Literal["error", "drop", "nearest", "outside"] = "error"  # eval sources that train lacks
edits: str = ""  # log of edits made by hand, to be repeated
domains: str = ""  # folder of saved domains; new ones if empty
mixer: str = "RnB"  # rule that sets the proportions
mixer_options: dict[str, Any] = {}  # options of the mixer
model: str = "tiny"  # preset, or a causal LM by id or path
vocab_size: int = 4096  # tokens of the tokenizer trained for a preset
trainable_layers: int | None = None  # last blocks that are trained; all if None
context: int = 96  # tokens of a training example
completion_only_loss: bool = False  # train on column completion, after column prompt
packing: bool = False  # pack several examples into a row of the context
steps: int = 300  # optimizer steps
round_steps: int = 25  # steps between two updates of p
batch_size: int = 16  # examples in a step
learning_rate: float | None = None  # peak rate; if None 3e-3 from scratch, else 5e-5
training_args: dict[str, Any] = {}  # more arguments of transformers' trainer
estimator: Literal["sketch", "exact", "grouped"] = "sketch"  # how domain gradients are kept
fraction: float = 1.0  # share of the steps whose gradients are tracked
layer: tuple[str, ...] | str | None = None  # tracked layers; the output layer if None
fidelity_rounds: int = 0  # rounds between two checks of the tracked layer; 0: none
metrics: tuple[Literal["exact_match", "token_f1", "recall_at_1", "recall_at_5"], ...] = ()  # scores
metric_examples: int | None = None  # eval examples to ask; all if None
seed: int = 0  # seed of everything random
resume: bool = False  # continue from the last checkpoint of an unfinished run
overwrite: bool = False  # replace the run that the run folder holds
run_dir: str = ""  # run folder; a new one under reports/ if empty
profile: Literal["full", "smoke"] = "full"  # smoke: seconds, on a part of the corpus

# %% [markdown]
# ## Parameters
# Every value is checked against its type and meaning before anything starts.

# %%
given = RunParameters.from_globals(globals())
params = given.resolved()
usual = RunParameters().to_dict()
changed = {name: value for name, value in params.to_dict().items() if value != usual[name]}
print(f"rbkit {rb.__version__}; of {len(usual)} parameters, those that are not at their defaults:")
pd.DataFrame({"value": {name: str(value) for name, value in changed.items()}})

# %% [markdown]
# ## Corpus and domains
# Examples come with human labels, the *sources*. **Regroup** replaces them by clusters of text
# embeddings, the *domains*; every eval example goes to the nearest one, which gives the target
# proportions $q$.

# %%
# papermill_description=Corpus_and_domains
data, regrouped = load_inputs(params)
regrouped

# %%
assert len(regrouped.train_labels) == len(data["train"])
assert np.isclose(regrouped.q.sum(), 1)

# %%
show.show(show.domain_sizes(regrouped))

# %% [markdown]
# What each domain is about: its most telling terms, and the examples nearest to its centre.

# %%
for card in regrouped.cards:
    print(f"{card.name}  ({card.size:,} train, {card.eval_size:,} eval)")
    print("   ", " ".join(card.nearest[0].split())[:110] if card.nearest else "no example")

# %% [markdown]
# How the number of domains was chosen, where it was not given. On real text the silhouette is
# nearly flat, so its neighbour counts as much: how well do clusterings from other seeds agree?

# %%
if len(regrouped.quality.get("grid") or ()) > 1:
    show.show(show.k_choice(regrouped.quality["grid"], chosen=regrouped.m))

# %% [markdown]
# ## Training
# Each round of $K$ steps ends with the mixer's update of the proportions $p$. For `RnB` that is
# $$p \leftarrow \mathrm{softmax}\left(\lambda \frac{G q}{\lVert G q \rVert_2}\right),$$
# with $G$ the Gram matrix of the domain gradients that the round's steps produced anyway.

# %%
# papermill_description=Training
run = rb.train(data, regrouped, **train_options(params))
run

# %%
assert run.status == "ok", f"the run is {run.status}: {run.info['error']}"
final = run.info["final"]
print(f"eval loss {final['loss_token']:.4f} {run.loss_unit}")
for name, measured in final.get("metrics", {}).items():
    print(f"{name} {measured['value']}")

# %% [markdown]
# ## What happened
# The loss on the training mixture (which changes) and on the eval set (which does not).

# %%
# papermill_description=Figures
show.show(show.loss_curves([run], split="train"))

# %%
show.show(show.loss_curves([run], split="eval"))

# %% [markdown]
# The mixture over time; the bar at the right is the target $q$.

# %%
show.show(show.proportions(run))

# %%
p = run.history["p"]
assert np.allclose(p.sum(axis=1), 1)
assert (p >= 0).all()

# %% [markdown]
# The Gram matrix over time, if the mixer asked for it: red where domains pull the tracked layer
# the same way, blue where they disagree. One scale holds for all frames.

# %%
if "gram" in run.history:
    show.show(show.gram_over_time(run.history, regrouped.names)[0])

# %% [markdown]
# ## What it cost
# Beside a plain training step, by torch's own FLOP counter and by the clock.

# %%
show.show(show.costs([run]))

# %% [markdown]
# Everything above can be rebuilt from the run folder. This notebook is a template: `rbkit run` (or
# papermill) fills in the parameters and executes it in a process of its own; it also runs by hand.

# %%
sorted(path.name for path in Path(run.path).iterdir() if not path.name.startswith("."))
