"""Regroup: from examples to semantic domains (R&B, arXiv 2505.00358, Algorithm 2).

corpus -> vectors (`prepare`) -> a cut (`KMeans`, `WardTree`, `UmapHDBSCAN`) -> edits by hand
(`Editor`) -> domains, their cards, distances and weights. :func:`regroup`, which is also
``rbkit.regroup(...)``, does all of it; each part can be taken alone.
"""

from rbkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Card": ".domains",
        "ClipEmbedder": ".images",
        "Domains": ".domains",
        "EditLog": ".edits",
        "Editor": ".editor",
        "KChoice": ".choose",
        "KMeans": ".cluster",
        "Material": ".material",
        "PixelEmbedder": ".images",
        "ShardedVectors": ".shards",
        "SourceLabels": ".sources",
        "TfidfEmbedder": ".tfidf",
        "TransformerEmbedder": ".transformer",
        "UmapHDBSCAN": ".density",
        "VectorStore": ".store",
        "WardTree": ".hierarchy",
        "FarEval": ".outliers",
        "Drift": ".drift",
        "Weights": ".weights",
        "add_weights": ".weights",
        "assign_new": ".distances",
        "assign_shards": ".shard_job",
        "assign_shards_on_ray": ".ray_job",
        "distance_profile": ".distances",
        "proportions_of": ".weights",
        "smallest_size": ".budget",
        "write_weighted": ".weights",
        "choose_k": ".choose",
        "drift_report": ".drift",
        "embed": ".embedding",
        "embed_corpus": ".embedding",
        "embed_corpus_sharded": ".shard_job",
        "embed_shards": ".shard_job",
        "embed_shards_on_ray": ".ray_job",
        "alignments": ".regret_bound",
        "far_eval": ".outliers",
        "gradient_agreement": ".agreement",
        "judge": ".verdict",
        "make_cards": ".cards",
        "prepare": ".preparation",
        "regroup": ".pipeline",
        "regret": ".regret_bound",
        "sampling_weights": ".weights",
        "settle_noise": ".noise",
        "silhouettes": ".criteria",
        "token_counts": ".tokens",
        "training_table": ".budget",
        "umap_coordinates": ".projection",
    },
    call="regroup",
)
