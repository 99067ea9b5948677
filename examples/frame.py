"""A frame of texts in, a page that compares three rules out: python frame.py TEXTS.csv."""

import sys

import pandas as pd

import rbkit as rb
from rbkit.report import write_report
from rbkit.train import train_tokenizer

frame = pd.read_csv(sys.argv[1])
corpus = rb.load_corpus(frame)  # column text; source, if there is one
domains = rb.regroup(corpus, k=range(4, 13))
tokenizer = train_tokenizer(corpus["train"]["text"], vocab_size=4096)


def guessed(model, rows):  # a metric of one's own: the share of tokens guessed right
    ids = [tokenizer(text, return_tensors="pt").input_ids[:, :96] for text in rows["text"]]
    return [(model(x).logits[0, :-1].argmax(-1) == x[0, 1:]).float().mean() for x in ids]


options = {"tokenizer": tokenizer, "metrics": {"guessed": guessed}, "metric_examples": 100}
for mixer in ("Stratified", "Target", "RnB"):
    folder = f"reports/frame/{mixer}"
    rb.train(corpus, domains, mixer=mixer, **options, run_dir=folder, resume=True)
page = "reports/frame/index.html"
print(write_report("reports/frame", page, baseline="mixer=Target", metric="guessed"))
