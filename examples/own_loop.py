"""Your own PyTorch loop around this engine's loader, networks and losses: ``python examples/own_loop.py``, then md-eval reads the weights.

Everything between the batch and ``loss.backward()`` is plain PyTorch: put in your own optimizer, schedule, distillation or logging.
"""

from pathlib import Path

import torch

from dataload import open_loader
from engine import InputSize, TrainConfig, initial_networks, make_step, save_weights

# The options of md-train, under their names. The demo's rendered street needs no download; data_path="kitti_data" takes KITTI.
CONFIG = TrainConfig.from_options(
    dataset="demo", use_stereo=True, height=96, width=320, batch_size=8, weights_init="scratch", initial_depth=11
)  # fmt: skip


def train(config: TrainConfig, folder: Path, *, epochs: int, steps_per_epoch: int | None = None) -> list[float]:
    """Train, save the weights in Monodepth2's layout, and return the loss of each step."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    losses = []
    with open_loader(config.data, "train", device=device, num_epochs=epochs) as loader:
        # Metres in the networks' unit: of KITTI and the demo 5.4, because the stereo baseline of 0.54 m counts as 0.1.
        networks = initial_networks(config, metric_factor=loader.dataset.metric_factor).to(device)
        step = make_step(config, networks).to(device)
        optimizer = torch.optim.AdamW(networks.parameters(), lr=5e-4)
        for epoch in range(epochs):
            before = len(losses)
            for number, batch in enumerate(loader):  # each time the next epoch: another order, other flips and colours
                if number == steps_per_epoch:
                    break
                terms = step(batch)
                optimizer.zero_grad(set_to_none=True)
                terms.loss.backward()
                optimizer.step()
                losses.append(terms.loss.item())
            print(f"epoch {epoch}: mean loss {sum(losses[before:]) / len(losses[before:]):.4f}")
    save_weights(folder, networks, InputSize(*config.data.size_px, config.data.use_stereo))
    return losses


if __name__ == "__main__":
    train(CONFIG, Path("own_weights"), epochs=3)
    print("md-eval --dataset demo --eval_mono --load_weights_folder own_weights")
