"""`python -m model compare`."""

from pathlib import Path

from model.comparison.config import CompareConfig
from model.comparison.runs import settle_budget, train_all
from model.comparison.table import Comparison, compare_runs
from model.errors import UserError
from model.evaluation.command import measure, open_lpips, read_pairs
from model.networks import build_network
from model.progress import say
from model.training.losses import build_loss
from model.training.run_folder import RunFolder, remove_results
from model.weights import replace_file

__all__ = ["compare", "run", "write_comparison"]


def run(config: CompareConfig) -> None:
    """Compare as configured; print the table and leave it in the run folder."""
    comparison = compare(config)
    if comparison is None:
        return
    say(f"\n{comparison.markdown()}")
    say(f"written: {', '.join(map(str, write_comparison(config.out, comparison)))}")


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Leave table.md, table.csv and table.json in a folder.

    Raises:
        UserError: if one cannot be written.
    """
    forms = {"md": comparison.markdown(), "csv": comparison.csv(), "json": comparison.json()}
    written = [folder / f"table.{suffix}" for suffix in forms]
    for path, text in zip(written, forms.values(), strict=True):
        replace_file(path, text.encode())
    return written


def compare(config: CompareConfig) -> Comparison | None:
    """Train, fine-tune and measure all; nothing that is finished is repeated.

    Returns:
        The table, or None if a run was interrupted.

    Raises:
        UserError: if something in the configuration, the photographs or an earlier comparison is in the way.
    """
    config.check()
    if (config.out / "config.yaml").is_file() and not (config.resume or config.overwrite):
        raise UserError(
            f"{config.out} holds an earlier comparison; --resume goes on, --overwrite starts anew"
        )
    _check_early(config)
    folder = RunFolder(config.out)
    if not config.resume:
        # What would pass for a finished run or a settled budget.
        remove_results(
            old
            for name in ("*/budget.json", "*/*/weights.safetensors", "*/*/checkpoints")
            for old in config.out.glob(name)
        )
    folder.write_config(config.recorded())
    runs = train_all(config)
    if runs is None:
        return None
    measured, _ = measure(config.evaluation([f"{one.label}=weights:{one.weights}" for one in runs]))
    return compare_runs(runs, config.network_args, measured, _notes(config, measured.notes), _facts(config))


def _check_early(config: CompareConfig) -> None:
    """Find what would fail after hours of training."""
    for network in config.networks:
        build_network(network, config.first_stage(network, 1).network_args)
    first = config.first_stage(config.networks[0], 1)
    for formula in config.formulas:
        build_loss(config.second_stage(config.networks[0], formula, first.out, 1))
    evaluation = config.evaluation([])
    read_pairs(evaluation, evaluation.settled())
    # Said now, not only when all is trained.
    open_lpips(evaluation.lpips, evaluation.lpips_weights, config.device)


def _notes(config: CompareConfig, measured: list[str]) -> list[str]:
    """The foot: everything that changes a number."""
    start = {
        0.0: "Training starts from the blurred picture (DDNet: from the inverted blur), output_gain 0.",
        1.0: "Training starts from the published initialisation.",
    }.get(config.output_gain, f"The last convolutions start with output_gain {config.output_gain:g}.")
    factors = [f"{name} {factor:g}" for name, factor in config.network_rates.items()]
    slower = f" but for a factor ({', '.join(factors)})" if factors else ""
    given = {"first": config.minutes, "second": config.finetune_minutes}
    timed = ", ".join(f"{stage} stage {minutes:g} min" for stage, minutes in given.items() if minutes)
    budget = f"Steps are what the time buys at the speed of MAE, measured before: {timed}. " if timed else ""
    return [
        f"{budget}Each loss starts from its network's first stage; every run of a stage sees the same crops, "
        f"{config.batch} of {config.crop} x {config.crop} in a step, blur {config.blur}. AdamW, rates "
        f"{config.lr:g} and {config.finetune_lr:g}, the same for all networks{slower}; "
        f"precision {config.precision}, seed {config.seed}. {start} "
        f"Q in losses: {config.q_definition}. Seconds are of training, on a machine that may have had other "
        "work.",
        # Not the seconds: those of training are above.
        *measured[:2],
        *measured[3:],
    ]


def _facts(config: CompareConfig) -> dict:
    budgets = {network: vars(settle_budget(config, network)) for network in config.networks}
    return {"config": config.recorded(), "budgets": budgets}
