"""Fine-tune a causal LM: python trainer_plain.py MODEL TRAIN.jsonl EVAL.jsonl."""

import sys

from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

model_id, train_file, eval_file = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(model_id)
model = AutoModelForCausalLM.from_pretrained(model_id)

corpus = load_dataset("json", data_files={"train": train_file, "eval": eval_file})
rows = corpus.map(
    lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True
)
trainer = Trainer(
    model=model,
    args=TrainingArguments("out", max_steps=40, per_device_train_batch_size=4, report_to="none"),
    train_dataset=rows["train"],
    eval_dataset=rows["eval"],
    data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
)
trainer.train()
print(trainer.evaluate()["eval_loss"])
