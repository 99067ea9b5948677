"""A frame of texts in, a page that compares three rules out: python frame.py TEXTS.csv."""

import sys

import pandas as pd

import rbkit as rb
from rbkit.report import write_report

frame = pd.read_csv(sys.argv[1])
corpus = rb.load_corpus(frame)  # column text; source, if there is one
domains = rb.regroup(corpus, k=range(4, 13))
for mixer in ("Stratified", "Target", "RnB"):
    rb.train(corpus, domains, mixer=mixer, run_dir=f"reports/frame/{mixer}", resume=True)
print(write_report("reports/frame", "reports/frame/index.html", baseline="mixer=Target"))
