"""Command line of the recipe; see `python -m model.train --help`."""

from __future__ import annotations

import argparse
import logging
import platform
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import torch

from model.train import card
from model.train.data import Images, load_cifar, load_photographs
from model.train.loop import Recipe, Trainer, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m model.train", description="Train the bundled CIFAR-10 checkpoint.")
    parser.add_argument("--cifar", type=Path, required=True, help="zip of CIFAR-10 training images, a folder a class")
    parser.add_argument("--photographs", type=Path, help="zip of Tiny ImageNet training images, a folder a WordNet id")
    parser.add_argument("--work", type=Path, required=True, help="folder for decoded images and the state to resume from")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--optimiser", choices=("muon", "sgd"), default=Recipe.optimiser)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    parser.add_argument("--muon-lr", type=float, default=Recipe.muon_lr)
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--minutes", type=float, default=Recipe.minutes, help="end here even if epochs are left")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument(
        "--output", type=Path, default=Path("model/checkpoints/cifar10"), help="written at the end: .safetensors, .json"
    )
    parser.add_argument("--snapshot", action="store_true", help="write the output from the state as it is, without training on")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")

    recipe = replace(
        Recipe(),
        epochs=args.epochs,
        optimiser=args.optimiser,
        lr=args.lr,
        muon_lr=args.muon_lr,
        batch_size=args.batch_size,
        minutes=args.minutes,
        seed=args.seed,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.work.mkdir(parents=True, exist_ok=True)
    tight, held = load_cifar(args.cifar, args.work, seed=recipe.seed)
    loose = None
    held_out = {"held out": held}
    if args.photographs:
        loose, held_out["photographs"] = load_photographs(args.photographs, args.work, seed=recipe.seed)
    trainer = Trainer(recipe, tight, loose, held_out, args.work, device)
    if args.snapshot:
        if not trainer.state_path.exists():  # or the untrained network would replace the checkpoint
            parser.error(f"--snapshot: there is no {trainer.state_path}")
        trainer.resume()
    else:
        trainer.run()
    net = trainer.served()
    # Judge what is written, not what was trained: through float16 and back.
    net.load_state_dict({k: v.float() for k, v in card.halved(net).items()}, strict=False)
    scores = {name: round(100 * evaluate(net, images, recipe.size, device), 2) for name, images in held_out.items()}
    card.write(
        args.output,
        net,
        recipe,
        accuracy={"top1": scores["held out"], **({"top1_photographs": scores["photographs"]} if loose else {})},
        training={
            "data": _data(loose, held_out),
            "command": "python -m model.train " + shlex.join(public_arguments(sys.argv[1:])),
            "epochs": trainer.epoch,
            "minutes": round(trainer.seconds / 60, 1),
            "device": _device(device),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        photographs=loose is not None,
        golden=card.golden(net, held, recipe.size, device),
    )
    logging.getLogger("sknet.train").info("wrote %s: %s", args.output, scores)


def _data(loose: Images | None, held_out: dict[str, Images]) -> str:
    text = f"CIFAR-10 training images but {len(held_out['held out'].labels)} held out (top1)"
    if loose is not None:
        kept = len(held_out["photographs"].labels)
        text += f"; {len(loose.labels)} Tiny ImageNet photographs, {kept} more held out (top1_photographs)"
    return text


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def public_arguments(arguments: list[str]) -> list[str]:
    """The command line without this machine's folders and without what only says when to write."""
    public = []
    for argument in arguments:
        if argument == "--snapshot":
            continue
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        public.append(option + equals + (Path(value).name if "/" in value else value))
    return public


if __name__ == "__main__":
    main()
