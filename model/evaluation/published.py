"""The paper's own figures, to stand beside ours."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from model.evaluation.evaluator import METRICS
from model.evaluation.table import Row

__all__ = ["TABLES", "beside", "published"]

TABLES = ("I", "II", "III")


@cache
def published(table: str) -> tuple[tuple[str, Row], ...]:
    """The rows of one of the paper's tables, each with the name of the method here that it belongs to.

    Source: MMSP 2024; published.csv beside this file.
    """
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(
            (
                line["key"],
                Row(
                    (f"paper, Table {table}: {line['method']}",),
                    {metric: float(line[metric]) if line[metric] else None for metric in METRICS},
                    ours=False,
                ),
            )
            for line in lines
            if line["table"] == table
        )


def beside(rows: Sequence[Row], table: str) -> list[Row]:
    """Put each of the paper's rows below ours of the same method, those without one at the end.

    Methods are the same if the part of our row's name before the colon is the key in published.csv:
    mlm:iterations=250 stands beside the paper's mLM, whatever its parameters, and a network labelled mae
    (`mae=unet:FILE`) beside its U-Net trained with MAE.
    """
    theirs = dict(published(table))
    result: list[Row] = []
    last = {row.labels[0].partition(":")[0]: place for place, row in enumerate(rows)}
    for place, row in enumerate(rows):
        result.append(row)
        key = row.labels[0].partition(":")[0]
        if last[key] == place and key in theirs:
            # Marks, as in every list in text, what belongs to the line above.
            their = theirs.pop(key)
            result.append(replace(their, labels=(f"- {their.labels[0]}",)))
    return [*result, *theirs.values()]
