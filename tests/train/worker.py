"""Train on a dataset folder and tell every step; run by the tests of resuming.  Usage: worker.py DATA FOLDER"""

import os
import sys

import torch
from safetensors.torch import save_file
from small import config, network

from triptych.data.read import load_data
from triptych.train import fit
from triptych.train.augment import Augment
from triptych.train.progress import TrainProgress


def tell(event: TrainProgress) -> None:
    sys.stdout.write(f"{event.step}\n")
    sys.stdout.flush()


def main() -> None:
    torch.set_num_threads(1)
    data, folder = load_data(sys.argv[1]), sys.argv[2]
    options = config(epochs=4, checkpoint_every_s=0.0, average=0.9, modality_dropout=0.2, label_smoothing=0.1)
    model = fit(
        network(data, exits=True),
        data,
        options,
        augment=Augment.of(config(augment=1.0, repair=True, mixup=0.3), data.schema),
        folder=folder,
        resume=True,
        progress=tell,
    )
    save_file(model.state_dict(), f"{folder}/result{os.environ.get('RANK', '')}.safetensors")


main()
