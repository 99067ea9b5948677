"""Images with names in, a page that compares three rules out: python images.py FOLDER."""

import sys

import rbkit as rb
from rbkit.report import write_report

corpus = rb.load_corpus(sys.argv[1])  # captions: the files' names, or a metadata.csv
domains = rb.regroup(corpus, embedder="pixels", k=range(4, 13))
options = {"model": "clip-tiny", "steps": 300, "metrics": ["recall_at_5"]}
for mixer in ("Stratified", "Target", "RnB"):
    folder = f"reports/images/{mixer}"
    rb.train(corpus, domains, mixer=mixer, **options, run_dir=folder, resume=True)
page = "reports/images/index.html"
print(write_report("reports/images", page, baseline="mixer=Target", metric="recall_at_5"))
