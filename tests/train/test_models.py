"""Pretrained models: their weights are trained in float32, whatever the folder holds."""

from __future__ import annotations

import pytest
import torch

import rbkit as rb
from rbkit.train.models import build_model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_folder_of_another_precision_is_trained_in_float32(dtype, tmp_path):
    build_model("tiny", vocab_size=300).to(dtype).save_pretrained(tmp_path)
    model = build_model(str(tmp_path))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.assets
def test_a_pretrained_model_gets_better_by_the_defaults(real_asset, tmp_path):
    real_asset("smollm2")
    texts = [f"The river number {i} of Zubrowka is {7 * i} miles long." for i in range(60)]
    rows = [{"text": text, "source": "ab"[i % 2]} for i, text in enumerate(texts)]
    corpus = rb.load_corpus(rows, eval_size=12)
    domains = rb.regroup(corpus, cluster="sources", progress=False)
    run = rb.train(
        corpus,
        domains,
        run_dir=tmp_path / "run",
        model="smollm2",
        steps=6,
        round_steps=2,
        batch_size=4,
        context=16,
        save_model=False,
        progress=False,
    )
    losses = [row["loss_token"] for row in run.metrics("eval")]
    assert run.info["arguments"]["learning_rate"] == 5e-5
    assert len(losses) == 4
    assert losses[-1] < losses[0] < 8
