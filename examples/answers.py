"""Fine-tune on the answers of a file shaped as Dolly's: python answers.py MODEL DOLLY.jsonl."""

import sys

import pandas as pd

import rbkit as rb
from rbkit.report import write_report

rows = pd.read_json(sys.argv[2], lines=True).rename(columns={"response": "completion"})
rows["prompt"] = rows["instruction"] + "\n" + rows["context"] + "\n"
corpus = rb.load_corpus(rows, text="prompt", source="category", keep=["prompt", "completion"])
domains = rb.regroup(corpus, k=range(4, 13))
options = {"model": sys.argv[1], "completion_only_loss": True, "trainable_layers": 1, "steps": 100}
for mixer in ("Stratified", "Target", "RnB"):
    folder = f"reports/answers/{mixer}"
    rb.train(corpus, domains, mixer=mixer, **options, run_dir=folder, resume=True)
print(write_report("reports/answers", "reports/answers/index.html", baseline="mixer=Target"))
