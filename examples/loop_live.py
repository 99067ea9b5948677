"""Fine-tune a causal LM, and watch it: python loop_live.py MODEL TRAIN.jsonl EVAL.jsonl."""

import sys

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling

import rbkit as rb

model_id, train_file, eval_file = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(model_id)
model = AutoModelForCausalLM.from_pretrained(model_id).train()

corpus = load_dataset("json", data_files={"train": train_file, "eval": eval_file})
rows = [tokenizer(text, truncation=True, max_length=64) for text in corpus["train"]["text"]]
collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
domains, mixer = rb.regroup(corpus, k=range(4, 13)), rb.RnB()
tracker = rb.GramTracker(model.get_output_embeddings(), domains.m)
sampler = rb.MixtureSampler(domains.train_labels, mixer.start(domains.q, domains.sizes))

with rb.live("runs/live", domains, mixer=mixer, sampler=sampler, steps=40) as live:
    for step in live:  # ends early when asked to: ■, Ctrl-C, or a file STOP in runs/live
        picked = sampler.take(4)
        batch = collate([rows[i] for i in picked])
        tokens = (batch["labels"][:, 1:] != -100).sum()
        with tracker.batch(domains.train_labels[picked], scale=tokens):
            loss = model(**batch).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        gram = None
        if step % 10 == 9:
            gram = tracker.estimate()
            seen = (step // 10, sampler.p, domains.q, domains.sizes, gram)
            sampler.set_proportions(mixer.update(rb.Observation(*seen)))
            tracker.reset()
        live(loss, tokens=tokens, gram=gram)

run = rb.Run.open("runs/live")
print(f"{run.status}: loss {run.metrics('train')[-1]['loss']:.3f}")
