"""Fine-tune a causal LM: python loop_plain.py MODEL TRAIN.jsonl EVAL.jsonl."""

import sys

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling

model_id, train_file, eval_file = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(model_id)
model = AutoModelForCausalLM.from_pretrained(model_id).train()

corpus = load_dataset("json", data_files={"train": train_file, "eval": eval_file})
rows = [tokenizer(text, truncation=True, max_length=64) for text in corpus["train"]["text"]]
collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

for step in range(40):
    picked = torch.randint(len(rows), (4,)).tolist()
    batch = collate([rows[i] for i in picked])
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 9:
        print(f"step {step + 1}: loss {loss.item():.3f}")
