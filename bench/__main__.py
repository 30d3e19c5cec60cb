"""The commands: `python -m bench micro | overhead | accuracy | inspect | ... | gpu`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "micro": "Time, bandwidth and memory of Q as a loss, beside plain torch, torch.compile and l1_loss.",
    "overhead": "Microseconds per call on a tiny image, layer by layer.",
    "accuracy": "The error of every engine against the float64 SVD, relative to what is allowed.",
    "inspect": "Registers, spills, loads and instructions per pixel of the GPU kernels. Needs no GPU.",
    "traffic": "What the GPU kernels load and store, counted by executing their PTX. Needs no GPU.",
    "train": "Crops a second of the trainer, beside training the way one writes it first.",
    "networks": "Parameters, arithmetic, time and memory of the networks, beside the published figures.",
    "compare": "The networks with several losses at equal budget, trained for minutes, on Kodak.",
    "classical": "The classical methods of Table II on Kodak and BSDS500, under both protocols.",
    "shipped": "The weights in weights/ on Kodak and BSDS500: docs/results.md and its record.",
    "dial": "Where the sharpness dial of the shipped weights stands by itself.",
    "focus": "The weights for photographs out of focus, on Kodak by radius and on real pairs.",
    "demo": "Put the table and the picture of the last `make demo` into the records.",
    "readme": "Put the records of bench/results/ into README.md.",
    "gpu": "GPU tests and benchmarks. Needs a GPU.",
    "variants": "Versions of the CUDA kernels, from other folders, side by side. Needs a GPU and nvcc.",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def main(words: list[str]) -> int:
    """Run a command; the exit code. What the user can mend ends in one line and code 2."""
    # Before torch is imported: the profiler, which measures memory, announces every start.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    parser = _Parser(prog="python -m bench", description="Measure qkernel. Records: bench/results/.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    if not words or words[0] not in COMMANDS:
        for name, summary in COMMANDS.items():
            commands.add_parser(name, help=summary)
        parser.parse_args(words)
        parser.print_help()
        return 0

    from model.errors import UserError

    command = import_module(f"bench.{words[0]}")
    command.arguments(commands.add_parser(words[0], description=COMMANDS[words[0]]))
    try:
        return command.run(parser.parse_args(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
