"""Regroup: from examples to semantic domains (R&B, arXiv 2505.00358, Algorithm 2).

corpus -> vectors (`prepare`) -> a cut (`KMeans`, `WardTree`, `UmapHDBSCAN`) -> edits by hand
(`Editor`) -> domains, their cards, distances and weights. :func:`regroup`, which is also
``rbkit.regroup(...)``, does all of it; each part can be taken alone.
"""

from rbkit._lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Card": ".domains",
        "ClipEmbedder": ".embedders",
        "Domains": ".domains",
        "EditLog": ".operations",
        "Editor": ".editor",
        "KChoice": ".choose",
        "KMeans": ".kmeans",
        "Material": ".preparation",
        "PixelEmbedder": ".embedders",
        "ShardedVectors": ".shards",
        "SourceLabels": ".sources",
        "TfidfEmbedder": ".embedders",
        "TransformerEmbedder": ".embedders",
        "UmapHDBSCAN": ".hdbscan",
        "VectorStore": ".embedding",
        "WardTree": ".ward",
        "FarEval": ".distances",
        "Drift": ".drift",
        "Weights": ".weights",
        "add_domain_ids": ".weights",
        "add_weights": ".weights",
        "assign_new": ".distances",
        "distance_profile": ".distances",
        "proportions_of": ".weights",
        "write_weighted": ".weights",
        "choose_k": ".choose",
        "cliff": ".noise",
        "drift_report": ".drift",
        "embed": ".embedding",
        "embed_corpus": ".embedding",
        "embed_corpus_sharded": ".shards",
        "embed_shards": ".shards",
        "embed_shards_on_ray": ".ray_job",
        "alignments": ".regret_bound",
        "exact_neighbours": ".umap",
        "far_eval": ".distances",
        "gradient_agreement": ".agreement",
        "judge": ".choose",
        "make_embedder": ".embedders",
        "prepare": ".preparation",
        "regroup": ".pipeline",
        "regret": ".regret_bound",
        "sampling_weights": ".weights",
        "settle_noise": ".noise",
        "silhouettes": ".choose",
        "token_counts": ".weights",
        "training_table": ".weights",
        "umap_coordinates": ".umap",
    },
    call="regroup",
)
