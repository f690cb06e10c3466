"""Teach the attention network with labels, for train.fit to start from: the thesis's transfer learning (section 4.2).

  masks    trains the whole attention network on the instance masks of any store with labels, each true mask matched to
           a slot by assignment
  classes  trains the ResNet encoder alone, on the class of every pixel

Examples:
  python -m train.pretrain masks --config config/train/pretrain_masks_rn18_cpu.yaml --run runs/masks --data.store STORE
  python -m train.pretrain classes --config config/train/pretrain_classes_rn18_cpu.yaml --run runs/classes \\
      --data.store STORE --model.classes '[shape, colour]' --trainer.max_steps 5000
  python -m train.pretrain masks --resume --run runs/masks            go on after an interruption, exactly
  python -m train.fit --config ... --model.pretrained runs/masks/best.safetensors --model.hold_attention_steps 800
  python -m train.pretrain masks --help                               all settings

The run's folder receives the same files as that of train.fit. Of `masks`, best.safetensors is a whole network (its
component VAE untrained) that train.evaluate can judge; of `classes` it is the encoder alone.
"""

import sys
from collections.abc import Sequence

from train.cli import RunCLI, main
from train.supervised import ClassTask, MaskTask


def make_cli(argv: Sequence[str]) -> RunCLI:
    """The command, parsed and ready to `fit`."""
    what, *rest = argv or ["--help"]
    description = __doc__ or ""
    if what == "masks":
        return RunCLI(MaskTask, "train.pretrain masks", monitor="val/ari_multi", description=description, argv=rest)
    if what == "classes":
        return RunCLI(ClassTask, "train.pretrain classes", monitor="val/accuracy", description=description, argv=rest)
    print(description)
    sys.exit(0 if what in ("--help", "-h") else f"error: say what to train first, masks or classes, not {what!r}")


if __name__ == "__main__":
    sys.exit(main(make_cli))
