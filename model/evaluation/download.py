"""`python -m model download`: data sets by name, every file checked against its SHA-256."""

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from model.classical.naming import nearest
from model.errors import UserError
from model.evaluation.data_sets import DATA_SETS, VARIABLE, data_folder
from model.progress import ProgressBar, say

__all__ = ["SOURCES", "DownloadConfig", "Source", "run"]


@dataclass(frozen=True)
class Source:
    """Where a data set is fetched from; its files are listed in checksums/NAME.txt."""

    address: str
    """What stands before each file's name."""
    folder: str
    """Below the folder of data sets."""
    size: str
    """In words, for the announcement."""


SOURCES = {
    "kodak": Source(
        "https://raw.githubusercontent.com/imazen/codec-corpus/55decfe826d350815e3af3b5ac69b882fb2943d3/kodak/",
        "kodak",
        "24 pictures, 15 MB",
    ),
    "bsds500": Source(
        "https://raw.githubusercontent.com/BIDS/BSDS500/a04b7c6c3a9f0ace74bf205c72a43d32e1c72722/BSDS500/data/images/",
        "bsds500",
        "500 pictures, 35 MB",
    ),
    "div2k": Source("https://data.vision.ee.ethz.ch/cvl/DIV2K/", "div2k", "100 pictures, 449 MB"),
}
"""Data sets that can be had without a form or a browser. The commits are fixed, so the files are too."""


@dataclass(kw_only=True)
class DownloadConfig:
    """Fetch data sets; files that are there and right are not fetched again."""

    names: list[str] = field(default_factory=list)
    """kodak, bsds500, div2k."""
    data: Path | None = None
    """Folder that holds the data sets; without it, the one that QKERNEL_DATA names."""
    at_once: int = 8
    """Files that are fetched at the same time."""

    def __post_init__(self) -> None:
        # Words of the command line come as paths.
        self.names = [str(name).lower() for name in self.names]

    def check(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: naming the option, its value, and what would do.
        """
        if not self.names:
            raise UserError(f"which data set? Name one or more of {', '.join(SOURCES)}")
        for name in self.names:
            if name in DATA_SETS and name not in SOURCES:
                places = " or ".join(DATA_SETS[name].places)
                raise UserError(
                    f"{name} cannot be fetched by a program; get it from its authors "
                    f"({DATA_SETS[name].source}) and put it into {places} of the folder of data sets"
                )
            if name not in SOURCES:
                raise UserError(f"no data set is called {name!r}; {nearest(name, SOURCES)}")
        if self.at_once < 1:
            raise UserError(f"--at_once must be at least 1, got {self.at_once}")


def run(config: DownloadConfig) -> None:
    """Fetch what is missing.

    Raises:
        UserError: if pooch is missing, or a file cannot be had or is not what it should be; the files that
            were fetched before it stay.
    """
    config.check()
    folder = data_folder(config.data)
    if folder is None:
        raise UserError(f"where to? Name a folder with --data, or with {VARIABLE}")
    for name in config.names:
        say(f"{name}: {SOURCES[name].size}, into {folder / SOURCES[name].folder}")
        fetched = _fetch(name, folder, config.at_once)
        say(f"{name}: complete, {fetched} fetched")


def listed(name: str) -> Iterator[tuple[str, str, str]]:
    """File, SHA-256 and name at the source, for every file of a data set."""
    text = Path(__file__).with_name("checksums").joinpath(f"{name}.txt").read_text(encoding="ascii")
    for line in text.splitlines():
        if not line.startswith("#"):
            file, checksum, *elsewhere = line.split()
            yield file, checksum, *(elsewhere or [file])


def _fetch(name: str, data: Path, at_once: int) -> int:
    try:
        import pooch
    except ImportError:
        raise UserError("downloads need pooch: pip install pooch") from None
    # What it would log for every file, the progress bar says.
    pooch.get_logger().setLevel("WARNING")
    source, folder = SOURCES[name], data / SOURCES[name].folder
    files = [one for one in listed(name) if not _there(folder / one[0], one[1])]

    def get(file: str, checksum: str, at_source: str) -> None:
        target = folder / file
        try:
            pooch.retrieve(
                source.address + at_source, f"sha256:{checksum}", fname=target.name, path=target.parent
            )
        except Exception as error:
            # Its libraries raise errors of many kinds; all of them mean that there is no such file.
            reason = " ".join(str(error).split())
            if type(error).__name__ == "ConnectionError":
                # Its text is four errors inside each other.
                reason = "no connection"
            raise UserError(
                f"cannot fetch {source.address}{at_source}: {reason}. What is there stays; run it again"
            ) from error

    with ProgressBar(name, len(files), "files") as bar, ThreadPoolExecutor(at_once) as pool:
        jobs = [pool.submit(get, *one) for one in files]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for file, _, _ in files:
        if file.endswith(".zip"):
            _unpack(folder / file)
    return len(files)


def _there(path: Path, checksum: str) -> bool:
    import pooch

    if path.suffix == ".zip":
        # The archive is not kept: what counts is that all of it was unpacked, which its mark says.
        return _mark(path).exists()
    return path.is_file() and pooch.file_hash(path, "sha256") == checksum


def _mark(archive: Path) -> Path:
    return archive.with_suffix(".complete")


def _unpack(archive: Path) -> None:
    """Put the pictures of an archive beside it, without its folders, and take the archive away."""
    with zipfile.ZipFile(archive) as content:
        for entry in content.infolist():
            if not entry.is_dir():
                (archive.parent / Path(entry.filename).name).write_bytes(content.read(entry))
    _mark(archive).touch()
    archive.unlink()
