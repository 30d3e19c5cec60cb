"""The commands: `python -m model prepare | train | finetune | info | evaluate | tune | ...`."""

import sys

from model.command_line import Command, main

COMMANDS = {
    "prepare": Command(
        "Pack photographs once into a store that training maps into memory.",
        config="model.data.prepare:PrepareConfig",
        run="model.data.prepare:prepare",
        pictures="photographs",
    ),
    "train": Command(
        "Train a network on your photographs with the mean absolute error.",
        config="model.training.config:TrainConfig",
        run="model.training.command:run",
        pictures="photographs",
        parallel=True,
    ),
    "finetune": Command(
        "Fine-tune weights with MAE - w Q, so that restored pictures are sharper.",
        config="model.training.config:FinetuneConfig",
        run="model.training.command:run",
        pictures="photographs",
        parallel=True,
    ),
    "info": Command(
        "Say what weights, stores and run folders are.",
        config="model.info:InfoConfig",
        run="model.info:run",
        pictures="files",
    ),
    "pack": Command(
        "Write weights in 16 or 8 bits to give away, with a card that says what they are.",
        config="model.pack:PackConfig",
        run="model.pack:run",
    ),
    "download": Command(
        "Fetch data sets by name, each file checked.",
        config="model.evaluation.download:DownloadConfig",
        run="model.evaluation.download:run",
        pictures="names",
    ),
    "evaluate": Command(
        "Measure PSNR, SSIM, Q and LPIPS of weights on a folder of photographs.",
        config="model.evaluation.config:EvaluateConfig",
        run="model.evaluation.command:run",
        pictures="photographs",
    ),
    "compare": Command(
        "Train several networks with several losses at equal budget, and measure them all.",
        config="model.comparison.config:CompareConfig",
        run="model.comparison.command:run",
        pictures="photographs",
        lighter="a smaller --batch or --crop, or --device cpu",
    ),
    "results": Command(
        "Measure the weights that come with this program, and write the results page.",
        config="model.results.config:ResultsConfig",
        run="model.results.command:run",
    ),
    "tune": Command(
        "Choose a parameter by maximising Q, without the sharp pictures.",
        config="model.evaluation.tune_config:TuneConfig",
        run="model.evaluation.tune:run",
        pictures="photographs",
    ),
    "deblur": Command(
        "Restore photographs of any size; the originals are left as they are.",
        config="model.photo.config:DeblurConfig",
        run="model.photo.command:run",
        pictures="photographs",
        lighter="--tile 128 where tiles are larger, or --device cpu",
    ),
    "demo": Command(
        "Fine-tune with Q and compare before and after, on photographs and weights that are already here.",
        config="model.demo.config:DemoConfig",
        run="model.demo.command:run",
        lighter="a smaller --batch or --crop, or --device cpu",
    ),
}

if __name__ == "__main__":
    sys.exit(main(COMMANDS, sys.argv[1:]))
