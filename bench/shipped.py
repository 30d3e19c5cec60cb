"""The weights that come with the repository, on Kodak and BSDS500: the results page, and its record."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.evaluation.data_sets import DATA_SETS
from model.evaluation.table import to_markdown
from model.results.config import ResultsConfig
from model.results.measuring import PROTOCOL_DATA, PROTOCOLS, Results, measure_all
from model.results.page import TITLES, write_page

from . import record
from .classical import means


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with kodak and bsds500 (default: QKERNEL_DATA)")
    parser.add_argument("--sweep", type=Path, help="folder of a sweep over w from the shipped MAE weights")
    parser.add_argument("--study", type=Path, help="folder of the runs that the loss was chosen among")
    parser.add_argument("--lpips-weights", type=Path, help="folder with alexnet_features.npz")
    parser.add_argument("--limit", type=int, default=0, help="pictures of each set (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--page", type=Path, help="default: docs/results.md for all, else runs/results")
    parser.add_argument("--out", type=Path, help="folder (default: bench/results for all, else runs/bench)")


def run(options: argparse.Namespace) -> int:
    """Measure, write page, CSV and Markdown; an interrupted run goes on where it stopped."""
    config = ResultsConfig(
        data=options.data,
        sweep=options.sweep,
        study=options.study,
        limit=options.limit,
        lpips_weights=options.lpips_weights,
        out=options.page,
        device=options.device,
    )
    machine = record.machine(options.device)
    results = measure_all(config)
    written = write_page(config.page, results)
    counts = {protocol: len(pairs) for protocol, (_, pairs) in results.tables.items()}
    whole = config.whole and counts == {
        name: DATA_SETS[data].photographs for name, data in PROTOCOL_DATA.items()
    }
    folder = options.out or (record.RESULTS if whole else record.SCRATCH)
    rows = [
        mean
        for protocol, (table, _) in results.tables.items()
        for mean in means(TITLES[protocol].lower(), protocol, table)
    ]
    record.write(folder / f"shipped_{options.device}.csv", rows, machine)
    text = report(results, machine)
    (folder / f"shipped_{options.device}.md").write_text(text, encoding="utf-8", newline="\n")
    print(text)
    print(f"Written: {written[0]}, {folder}/shipped_{options.device}.csv and .md")
    return 0


def report(results: Results, machine: record.Machine) -> str:
    """The shipped networks and the sweep beside the paper's, one table for each set."""
    parts = ["# The weights that come with the repository", record.describe(machine)]
    for protocol in PROTOCOLS:
        table, _ = results.tables[protocol]
        parts += [f"## {TITLES[protocol]}", to_markdown(table.rows, underline_second=True), *table.notes]
    return "\n\n".join(parts) + "\n"
