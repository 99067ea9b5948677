"""A loop of one's own in one of several processes: not a test itself."""

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

import rbkit as rb
from rbkit.errors import InputError


def train(folder):
    with rb.live(folder, ["oak", "car"], steps=400, log_every=5, display=False) as live:
        for step in live:
            dist.all_reduce(torch.ones(1))
            if dist.get_rank() == 0 and step == 9:
                (folder / "STOP").touch()
            live(float(dist.get_rank()), tokens=2)
            time.sleep(0.004 * dist.get_rank())  # the other would see STOP a step later
    return f"left at {live.step}"


def main(rank, folder):
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    print(train(folder / "run"))
    try:
        rb.live(folder / "taken", ["oak"], display=False)
    except InputError as error:
        print(f"refused: {error.what}")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
