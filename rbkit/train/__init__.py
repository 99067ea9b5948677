"""Train: from proportions to a trained model and a run folder.

``MixtureTrainer`` is ``transformers.Trainer`` with a mixture that adapts, and ``Mixture`` its parts
for other trainers; :func:`train` is
the whole way from a corpus and its domains to a run folder in one call, which is also
``rbkit.train(...)``; ``Run`` reads the folder.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "MixtureTrainer": ".trainer",
        "Mixture": ".trainer",
        "train": ".training",
        "contrastive_losses": ".contrastive",
        "Run": ".run",
        "Recorder": ".recorder",
        "list_runs": ".run",
        "Watcher": ".recorder",
        "Ledger": ".ledger",
        "build_model": ".models",
        "PRESETS": ".models",
        "train_tokenizer": ".models",
        "tokenize": ".models",
        "propose": ".propose",
        "sweep_k": ".k_sweep",
        "KSweep": ".k_sweep",
        "gradient_sketches": ".sketches",
        "replay": ".counterfactual",
        "headroom": ".forks",
        "Headroom": ".forks",
        "generate": ".metrics",
        "GenerationMetric": ".metrics",
        "RetrievalMetric": ".metrics",
        "exact_match": ".metrics",
        "token_f1": ".metrics",
        "zero_shot_accuracy": ".metrics",
        "recall_at_k": ".metrics",
    },
    call="train",
)
