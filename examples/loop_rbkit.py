"""Fine-tune a causal LM: python loop_rbkit.py MODEL TRAIN.jsonl EVAL.jsonl."""

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

for step in range(40):
    picked = sampler.take(4)
    batch = collate([rows[i] for i in picked])
    tokens = (batch["labels"][:, 1:] != -100).sum()
    with tracker.batch(domains.train_labels[picked], scale=tokens):
        loss = model(**batch).loss
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}")
        seen = (step // 10, sampler.p, domains.q, domains.sizes, tracker.estimate())
        sampler.set_proportions(mixer.update(rb.Observation(*seen)))
        tracker.reset()
