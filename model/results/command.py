"""`python -m model results`."""

from model.progress import say
from model.results.config import ResultsConfig
from model.results.measuring import measure_all
from model.results.page import write_page

__all__ = ["run"]


def run(config: ResultsConfig) -> None:
    """Measure the shipped weights and write the results page.

    Raises:
        UserError: if something in the configuration, the weights or the pictures is wrong.
    """
    results = measure_all(config)
    for table, _ in results.tables.values():
        say(f"\n{table.plain()}")
    say(f"written: {', '.join(map(str, write_page(config.page, results)))}")
