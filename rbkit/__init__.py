"""rbkit: regroup a corpus into semantic domains, then balance them while a model trains.

The first open implementation of R&B (arXiv 2505.00358), as a workbench::

    import rbkit as rb

    corpus = rb.load_corpus("wiki")
    domains = rb.regroup(corpus, k=[8, 12, 16])
    run = rb.train(corpus, domains, mixer=rb.RnB(), run_dir="reports/first")

The rooms, in the order of the data: :mod:`rbkit.data`, :mod:`rbkit.regroup`,
:mod:`rbkit.balance`, :mod:`rbkit.train`, :mod:`rbkit.show`, :mod:`rbkit.report`.
Importing ``rbkit`` loads none of them; each public name is imported on first use.
"""

import os

from rbkit._lazy import lazy

# Threads of torch, faiss and scikit-learn that wait for each other spin, on cores that another
# process could use: beside one, work takes several times as long (bench/neighbour.py). Read
# once, when the first of these libraries is loaded; children inherit it.
if os.environ.keys().isdisjoint(("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")):
    os.environ["GOMP_SPINCOUNT"] = "5000"

__version__ = "0.1.0"

__getattr__, __dir__, _public = lazy(
    __name__,
    {
        "load_corpus": ".data.corpus",
        "about": ".data.corpus",
        "regroup": ".regroup",
        "KMeans": ".regroup.kmeans",
        "WardTree": ".regroup.ward",
        "UmapHDBSCAN": ".regroup.hdbscan",
        "Editor": ".regroup.editor",
        "explore": ".show.explorer.explorer",
        "SourceLabels": ".regroup.sources",
        "Domains": ".regroup.domains",
        "TransformerEmbedder": ".regroup.embedders",
        "TfidfEmbedder": ".regroup.embedders",
        "GramTracker": ".balance.gram",
        "MixtureSampler": ".balance.sampler",
        "Observation": ".balance.signals",
        "Mixer": ".balance.mixers.base",
        "Stratified": ".balance.mixers.fixed",
        "Proportional": ".balance.mixers.fixed",
        "Target": ".balance.mixers.fixed",
        "Fixed": ".balance.mixers.fixed",
        "UniMax": ".balance.mixers.fixed",
        "RnB": ".balance.mixers.rnb",
        "RepeatAware": ".balance.mixers.repeat_aware",
        "ADO": ".balance.mixers.ado",
        "Aioli": ".balance.mixers.aioli",
        "DGA": ".balance.mixers.dga",
        "DoGE": ".balance.mixers.doge",
        "DoReMi": ".balance.mixers.dro",
        "GroupDRO": ".balance.mixers.dro",
        "MGDA": ".balance.mixers.torchjd",
        "ODM": ".balance.mixers.odm",
        "SkillIt": ".balance.mixers.skill_it",
        "UPGrad": ".balance.mixers.torchjd",
        "replay": ".train.counterfactual",
        "check_mixer": ".balance.mixers.check",
        "headroom": ".train.forks",
        "Mixture": ".train.trainer",
        "MixtureTrainer": ".train.trainer",
        "train": ".train",
        "Run": ".train.run",
        "live": ".train.loop",
        "attach": ".show.live.panel",
        "scrub": ".show.scrub.scrubber",
        "sweep": ".report.sweep.pipeline",
        "InputError": ".errors",
        "RbkitWarning": ".errors",
    },
)
__all__ = [*_public, "__version__"]
