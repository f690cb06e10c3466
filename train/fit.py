"""Train MONet, MONet-RN50 or MONet-RN50* on a store of images, without labels.

Examples:
  python -m train.fit --config config/train/rooms_rn18_cpu.yaml --data.store STORE --run runs/first
  python -m train.fit --resume --run runs/first                       go on after an interruption, exactly
  python -m train.fit --config ... --trainer.max_steps 3000 --data.batch_size 32 --seed_everything 1
  python -m train.fit --config ... --trainer.devices 4 --trainer.strategy ddp --trainer.num_nodes 2
  python -m train.fit --config ... --model.pretrained attention.safetensors --model.hold_attention_steps 800

The run's folder (--run) receives config.yaml, last.ckpt (to resume from), best.safetensors and last.safetensors (for
the node and train.evaluate), validation.jsonl, pictures/ and TensorBoard's files (tensorboard --logdir runs, after
pip install tensorboard).
Every setting of a recipe can be changed on the command line. Settings of the network are fields of its configuration:
  --model.network.slots 11 --model.network.image_size 128
Given all at once (--model.network '{slots: 11}') they replace what the recipe says of the network.
"""

import sys
from collections.abc import Sequence

from train.cli import RunCLI, main
from train.task import MonetTask


def make_cli(argv: Sequence[str]) -> RunCLI:
    """The command, parsed and ready to `fit`."""
    return RunCLI(MonetTask, "train.fit", monitor="val/ari_multi", description=__doc__ or "", argv=argv)


if __name__ == "__main__":
    sys.exit(main(make_cli))
