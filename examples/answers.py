"""Fine-tune on the answers of a file shaped as Dolly's: python answers.py MODEL DOLLY.jsonl."""

import sys

import rbkit as rb
from rbkit.report import write_report

corpus = rb.load_corpus(sys.argv[2])  # prompt and completion are made of Dolly's columns
domains = rb.regroup(corpus, embed="prompt", k=range(4, 13))
options = {"model": sys.argv[1], "completion_only_loss": True, "trainable_layers": 1, "steps": 100}
options |= {"metrics": ["token_f1"], "metric_examples": 40}
for mixer in ("Stratified", "Target", "RnB"):
    folder = f"reports/answers/{mixer}"
    rb.train(corpus, domains, mixer=mixer, **options, run_dir=folder, resume=True)
page = "reports/answers/index.html"
print(write_report("reports/answers", page, baseline="mixer=Target", metric="token_f1"))
